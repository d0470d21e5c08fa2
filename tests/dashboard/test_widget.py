"""The widget in a cell, without a browser: what it holds, hears and shows, and when it rests."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from notebook_serve import Greedy, Server
from notebook_serve.dashboard import widget
from notebook_serve.dashboard.widget import Dashboard, RefreshThread

from ..helpers.blocking_model import eventually

Make = Callable[..., Server]


def echo(inputs: list[Any]) -> list[Any]:
    return inputs


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds pass a hundred times as fast."""
    monkeypatch.setattr(widget, "INTERVAL", 0.01)
    monkeypatch.setattr(widget, "TIMEOUT", 0.1)


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
    watching = RefreshThread(shows, "watches")
    assert watchers() == []
    for _ in range(2):
        before = shows.count
        watching.mark_visible()
        watching.mark_visible()
        assert len(watchers()) <= 1
        eventually(lambda before=before: shows.count > before, "it shows")
        eventually(lambda: not watchers(), "nobody looks any more")


def test_it_goes_on_while_a_cell_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nothing is heard of whoever looks, who may well do so."""
    monkeypatch.setattr(widget.cells, "busy", True)
    shows = Shows()
    watching = RefreshThread(shows, "watches")
    watching.mark_visible()
    eventually(lambda: shows.count > 30, "it shows for longer than UNSEEN")
    assert watchers()
    monkeypatch.setattr(widget.cells, "busy", False)
    eventually(lambda: not watchers(), "it rests when the cell is through")


def test_it_ends_where_there_is_nothing_more_to_show() -> None:
    """And when it is stopped, for good."""
    shows = Shows()
    shows.goes_on = False
    watching = RefreshThread(shows, "watches")
    watching.mark_visible()
    eventually(lambda: not watchers(), "it has ended")
    assert shows.count == 1
    watching.stop()
    watching.mark_visible()
    assert not watchers()


def test_an_error_of_showing_ends_it() -> None:
    """A kernel that shuts down closes its channels under it."""

    def breaks() -> bool:
        raise RuntimeError("the channel is closed")

    watching = RefreshThread(breaks, "watches")
    watching.mark_visible()
    eventually(lambda: not watchers(), "it has ended")


def test_the_widget_shows_and_steers(make: Make) -> None:
    """It holds a picture from the start, and does what its controls ask."""
    server = make(echo)
    server.predict("x")
    dashboard = server.dashboard()
    assert isinstance(dashboard, Dashboard)
    assert dashboard.snapshot["outcomes"]["ok"] == 1
    assert dashboard.snapshot["steers"] is True
    sent: list[Any] = []
    dashboard.send = sent.append
    dashboard._handle_message(dashboard, {"do": "policy", "policy": "Greedy(7)"}, [])
    dashboard._handle_message(dashboard, {"do": "policy", "policy": "Greedy(x)"}, [])

    assert server.policy == Greedy(7)
    assert dashboard.snapshot["policy"]["options"] == {"max_batch_size": "7"}
    assert sent[0] == {"done": True}
    assert "Greedy(x)" in sent[1]["error"]
    server.stop()
    eventually(lambda: dashboard.snapshot["state"] == "stopped", "the end is shown")
    dashboard.close()


def test_one_of_several_models_is_chosen(make: Make) -> None:
    """It is shown and steered; when it is removed, the first one is shown again."""
    server = make(echo, name="first")
    server.add("second", echo)
    dashboard = server.dashboard()
    dashboard.send = lambda content: None
    assert [model["name"] for model in dashboard.snapshot["models"]] == ["first", "second"]
    dashboard._handle_message(dashboard, {"do": "show", "model": "second"}, [])
    dashboard._handle_message(dashboard, {"do": "policy", "policy": "Greedy(7)"}, [])

    assert dashboard.snapshot["name"] == "second"
    assert server["second"].policy == Greedy(7)
    assert server["second"].dashboard().snapshot["name"] == "second"
    server.remove("second")
    dashboard._handle_message(dashboard, {"do": "look"}, [])
    assert (dashboard.snapshot["name"], dashboard.snapshot["models"]) == ("first", [])
    dashboard._handle_message(dashboard, {"do": "show", "model": "nonsense"}, [])
    assert dashboard.snapshot["name"] == "first"
    dashboard.close()


@pytest.fixture(name="displayed")
def displaying(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, dict[str, Any]]]:
    """Collect what is displayed, and how."""
    displayed: list[tuple[Any, dict[str, Any]]] = []
    monkeypatch.setattr(widget, "_display", lambda item, **how: displayed.append((item, how)))
    return displayed


def test_a_picture_stands_before_the_widget(
    make: Make, displayed: list[tuple[Any, dict[str, Any]]]
) -> None:
    """It has all to be read where no widget can be drawn, and the widget can hide it by its id."""
    server = make(echo, name="<mine>")
    server.predict("x")
    dashboard = server.dashboard()
    dashboard._ipython_display_()
    (still, _), (data, how) = displayed

    assert f'data-notebook-serve="{dashboard.shown}"' in still._repr_html_()
    assert "<b>&lt;mine&gt;</b> ready" in still._repr_html_()
    assert "<Dashboard of '<mine>'>" in repr(still)
    assert "ok: 1" in repr(still)
    assert how["raw"] is True
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == dashboard.shown
    assert (data["text/plain"], data["text/html"]) == ("", "")
    dashboard.close()


def test_the_picture_is_renewed_while_requests_come(
    make: Make, displayed: list[tuple[Any, dict[str, Any]]]
) -> None:
    """When a cell ends; not once the server has been stopped, nor after the widget is closed."""
    server = make(echo)
    dashboard = server.dashboard()
    dashboard.update_static()
    assert displayed == []
    dashboard._ipython_display_()
    widget.cells._end(None)
    assert len(displayed) == 2  # nothing has come yet
    server.predict("x")
    widget.cells._end(None)
    still, how = displayed[-1]

    assert len(displayed) == 3
    assert how == {"display_id": displayed[0][1]["display_id"], "update": True}
    assert still.snapshot["outcomes"]["ok"] == 1
    assert sum(still.snapshot["history"]["answered"]) == 1  # of the second that runs, too
    server.stop()
    widget.cells._end(None)
    dashboard.close()
    widget.cells._end(None)
    assert len(displayed) == 3


def test_the_picture_is_renewed_once_a_minute_in_sight(
    make: Make, displayed: list[tuple[Any, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nothing runs in the notebook, too: requests may come from elsewhere."""
    server = make(echo)
    dashboard = server.dashboard()
    dashboard._ipython_display_()
    server.predict("x")
    dashboard._handle_message(dashboard, {"do": "look"}, [])
    assert len(displayed) == 2
    monkeypatch.setattr(widget, "STATIC_INTERVAL", 0.0)
    dashboard._handle_message(dashboard, {"do": "look"}, [])

    assert len(displayed) >= 3
    dashboard.close()


def test_an_idle_server_is_still_heard_of(make: Make) -> None:
    """Each look brings a picture that is new, or the browser would be told of no change."""
    dashboard = make(echo).dashboard()
    seen = []
    dashboard.observe(lambda change: seen.append(change["new"]["at"]), "snapshot")
    for _ in range(3):
        dashboard._handle_message(dashboard, {"do": "look"}, [])

    assert len(seen) >= 3
    dashboard.close()
