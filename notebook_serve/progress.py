"""Progress bars, of seconds or bytes, where there is somebody to see them."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .extras import MissingExtra, require

#: what takes no longer than this, in seconds, needs no bar
SHORT = 2.0

#: so many bytes are sent before anybody asks what is going on
LITTLE = 50_000_000

#: shows the seconds that have passed, and a text beside the bar
Show = Callable[[float, str], None]


@contextmanager
def progress_bar(wanted: bool | None, seconds: float) -> Iterator[Show | None]:
    """A bar for something of so many seconds; None where there is to be none.

    If `wanted` is None that is where tqdm is missing, where it takes no longer than `SHORT`, or
    where the error output is neither a terminal nor a notebook. Raises `MissingExtra` where a bar
    is wanted and tqdm is not installed.
    """
    tqdm = _tqdm(wanted, seconds)
    if tqdm is None:
        yield None
        return
    form = "{l_bar}{bar}| {n:.1f}/{total:.1f} s{postfix}"
    with tqdm(total=seconds, desc="load test", bar_format=form) as bar:

        def show(passed: float, text: str) -> None:
            bar.n = min(passed, seconds)
            bar.set_postfix_str(text)  # which also draws it

        yield show


def packing_bar() -> Callable[[int, int], None]:
    """What shows a model being sent to a process: called with the bytes done, and of how many."""
    bar: Any = None

    def show(done: int, size: int) -> None:
        nonlocal bar
        if bar is None and size > LITTLE and (tqdm := _tqdm(None, math.inf)) is not None:
            bar = tqdm(total=size, desc="the model's memory", unit="B", unit_scale=True)
        if bar is not None:
            bar.update(done - bar.n)
            if done == size:
                bar.close()
                bar = None

    return show


def _tqdm(wanted: bool | None, seconds: float) -> Any:
    if wanted is False or (wanted is None and (seconds <= SHORT or not _is_seen())):
        return None
    try:
        with warnings.catch_warnings():
            # Without ipywidgets it draws the bar as text, and warns of that.
            warnings.simplefilter("ignore")
            tqdm = require("tqdm.auto", "notebook").tqdm
    except MissingExtra:
        if wanted:
            raise
        return None
    # Without the thread that redraws bars which nobody moves, and which stays when all are gone.
    return type("Bar", (tqdm,), {"monitor_interval": 0})


def _is_seen() -> bool:
    """Whether this is a notebook, or the error output a terminal."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return hasattr(shell, "kernel") or (sys.stderr is not None and sys.stderr.isatty())
