"""The examples in docstrings are true."""

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
def test_the_examples_of(name: str) -> None:
    """Each example in the file's docstrings gives what is written under it."""
    module = importlib.import_module(f"notebook_serve.{name}".removesuffix(".__init__"))

    assert doctest.testmod(module).failed == 0


def test_there_are_examples() -> None:
    """At least those of traffic are found, so the test above does test something."""
    assert doctest.testmod(importlib.import_module("notebook_serve.traffic")).attempted > 5
