"""Dashboard widget: its data comes through the kernel's own channel, without another port.

It needs the extra ``notebook``, so only `Server.dashboard` imports this file.
"""

from __future__ import annotations

import logging
import math
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import anywidget
import IPython
import IPython.display
import traitlets

from ..engine.engine import Engine
from ..engine.registry import EngineRegistry
from ..errors import NoSuchModel, OptionError
from .assets import build_script, read_static
from .offline_copy import OfflineCopy
from .snapshot import ServerSnapshots, run_command

logger = logging.getLogger("notebook_serve")

#: seconds between two snapshots
INTERVAL = 1.0
#: seconds between two messages of the browser that the widget is visible
HEARTBEAT = 4.0
#: seconds without such a message after which the widget counts as hidden
TIMEOUT = 10.0
#: seconds between two updates of the offline copy while the widget is visible
STATIC_INTERVAL = 60.0


class RefreshThread:
    """Thread that calls `refresh` every second while the widget is visible.

    It starts with the first message that the widget is visible, and ends when the messages stop or
    `refresh` returns False.
    """

    def __init__(self, refresh: Callable[[], bool], name: str) -> None:
        self._refresh = refresh
        self._name = name
        self._lock = threading.Lock()
        self._seen = -math.inf
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()

    def mark_visible(self) -> None:
        """Note that the widget is visible now."""
        with self._lock:
            self._seen = time.monotonic()
            if self._thread is None and not self._stopped.is_set():
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """End the thread for good."""
        self._stopped.set()

    def _run(self) -> None:
        while True:
            self._stopped.wait(INTERVAL)
            with self._lock:
                # While a cell runs, no message of the browser arrives.
                hidden = time.monotonic() - self._seen > TIMEOUT and not cells.busy
                if hidden or self._stopped.is_set():
                    self._thread = None
                    return
            if not self._try_refresh():
                with self._lock:
                    self._thread = None
                return

    def _try_refresh(self) -> bool:
        try:
            return self._refresh()
        except Exception as error:  # for example because the kernel shuts down
            logger.debug("the dashboard cannot be updated any more: %s", error)
            return False


class CellState:
    """State of the kernel: a message of the browser is only handled between cells.

    When a cell ends, each displayed dashboard updates its static copy.
    """

    def __init__(self) -> None:
        self.busy = False
        self.displayed: weakref.WeakSet[Dashboard] = weakref.WeakSet()
        shell = IPython.get_ipython()
        if shell is not None:
            self.busy = True  # the cell that imports this module
            shell.events.register("pre_run_cell", self._begin)
            shell.events.register("post_run_cell", self._end)

    def _begin(self, info: object) -> None:
        self.busy = True

    def _end(self, result: object) -> None:
        self.busy = False
        for dashboard in list(self.displayed):
            dashboard.update_static()


cells = CellState()


class Dashboard(anywidget.AnyWidget):
    """Widget with a server's live state, and controls to pause and to change the policy.

    The browser reports every few seconds that the widget is visible; a thread sends snapshots until
    these reports stop. An offline copy is displayed before the widget and hidden while the
    widget works; a notebook without a running kernel shows it instead.
    """

    _esm = build_script()
    _css = read_static("dashboard.css")

    #: data to draw; see `EngineSnapshots.take`
    snapshot = traitlets.Dict().tag(sync=True)
    #: seconds between two messages that the widget is visible
    every = traitlets.Float(HEARTBEAT).tag(sync=True)
    #: id of the offline copy to hide
    shown = traitlets.Unicode().tag(sync=True)

    def __init__(self, engines: EngineRegistry, name: str) -> None:
        self._engines = engines
        self._snapshots = ServerSnapshots(engines)
        self._name = name
        self._thread = RefreshThread(self._refresh, f"notebook-serve {name} dashboard")
        self._static_at = -math.inf
        super().__init__(snapshot=self._take_snapshot())
        self.shown = self.model_id or ""
        self.on_msg(self._handle_message)

    @property
    def _engine(self) -> Engine:
        """The engine of the selected model; the first engine if that model was removed."""
        try:
            return self._engines[self._name]
        except NoSuchModel:
            return self._engines.first

    def _take_snapshot(self) -> dict[str, Any]:
        return {**self._snapshots.take(self._engine.name), "steers": True}

    def _refresh(self) -> bool:
        """Send a new snapshot; return False once the server has ended."""
        self.snapshot = self._take_snapshot()
        if time.monotonic() - self._static_at > STATIC_INTERVAL:
            self.update_static()
        return self._engine.state not in ("stopped", "failed", "dead")

    def _handle_message(self, widget: Any, content: Any, buffers: Any) -> None:
        """Handle a message of the browser: visible, show another model, or a command."""
        match content:
            case {"do": "look"}:
                pass
            case {"do": "show", "model": str(name)}:
                self._name = name
            case _:
                self._run_command(content)
        self._refresh()
        self._thread.mark_visible()

    def _run_command(self, content: Any) -> None:
        try:
            run_command(self._engine, content)
            self.send({"done": True})
        except OptionError as error:
            self.send({"error": error.message})

    def close(self) -> None:
        """End the thread and remove the widget."""
        self._thread.stop()
        cells.displayed.discard(self)
        super().close()

    def __repr__(self) -> str:
        return f"<Dashboard of {self._engine.name!r}>\n{self._engine.stats()!r}"

    def update_static(self) -> None:
        """Update the offline copy, unless its present version shows more.

        It does if no request arrived within the last minute, or after the server was stopped.
        """
        if self not in cells.displayed:
            return
        snapshot = self._take_snapshot()
        if snapshot["state"] != "stopped" and _has_arrivals(snapshot):
            self._display_static(snapshot, update=True)

    def _display_static(self, snapshot: dict[str, Any], **options: Any) -> None:
        self._static_at = time.monotonic()
        # Rates cover whole seconds. Include the present one, in which the cell sent its requests.
        ahead = self._snapshots.take(self._engine.name, math.ceil(time.monotonic()))
        snapshot = {**snapshot, "history": ahead["history"], "tiles": ahead["tiles"]}
        at = time.strftime("%Y-%m-%d %H:%M")
        static = OfflineCopy(snapshot, at, self.shown, repr(self))
        _display(static, display_id=f"notebook-serve-{self.shown}", **options)

    def _ipython_display_(self) -> None:
        # Start now: the first message of the browser is not handled while a further cell runs.
        self._thread.mark_visible()
        self._display_static(self._take_snapshot())
        cells.displayed.add(self)
        bundle = self._repr_mimebundle_()
        if bundle is not None:
            data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
            # No fallback text: the offline copy is the fallback.
            data = {**data, "text/plain": "", "text/html": ""}
            _display(data, metadata=metadata, raw=True)


def _display(item: object, **options: Any) -> None:
    IPython.display.display(item, **options)  # type: ignore[no-untyped-call]


def _has_arrivals(snapshot: dict[str, Any]) -> bool:
    """Return True if a request arrived within the span of the snapshot."""
    return any(request["arrived"] > -snapshot["span"] for request in snapshot["timeline"])
