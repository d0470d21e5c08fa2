"""Programs that pip does not install beside the package, and tests where one is missing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

#: an older kernel beside the one that is installed
IPYKERNEL_6 = Path(__file__).parents[2] / "build" / "ipykernel6"


def program(*names: str, package: str) -> str:
    """The path of the first of `names` that there is; `package` is what to install for it.

    Where there is none the test is skipped, and fails on the project's checks.
    """
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        _miss(f"no {' or '.join(names)} is on the path: install {package}")
    return found


def ipykernel_6() -> Path:
    """The folder with ipykernel 6, to go before all others; missing as a program may be."""
    if not (IPYKERNEL_6 / "ipykernel").is_dir():
        _miss(f"pip install --no-deps --target {IPYKERNEL_6} 'ipykernel<7'")
    return IPYKERNEL_6


def _miss(what: str) -> NoReturn:
    (pytest.fail if os.environ.get("NOTEBOOK_SERVE_CI") else pytest.skip)(what)
