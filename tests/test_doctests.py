"""Examples in docstrings give the results that they show."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import notebook_serve

PACKAGE = Path(notebook_serve.__file__).parent
FILES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if path.stem not in ("__main__", "train")
)


@pytest.mark.parametrize("name", FILES)
def test_examples(name: str) -> None:
    """Each example in a module's docstrings gives the result written below it."""
    module = importlib.import_module(f"notebook_serve.{name}".removesuffix(".__init__"))

    assert doctest.testmod(module).failed == 0


def test_there_are_examples() -> None:
    """The examples of `traffic` are found, so the test above can fail."""
    assert doctest.testmod(importlib.import_module("notebook_serve.traffic")).attempted > 5
