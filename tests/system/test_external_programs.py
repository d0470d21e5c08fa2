"""Tests whose external program is not installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..helpers import external_programs as programs
from ..helpers.external_programs import ipykernel_6, program


@pytest.mark.parametrize(
    ("on_checks", "outcome"), [(True, pytest.fail.Exception), (False, pytest.skip.Exception)]
)
def test_a_missing_program_skips_a_test_and_fails_the_projects_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_checks: bool, outcome: type[BaseException]
) -> None:
    """A check that did not run never looks passed; the message names the package to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    if on_checks:
        monkeypatch.setenv("NOTEBOOK_SERVE_CI", "1")
    else:
        monkeypatch.delenv("NOTEBOOK_SERVE_CI", raising=False)
    with pytest.raises(outcome, match="no prometheus or promtool is on the path: install Debian"):
        program("prometheus", "promtool", package="Debian's prometheus")
    monkeypatch.setattr(programs, "IPYKERNEL_6", tmp_path)
    with pytest.raises(outcome, match="pip install .*'ipykernel<7'"):
        ipykernel_6()


def test_the_first_installed_program_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result is its whole path."""
    (tmp_path / "second").write_text("")
    (tmp_path / "second").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert program("first", "second", package="either") == str(tmp_path / "second")
