"""The widget in a cell, without a browser: what it holds, hears and shows, and when it rests."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from notebook_serve import Greedy, Server, widget
from notebook_serve.widget import Dashboard, Watching

from .gate import eventually

Make = Callable[..., Server]


def echo(inputs: list[Any]) -> list[Any]:
    return inputs


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds pass a hundred times as fast."""
    monkeypatch.setattr(widget, "EVERY", 0.01)
    monkeypatch.setattr(widget, "UNSEEN", 0.1)


class Shows:
    """Counts how often it is shown."""

    def __init__(self) -> None:
        self.count = 0
        self.goes_on = True

    def __call__(self) -> bool:
        """Once more."""
        self.count += 1
        return self.goes_on


def watchers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "watches"]


def test_it_works_only_while_somebody_looks() -> None:
    """A thread begins with the first look and ends by itself; the next look begins another."""
    shows = Shows()
    watching = Watching(shows, "watches")
    assert watchers() == []
    for _ in range(2):
        before = shows.count
        watching.seen()
        watching.seen()
        assert len(watchers()) <= 1
        eventually(lambda before=before: shows.count > before, "it shows")
        eventually(lambda: not watchers(), "nobody looks any more")


def test_it_goes_on_while_a_cell_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nothing is heard of whoever looks, who may well do so."""
    monkeypatch.setattr(widget.cells, "busy", True)
    shows = Shows()
    watching = Watching(shows, "watches")
    watching.seen()
    eventually(lambda: shows.count > 30, "it shows for longer than UNSEEN")
    assert watchers()
    monkeypatch.setattr(widget.cells, "busy", False)
    eventually(lambda: not watchers(), "it rests when the cell is through")


def test_it_ends_where_there_is_nothing_more_to_show() -> None:
    """And when it is stopped, for good."""
    shows = Shows()
    shows.goes_on = False
    watching = Watching(shows, "watches")
    watching.seen()
    eventually(lambda: not watchers(), "it has ended")
    assert shows.count == 1
    watching.stop()
    watching.seen()
    assert not watchers()


def test_an_error_of_showing_ends_it() -> None:
    """A kernel that shuts down closes its channels under it."""

    def breaks() -> bool:
        raise RuntimeError("the channel is closed")

    watching = Watching(breaks, "watches")
    watching.seen()
    eventually(lambda: not watchers(), "it has ended")


def test_the_widget_shows_and_steers(make: Make) -> None:
    """It holds a picture from the start, and does what its controls ask."""
    server = make(echo)
    server.predict("x")
    dashboard = server.dashboard()
    assert isinstance(dashboard, Dashboard)
    assert dashboard.picture["outcomes"]["ok"] == 1
    assert dashboard.picture["steers"] is True
    sent: list[Any] = []
    dashboard.send = sent.append
    dashboard._heard(dashboard, {"do": "policy", "policy": "Greedy(7)"}, [])
    dashboard._heard(dashboard, {"do": "policy", "policy": "Greedy(x)"}, [])

    assert server.policy == Greedy(7)
    assert dashboard.picture["policy"]["options"] == {"max_batch_size": "7"}
    assert sent[0] == {"done": True}
    assert "Greedy(x)" in sent[1]["error"]
    server.stop()
    eventually(lambda: dashboard.picture["state"] == "stopped", "the end is shown")
    dashboard.close()


def test_one_of_several_models_is_chosen(make: Make) -> None:
    """It is shown and steered; when it is removed, the first one is shown again."""
    server = make(echo, name="first")
    server.add("second", echo)
    dashboard = server.dashboard()
    dashboard.send = lambda content: None
    assert [model["name"] for model in dashboard.picture["models"]] == ["first", "second"]
    dashboard._heard(dashboard, {"do": "show", "model": "second"}, [])
    dashboard._heard(dashboard, {"do": "policy", "policy": "Greedy(7)"}, [])

    assert dashboard.picture["name"] == "second"
    assert server["second"].policy == Greedy(7)
    assert server["second"].dashboard().picture["name"] == "second"
    server.remove("second")
    dashboard._heard(dashboard, {"do": "look"}, [])
    assert (dashboard.picture["name"], dashboard.picture["models"]) == ("first", [])
    dashboard._heard(dashboard, {"do": "show", "model": "nonsense"}, [])
    assert dashboard.picture["name"] == "first"
    dashboard.close()


def test_where_no_widget_can_be_drawn_the_figures_are_read(make: Make) -> None:
    """A code host shows the HTML form, a terminal the text."""
    server = make(echo, name="mine")
    server.predict("x")
    dashboard = server.dashboard()
    shown = dashboard._repr_mimebundle_()
    data = shown[0] if isinstance(shown, tuple) else shown

    assert "application/vnd.jupyter.widget-view+json" in data
    assert "<table" in data["text/html"]
    assert "ok: 1" in data["text/html"]
    assert "Dashboard of 'mine'" in data["text/plain"]
    assert "ok: 1" in data["text/plain"]
    dashboard.close()


def test_an_idle_server_is_still_heard_of(make: Make) -> None:
    """Each look brings a picture that is new, or the browser would be told of no change."""
    dashboard = make(echo).dashboard()
    seen = []
    dashboard.observe(lambda change: seen.append(change["new"]["at"]), "picture")
    for _ in range(3):
        dashboard._heard(dashboard, {"do": "look"}, [])

    assert len(seen) >= 3
    dashboard.close()
