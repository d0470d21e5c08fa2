"""The dashboard in a cell: fed through the kernel's own channel, so that no port need be reached.

Needs the extra ``notebook``; so nothing imports this file but `Server.dashboard`.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Any

import anywidget
import IPython
import traitlets

from .dashboard import script, source
from .engine import Engine
from .engines import Engines
from .errors import NoSuchModel, OptionError
from .live import steer
from .lives import Lives

logger = logging.getLogger("notebook_serve")

#: seconds between two pictures
EVERY = 1.0
#: seconds between two signs of life of a page that shows them
LOOKS = 4.0
#: seconds without such a sign after which nobody looks
UNSEEN = 10.0


class Watching:
    """Calls `show` every second, in a thread that lives only while somebody looks."""

    def __init__(self, show: Callable[[], bool], name: str) -> None:
        self._show = show
        self._name = name
        self._lock = threading.Lock()
        self._seen = -math.inf
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()

    def seen(self) -> None:
        """Somebody looks."""
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
    """Whether a cell of this kernel runs: then nothing is heard of whoever looks."""

    def __init__(self) -> None:
        self.busy = False
        shell = IPython.get_ipython()
        if shell is not None:
            self.busy = True  # the cell that imports this
            shell.events.register("pre_run_cell", self._begins)
            shell.events.register("post_run_cell", self._ends)

    def _begins(self, info: object) -> None:
        self.busy = True

    def _ends(self, result: object) -> None:
        self.busy = False


cells = Cells()


class Dashboard(anywidget.AnyWidget):
    """What happens on a server, live in a cell, with controls to pause and to change the policy.

    The browser says every few seconds that the widget is in sight; a thread sends pictures as long
    as it does, and ends when it is not.
    """

    _esm = script()
    _css = source("dashboard.css")

    #: what is drawn; see `Live.picture`
    picture = traitlets.Dict().tag(sync=True)
    #: seconds between two signs of life
    every = traitlets.Float(LOOKS).tag(sync=True)

    def __init__(self, engines: Engines, name: str) -> None:
        self._engines = engines
        self._lives = Lives(engines)
        self._name = name
        self._watching = Watching(self._show, f"notebook-serve {name} dashboard")
        super().__init__(picture=self._picture())
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
        super().close()

    def __repr__(self) -> str:
        return f"<Dashboard of {self._engine.name!r}>\n{self._engine.stats()!r}"

    def _repr_mimebundle_(self, **options: Any) -> Any:
        # A cell that comes right after keeps the browser's first look from being heard.
        self._watching.seen()
        # Where no widget can be drawn, as on a page that hosts code, the figures of now are read.
        shown = super()._repr_mimebundle_(**options)
        data = shown[0] if isinstance(shown, tuple) else shown
        if data is not None:
            data["text/plain"] = repr(self)
            data["text/html"] = self._engine.stats()._repr_html_()
        return shown
