"""Dashboard widget without a browser: its data, its messages and its thread."""

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


class Counter:
    """Function that counts its calls."""

    def __init__(self) -> None:
        self.count = 0
        self.result = True

    def __call__(self) -> bool:
        """Count a call."""
        self.count += 1
        return self.result


def running() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "watches"]


def test_the_thread_runs_only_while_the_widget_is_visible() -> None:
    """A message starts it; without further messages it ends, and a later one starts another."""
    counter = Counter()
    refresh = RefreshThread(counter, "watches")
    assert running() == []
    for _ in range(2):
        before = counter.count
        refresh.mark_visible()
        refresh.mark_visible()
        assert len(running()) <= 1
        eventually(lambda before=before: counter.count > before, "it is called")
        eventually(lambda: not running(), "the thread has ended")


def test_the_thread_continues_while_a_cell_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a cell runs, no message of a visible widget arrives."""
    monkeypatch.setattr(widget.cells, "busy", True)
    counter = Counter()
    refresh = RefreshThread(counter, "watches")
    refresh.mark_visible()
    eventually(lambda: counter.count > 30, "it runs for longer than TIMEOUT")
    assert running()
    monkeypatch.setattr(widget.cells, "busy", False)
    eventually(lambda: not running(), "it ends after the cell")


def test_the_thread_ends_with_the_server() -> None:
    """It does not start again after `stop`."""
    counter = Counter()
    counter.result = False
    refresh = RefreshThread(counter, "watches")
    refresh.mark_visible()
    eventually(lambda: not running(), "it has ended")
    assert counter.count == 1
    refresh.stop()
    refresh.mark_visible()
    assert not running()


def test_an_error_ends_the_thread() -> None:
    """A kernel that shuts down closes the channel."""

    def fail() -> bool:
        raise RuntimeError("the channel is closed")

    refresh = RefreshThread(fail, "watches")
    refresh.mark_visible()
    eventually(lambda: not running(), "it has ended")


def test_snapshots_and_commands(make: Make) -> None:
    """It has a snapshot from the start, and executes commands."""
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


def test_one_of_several_models_is_selected(make: Make) -> None:
    """Commands apply to it; after its removal, the first model is shown again."""
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
    """Collect displayed objects and their options."""
    displayed: list[tuple[Any, dict[str, Any]]] = []
    monkeypatch.setattr(widget, "_display", lambda item, **how: displayed.append((item, how)))
    return displayed


def test_the_static_dashboard_is_displayed_first(
    make: Make, displayed: list[tuple[Any, dict[str, Any]]]
) -> None:
    """It is readable without a widget, and has the id by which the widget hides it."""
    server = make(echo, name="<mine>")
    server.predict("x")
    dashboard = server.dashboard()
    dashboard._ipython_display_()
    (static, _), (data, how) = displayed

    assert f'data-notebook-serve="{dashboard.shown}"' in static._repr_html_()
    assert "<b>&lt;mine&gt;</b> ready" in static._repr_html_()
    assert "<Dashboard of '<mine>'>" in repr(static)
    assert "ok: 1" in repr(static)
    assert how["raw"] is True
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == dashboard.shown
    assert (data["text/plain"], data["text/html"]) == ("", "")
    dashboard.close()


def test_the_static_dashboard_is_updated_after_requests(
    make: Make, displayed: list[tuple[Any, dict[str, Any]]]
) -> None:
    """It is at the end of a cell, unless the server was stopped or the widget closed."""
    server = make(echo)
    dashboard = server.dashboard()
    dashboard.update_static()
    assert displayed == []
    dashboard._ipython_display_()
    widget.cells._end(None)
    assert len(displayed) == 2  # no request yet
    server.predict("x")
    widget.cells._end(None)
    static, how = displayed[-1]

    assert len(displayed) == 3
    assert how == {"display_id": displayed[0][1]["display_id"], "update": True}
    assert static.snapshot["outcomes"]["ok"] == 1
    assert sum(static.snapshot["history"]["answered"]) == 1  # includes the present second
    server.stop()
    widget.cells._end(None)
    dashboard.close()
    widget.cells._end(None)
    assert len(displayed) == 3


def test_the_static_dashboard_is_updated_once_a_minute(
    make: Make, displayed: list[tuple[Any, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is even if no cell runs, as other clients may send requests."""
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


def test_an_idle_server_sends_new_snapshots(make: Make) -> None:
    """Without a change, the browser would get no message."""
    dashboard = make(echo).dashboard()
    seen = []
    dashboard.observe(lambda change: seen.append(change["new"]["at"]), "snapshot")
    for _ in range(3):
        dashboard._handle_message(dashboard, {"do": "look"}, [])

    assert len(seen) >= 3
    dashboard.close()
