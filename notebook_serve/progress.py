"""Progress bars of seconds, bytes or steps, where a person can see them."""

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

#: what takes no longer than this, in seconds, needs no bar
SHORT = 2.0

#: work of unknown length gets a bar after so many seconds
LONG = 1.0

#: how tqdm draws work of known length, and other work
STEPS = "{l_bar}{bar}| {n_fmt}/{total_fmt} steps, {elapsed}{postfix}"
SECONDS = "{desc}: {elapsed}{postfix}"

#: seconds between two looks at work that shows itself
TICK = 0.1

#: a model of no more bytes than this needs no bar
LITTLE = 50_000_000

#: shows the seconds that have passed, and a text beside the bar
Show = Callable[[float, str], None]

#: shows the steps that are done, and a text beside the bar
Step = Callable[..., None]


@contextmanager
def progress_bar(wanted: bool | None, seconds: float) -> Iterator[Show | None]:
    """Show a bar for work of so many seconds; gives None if there is none.

    If `wanted` is None, there is none if tqdm is missing, if the work takes no longer than `SHORT`,
    or if the error output is neither a terminal nor a notebook. Raises `MissingExtra` if a bar is
    wanted and tqdm is not installed.
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
    """Give a function to call after each step of some work, which then shows a bar.

    ``show(done, text)`` draws it; with one step or an unknown `total`, only the seconds that have
    passed. The bar comes once the work has taken longer than `LONG`, so short work shows none. It
    goes when the work ends. `wanted` is that of `progress_bar`.
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
            bar.n = done if known else 1  # a notebook draws an empty bar as one that stands still
            bar.set_postfix_str(text)  # which also draws it

    try:
        yield show
    finally:
        if bar is not None:
            bar.total = bar.n  # a notebook keeps one that is not full, in red
            bar.close()


def packing_bar() -> Callable[[int, int], None]:
    """Give a function to call with the bytes of a model that are sent, and with its size."""
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
    if wanted is not None:
        check_flags(progress=wanted)
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
    """Return True in a notebook, or if the error output is a terminal."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return hasattr(shell, "kernel") or (sys.stderr is not None and sys.stderr.isatty())
