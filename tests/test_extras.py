"""Optional dependencies: installed, missing, and broken ones."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from notebook_serve.errors import ServeError
from notebook_serve.extras import MissingExtra, require


def test_an_installed_module_is_imported() -> None:
    """Import a module at the top, and one inside a package."""
    assert require("math", "notebook") is math
    assert require("os.path", "notebook").join("a", "b")


def test_a_missing_module_is_named_with_its_command() -> None:
    """The error has the command that installs it, and is an ImportError too."""
    with pytest.raises(MissingExtra) as caught:
        require("no_such_package.inside", "notebook")

    assert str(caught.value) == (
        "no_such_package is not installed: pip install 'notebook-serve[notebook]'"
    )
    assert isinstance(caught.value, ServeError)
    assert isinstance(caught.value, ImportError)


def test_a_broken_module_raises_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installed package that lacks a dependency of its own is not called missing."""
    (tmp_path / "broken_package.py").write_text("import no_such_dependency")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(ModuleNotFoundError, match="no_such_dependency") as caught:
        require("broken_package", "notebook")

    assert not isinstance(caught.value, MissingExtra)
    assert "broken_package" not in sys.modules
