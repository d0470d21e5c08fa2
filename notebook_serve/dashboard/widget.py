"""The dashboard in a cell: fed through the kernel's own channel, so that no port need be reached.

Needs the extra ``notebook``; so nothing imports this file but `Server.dashboard`.
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
from .assets import script, source
from .snapshot import steer
from .snapshots import Lives
from .still_picture import DashboardPicture

logger = logging.getLogger("notebook_serve")

#: seconds between two pictures
EVERY = 1.0
#: seconds between two signs of life of a page that shows them
LOOKS = 4.0
#: seconds without such a sign after which the dashboard is out of sight
UNSEEN = 10.0
#: seconds between two of the pictures that the notebook keeps, while the dashboard is in sight
KEPT = 60.0


class Watching:
    """Calls `show` every second, in a thread that lives only while the dashboard is in sight."""

    def __init__(self, show: Callable[[], bool], name: str) -> None:
        self._show = show
        self._name = name
        self._lock = threading.Lock()
        self._seen = -math.inf
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()

    def seen(self) -> None:
        """Take note that the dashboard is in sight."""
        with self._lock:
            self._seen = time.monotonic()
            if self._thread is None and not self._stopped.is_set():
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """End for good."""
        self._stopped.set()

    def _run(self) -> None:
        while True:
            self._stopped.wait(EVERY)
            with self._lock:
                unseen = time.monotonic() - self._seen > UNSEEN and not cells.busy
                if unseen or self._stopped.is_set():
                    self._thread = None
                    return
            if not self._shown():
                with self._lock:
                    self._thread = None
                return

    def _shown(self) -> bool:
        try:
            return self._show()
        except Exception as error:  # as when the kernel shuts down
            logger.debug("the dashboard cannot be shown any more: %s", error)
            return False


class Cells:
    """The cells of this kernel: none of the browser's messages is heard while one runs.

    When one ends, the dashboards that are shown renew what the notebook keeps of them.
    """

    def __init__(self) -> None:
        self.busy = False
        self.shown: weakref.WeakSet[Dashboard] = weakref.WeakSet()
        shell = IPython.get_ipython()
        if shell is not None:
            self.busy = True  # the cell that imports this
            shell.events.register("pre_run_cell", self._begins)
            shell.events.register("post_run_cell", self._ends)

    def _begins(self, info: object) -> None:
        self.busy = True

    def _ends(self, result: object) -> None:
        self.busy = False
        for dashboard in list(self.shown):
            dashboard.keep()


cells = Cells()


class Dashboard(anywidget.AnyWidget):
    """A server's state, live in a cell, with controls to pause and to change the policy.

    The browser says every few seconds that the widget is in sight; a thread sends pictures as long
    as it does, and ends when it is not. A picture that stands still is shown before the widget,
    hidden as long as the widget lives: a notebook that is opened without its kernel shows that.
    """

    _esm = script()
    _css = source("dashboard.css")

    #: what is drawn; see `Live.picture`
    picture = traitlets.Dict().tag(sync=True)
    #: seconds between two signs of life
    every = traitlets.Float(LOOKS).tag(sync=True)
    #: the id of the picture that stands still
    shown = traitlets.Unicode().tag(sync=True)

    def __init__(self, engines: EngineRegistry, name: str) -> None:
        self._engines = engines
        self._lives = Lives(engines)
        self._name = name
        self._watching = Watching(self._show, f"notebook-serve {name} dashboard")
        self._kept_at = -math.inf
        super().__init__(picture=self._picture())
        self.shown = self.model_id or ""
        self.on_msg(self._heard)

    @property
    def _engine(self) -> Engine:
        """The engine of the model that is shown; of one that is gone, the first one."""
        try:
            return self._engines[self._name]
        except NoSuchModel:
            return self._engines.first

    def _picture(self) -> dict[str, Any]:
        return {**self._lives.picture(self._engine.name), "steers": True}

    def _show(self) -> bool:
        """Send what happens now; False where nothing will happen any more."""
        self.picture = self._picture()
        if time.monotonic() - self._kept_at > KEPT:
            self.keep()
        return self._engine.state not in ("stopped", "failed", "dead")

    def _heard(self, widget: Any, content: Any, buffers: Any) -> None:
        """A sign of life, another model to show, or what a control asks for."""
        match content:
            case {"do": "look"}:
                pass
            case {"do": "show", "model": str(name)}:
                self._name = name
            case _:
                self._steer(content)
        self._show()
        self._watching.seen()

    def _steer(self, content: Any) -> None:
        try:
            steer(self._engine, content)
            self.send({"done": True})
        except OptionError as error:
            self.send({"error": error.message})

    def close(self) -> None:
        """Stop watching, and take the widget away."""
        self._watching.stop()
        cells.shown.discard(self)
        super().close()

    def __repr__(self) -> str:
        return f"<Dashboard of {self._engine.name!r}>\n{self._engine.stats()!r}"

    def keep(self) -> None:
        """Renew the picture that stands still, unless the last one says more.

        It says more if no request came within the last minute, or the server has been stopped.
        """
        if self not in cells.shown:
            return
        picture = self._picture()
        if picture["state"] != "stopped" and _moves(picture):
            self._display_still(picture, update=True)

    def _display_still(self, picture: dict[str, Any], **options: Any) -> None:
        self._kept_at = time.monotonic()
        # Rates are of whole seconds: those of the one that runs belong to what a cell has done.
        ahead = self._lives.picture(self._engine.name, math.ceil(time.monotonic()))
        picture = {**picture, "history": ahead["history"], "tiles": ahead["tiles"]}
        at = time.strftime("%Y-%m-%d %H:%M")
        still = DashboardPicture(picture, at, self.shown, repr(self))
        _display(still, display_id=f"notebook-serve-{self.shown}", **options)

    def _ipython_display_(self) -> None:
        # A cell that comes right after keeps the browser's first look from being heard.
        self._watching.seen()
        self._display_still(self._picture())
        cells.shown.add(self)
        shown = self._repr_mimebundle_()
        if shown is not None:
            data, metadata = shown if isinstance(shown, tuple) else (shown, {})
            # Where no widget can be drawn, the picture has said everything.
            data = {**data, "text/plain": "", "text/html": ""}
            _display(data, metadata=metadata, raw=True)


def _display(item: object, **options: Any) -> None:
    IPython.display.display(item, **options)  # type: ignore[no-untyped-call]


def _moves(picture: dict[str, Any]) -> bool:
    """Return True if a request came within the span of a picture."""
    return any(request["arrived"] > -picture["span"] for request in picture["timeline"])
