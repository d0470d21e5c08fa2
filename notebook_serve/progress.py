"""Progress bars of seconds, bytes or steps, in notebooks and on terminals."""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .extras import MissingExtra, require
from .validation.checks import check_flags

#: seconds; work that takes no longer needs no bar
SHORT = 2.0

#: seconds after which work of unknown length gets a bar
LONG = 1.0

#: tqdm's formats for work of known length, and for other work
STEPS = "{l_bar}{bar}| {n_fmt}/{total_fmt} steps, {elapsed}{postfix}"
SECONDS = "{desc}: {elapsed}{postfix}"

#: seconds between two updates of a bar by the thread that waits for the work
TICK = 0.1

#: bytes; packing a model that is no larger needs no bar
LITTLE = 50_000_000

#: a function that shows the elapsed seconds, and a text beside the bar
Show = Callable[[float, str], None]

#: a function that shows the finished steps, and a text beside the bar
Step = Callable[..., None]


@contextmanager
def progress_bar(wanted: bool | None, seconds: float) -> Iterator[Show | None]:
    """Show a bar for work of so many seconds, and yield its `Show`, or None without a bar.

    If `wanted` is None, there is no bar if tqdm is missing, if the work takes no longer than
    `SHORT`, or if the error output is neither a terminal nor a notebook. Raises `MissingExtra` if a
    bar is wanted and tqdm is not installed.
    """
    tqdm = _tqdm(wanted, seconds)
    if tqdm is None:
        yield None
        return
    form = "{l_bar}{bar}| {n:.1f}/{total:.1f} s{postfix}"
    with tqdm(total=seconds, desc="load test", leave=False, bar_format=form) as bar:

        def show(passed: float, text: str) -> None:
            bar.n = min(passed, seconds)
            bar.set_postfix_str(text)  # which also draws it

        yield show


@contextmanager
def work_bar(
    wanted: bool | None, what: str, total: int | None = None, unit: str = "steps"
) -> Iterator[Step]:
    """Yield a function that draws a bar; call it after each step of the work.

    ``show(done, text)`` draws the steps. With one step or an unknown `total` it draws only the
    elapsed seconds. The bar appears once the work has taken longer than `LONG`, and disappears when
    the work ends. `wanted` is that of `progress_bar`.
    """
    begun, known = time.time(), total is not None and total > 1
    bar: Any = None
    if wanted:
        _tqdm(wanted, math.inf)  # raises before the work begins

    def show(done: int = 0, text: str = "") -> None:
        nonlocal bar
        if bar is None and (wanted or time.time() > begun + LONG):
            tqdm = _tqdm(wanted, math.inf)
            if tqdm is None:
                return
            form = STEPS.replace("steps", unit) if known else SECONDS
            bar = tqdm(total=total if known else None, desc=what, leave=False, bar_format=form)
            bar.start_t = begun
        if bar is not None:
            bar.n = done if known else 1  # in a notebook an empty bar looks stuck
            bar.set_postfix_str(text)  # which also draws it

    try:
        yield show
    finally:
        if bar is not None:
            bar.total = bar.n  # a notebook keeps a bar that is not full, in red
            bar.close()


def packing_bar() -> Callable[[int, int], None]:
    """Return a function that draws a bar; call it with the bytes that are sent, and the total."""
    bar: Any = None

    def show(done: int, size: int) -> None:
        nonlocal bar
        if bar is None and size > LITTLE and (tqdm := _tqdm(None, math.inf)) is not None:
            bar = tqdm(total=size, desc="sending the model", unit="B", unit_scale=True)
        if bar is not None:
            bar.update(done - bar.n)
            if done == size:
                bar.close()
                bar = None

    return show


def _tqdm(wanted: bool | None, seconds: float) -> Any:
    if wanted is not None:
        check_flags(progress=wanted)
    if wanted is False or (wanted is None and (seconds <= SHORT or not _is_seen())):
        return None
    try:
        with warnings.catch_warnings():
            # Without ipywidgets it draws the bar as text, with a warning.
            warnings.simplefilter("ignore")
            tqdm = require("tqdm.auto", "notebook").tqdm
    except MissingExtra:
        if wanted:
            raise
        return None
    # Without tqdm's thread that redraws idle bars: it outlives them.
    return type("Bar", (tqdm,), {"monitor_interval": 0})


def _is_seen() -> bool:
    """Return True in a notebook, or if the error output is a terminal."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return hasattr(shell, "kernel") or (sys.stderr is not None and sys.stderr.isatty())
