from __future__ import annotations

import re
from pathlib import Path

import notebook_serve


def test_the_version_is_that_of_the_project() -> None:
    """The package and `pyproject.toml` name the same version."""
    project = (Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8")

    assert re.findall(r'^version = "(.*)"$', project, re.MULTILINE) == [notebook_serve.__version__]
