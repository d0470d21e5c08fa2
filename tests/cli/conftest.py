"""Fixtures of all tests of the command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from ..helpers.command import Command, Start


@pytest.fixture
def start() -> Iterator[Start]:
    """Start ``notebook-serve`` with arguments; kill the commands that still run at the end."""
    made: list[Command] = []

    def start(*arguments: str, environment: Mapping[str, str] | None = None) -> Command:
        made.append(Command(arguments, environment))
        return made[-1]

    yield start
    for command in made:
        command.process.kill()
        command.process.communicate()
