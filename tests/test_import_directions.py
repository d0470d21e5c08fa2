"""Imports run one way between the rooms of the package, lazy and type-only imports included."""

from __future__ import annotations

import pytest

from .helpers.imports import GROUND, MAY_IMPORT, OWN, room

#: rooms that a simulation runs on a virtual clock, in one thread
CLOCKLESS = ("queueing", "simulation", "traffic")
FORBIDDEN = {"time", "threading", "asyncio", "concurrent", "torch", "transformers", "starlette"}
#: files at the top of the package, at most
MOST_AT_THE_TOP = 14


def test_every_room_has_a_row() -> None:
    """The table names each room and each file at the top, and no others."""
    assert {room(module) for module in OWN.modules} == {*GROUND, *MAY_IMPORT}


def test_few_files_at_the_top() -> None:
    """The folder names come first in a listing of the package."""
    top = [module for module in OWN.modules if "." not in module]
    assert len(top) <= MOST_AT_THE_TOP, top


def test_imports_run_one_way() -> None:
    """A room imports the rooms of its row and the ground; the ground only what stands before."""
    assert [found for module in OWN.modules for found in forbidden(module)] == []


def forbidden(module: str) -> list[str]:
    """Return the imports of a module that its room may not have."""
    own = room(module)
    below = GROUND[: GROUND.index(own)] if own in GROUND else GROUND
    allowed = {own, *below, *MAY_IMPORT.get(own, ())}
    if "*" in allowed:
        return []
    names = OWN.imports(module)
    return [f"{module} imports {name}" for name in names if room(name) not in allowed]


@pytest.mark.parametrize("folder", ["http.transport", "http.telemetry"])
def test_transport_and_telemetry_know_no_route(folder: str) -> None:
    """Sockets, logs and spans import no file of ``http/`` itself."""
    inside = [module for module in OWN.modules if module.startswith(f"{folder}.")]
    found = {name for module in inside for name in OWN.imports(module)}
    assert [name for name in found if name.startswith("http.") and name.count(".") == 1] == []


def test_policies_and_simulation_have_no_clock() -> None:
    """The time is an argument, and all runs in one thread: no clock, event loop or model."""
    clockless = [module for module in OWN.modules if room(module) in CLOCKLESS]
    assert [module for module in clockless if OWN.foreign(module) & FORBIDDEN] == []


def test_no_circles() -> None:
    """No module imports itself through others."""
    assert OWN.circles() == []
