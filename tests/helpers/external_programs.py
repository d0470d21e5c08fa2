"""Programs that pip does not install with the package; a test skips if its program is missing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

#: folder of an older kernel, next to the installed one
IPYKERNEL_6 = Path(__file__).parents[2] / "build" / "ipykernel6"


def program(*names: str, package: str) -> str:
    """Return the path of the first of `names` that is installed; `package` provides it.

    If none is installed, skip the test, or fail it in the project's checks.
    """
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        _miss(f"no {' or '.join(names)} is on the path: install {package}")
    return found


def ipykernel_6() -> Path:
    """Return the folder of ipykernel 6, for the front of the path; skip or fail as `program`."""
    if not (IPYKERNEL_6 / "ipykernel").is_dir():
        _miss(f"pip install --no-deps --target {IPYKERNEL_6} 'ipykernel<7'")
    return IPYKERNEL_6


def _miss(what: str) -> NoReturn:
    (pytest.fail if os.environ.get("NOTEBOOK_SERVE_CI") else pytest.skip)(what)
