"""Pictures of a server that may have several models: of one at a time, and of what others do."""

from __future__ import annotations

import threading
from typing import Any

from ..engine.registry import EngineRegistry
from .snapshot import Live


class Lives:
    """Pictures of each model of a server; from any thread.

    Works only when it is asked, and keeps nothing of a model that is gone.
    """

    def __init__(self, engines: EngineRegistry) -> None:
        self._engines = engines
        self._lock = threading.Lock()
        self._lives: dict[str, Live] = {}

    def picture(self, name: str, now: float | None = None) -> dict[str, Any]:
        """What a dashboard shows of the model `name`, as plain JSON values; see `Live.picture`.

        Where there are several, ``models`` says what each is and does. Raises `NoSuchModel`.
        """
        models = self._engines.overview() if len(self._engines) > 1 else []
        return {**self._live(name).picture(now), "models": models}

    def _live(self, name: str) -> Live:
        engine = self._engines[name]
        with self._lock:
            live = self._lives.get(engine.name)
            if live is None or live.engine is not engine:
                live = self._lives[engine.name] = Live(engine)
            for gone in self._lives.keys() - set(self._engines):
                del self._lives[gone]
            return live
