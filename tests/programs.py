"""Programs that are not from Python, and what a test does where one is missing."""

from __future__ import annotations

import os
import shutil

import pytest


def program(*names: str, package: str) -> str:
    """The path of the first of `names` that there is; `package` is what to install for it.

    Where there is none the test is skipped, and fails on the project's checks.
    """
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        missing = f"no {' or '.join(names)} is on the path: install {package}"
        (pytest.fail if os.environ.get("NOTEBOOK_SERVE_CI") else pytest.skip)(missing)
    return found
