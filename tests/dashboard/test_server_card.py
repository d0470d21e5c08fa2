"""The card of a server: its head, its figures, its errors."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from notebook_serve import Greedy, ServeError, Server, Stats
from notebook_serve.dashboard.server_card import server_card

Make = Callable[..., Server]


def lines(stats: Stats, url: str = "") -> list[str]:
    """Return the lines of a card as text."""
    return str(server_card("mine", url, stats, [("token", "none")])).splitlines()


def divide(inputs: list[Any]) -> list[Any]:
    """Divide by each input."""
    return [1 / value for value in inputs]


def test_the_head_has_the_address_while_there_is_one(make: Make) -> None:
    """The settings come last, as they were given."""
    stats = make(divide, policy=Greedy(2)).stats()
    shown = lines(stats, "http://x")
    assert shown[0].startswith("mine is ready · http://x")
    assert shown[-1].split() == ["token", "none"]
    assert any(line.split() == ["policy", "Greedy(max_batch_size=2)"] for line in shown)
    assert "http" not in "".join(lines(stats))


def test_an_error_is_below_the_head_while_the_model_is_failing(make: Make) -> None:
    """After an answer it is only the last error, among the figures."""
    server = make(divide)
    with contextlib.suppress(ServeError):
        server.predict(0)
    head, error = lines(server.stats())[:2]
    assert "is failing" in head
    assert error.startswith("ZeroDivisionError: division by zero")
    assert not any(line.startswith("last error") for line in lines(server.stats()))
    server.predict(1)
    assert any(line.startswith("last error") for line in lines(server.stats()))


def test_an_error_of_several_models_names_its_model(make: Make) -> None:
    """One model alone needs no name."""
    server = make(divide, name="first")
    server.add("other", divide)
    with contextlib.suppress(ServeError):
        server["other"].predict(0)
    assert lines(server.stats())[1].startswith("other · ZeroDivisionError")
