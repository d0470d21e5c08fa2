from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from notebook_serve.errors import ServeError
from notebook_serve.extras import MissingExtra, require


def test_what_is_installed_is_imported() -> None:
    """A module inside a package is found as well."""
    assert require("math", "notebook") is math
    assert require("os.path", "notebook").join("a", "b")


def test_what_is_missing_is_named_with_its_command() -> None:
    """One line says what to type; it is caught as this package's error and as an ImportError."""
    with pytest.raises(MissingExtra) as caught:
        require("no_such_package.inside", "notebook")

    assert str(caught.value) == (
        "no_such_package is not installed: pip install 'notebook-serve[notebook]'"
    )
    assert isinstance(caught.value, ServeError)
    assert isinstance(caught.value, ImportError)


def test_what_is_broken_says_so_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package that lacks something of its own is not called missing."""
    (tmp_path / "broken_package.py").write_text("import no_such_dependency")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(ModuleNotFoundError, match="no_such_dependency") as caught:
        require("broken_package", "notebook")

    assert not isinstance(caught.value, MissingExtra)
    assert "broken_package" not in sys.modules
