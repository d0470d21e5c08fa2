"""Synchronous calls of coroutines, from a script, a cell or an async function."""

from __future__ import annotations

import asyncio
import contextlib
import platform
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any, TypeVar

from ..errors import OptionError

T = TypeVar("T")

#: seconds of one wait for the thread, and so the longest delay of an interrupt
JOIN_TIMEOUT = 0.5


def run_sync(coroutine: Coroutine[Any, Any, T], share_loop: bool = False) -> T:
    """Return what `coroutine` returns, with or without a running event loop.

    Without a running loop (a script), it runs on a new loop in this thread. With one (a cell, an
    async function), it runs on a new loop in another thread while this thread waits. So a kernel's
    loop stands still, as it does for any other cell, and runs the queued cells afterwards.

    With `share_loop` it runs on the running loop, made re-entrant by nest_asyncio, and other tasks
    of that loop continue. Use it only if `coroutine` waits for one of them, and in a cell
    only with no other cell queued: ipykernel 7 loses cells and widget messages that arrive in a
    nested loop. Raises `OptionError` if the loop cannot nest.

    An interrupt cancels the coroutine. If it still returns a value, `run_sync` returns that; if it
    does not, `KeyboardInterrupt` is raised. A second interrupt raises `KeyboardInterrupt` at once.
    """
    running = _find_running_loop()
    if running is not None and share_loop:
        return _run_nested(running, coroutine)
    loop = asyncio.new_event_loop()
    run = _run if running is None else _run_in_thread
    return _run_interruptibly(loop, coroutine, partial(run, loop))


def _run_nested(running: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> T:
    if not _can_nest(running):
        coroutine.close()
        raise OptionError(
            f"`share_loop` needs an event loop that can nest, got {type(running).__name__} on "
            f"Python {platform.python_version()}; await the async function instead"
        )
    # Imported here only: nest_asyncio changes asyncio for the whole process.
    import nest_asyncio  # type: ignore[import-untyped]

    nest_asyncio.apply(running)
    return _run_interruptibly(running, coroutine, running.run_until_complete)


def _find_running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _can_nest(loop: asyncio.AbstractEventLoop) -> bool:
    """Return True if nest_asyncio can make `loop` run inside itself.

    It hides the running task by removing it from a dictionary of asyncio. Python 3.14 stores the
    task elsewhere: there a nested loop runs no task and never ends.
    """
    if not isinstance(loop, asyncio.BaseEventLoop):
        return False
    task = asyncio.current_task(loop)
    return task is None or getattr(asyncio.tasks, "_current_tasks", {}).get(loop) is task


def _run_interruptibly(
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, T],
    run: Callable[[asyncio.Task[T]], T],
) -> T:
    """Run `coroutine` as a task by `run`, and cancel it on an interrupt."""
    task = loop.create_task(coroutine)
    interrupted = threading.Event()
    with _cancel_on_interrupt(loop, task, interrupted):
        try:
            return run(task)
        except asyncio.CancelledError:
            if interrupted.is_set():
                raise KeyboardInterrupt from None
            raise


@contextlib.contextmanager
def _cancel_on_interrupt(
    loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any], interrupted: threading.Event
) -> Iterator[None]:
    """Let the first SIGINT cancel `task`; the next raises `KeyboardInterrupt`.

    Python's own handler raises it wherever the main thread is, even inside asyncio's callbacks,
    which do not expect it.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return

    def interrupt(number: int, frame: Any) -> None:
        if task.done() or interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()
        loop.call_soon_threadsafe(task.cancel)

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _run(loop: asyncio.AbstractEventLoop, task: asyncio.Task[T]) -> T:
    """Run `task` on a new `loop`, and close the loop."""
    # Not asyncio.run, which nest_asyncio replaces if it was ever applied.
    try:
        return loop.run_until_complete(task)
    finally:
        left = asyncio.all_tasks(loop)
        for other in left:
            other.cancel()
        if left:
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def _run_in_thread(loop: asyncio.AbstractEventLoop, task: asyncio.Task[T]) -> T:
    """Run `task` and close the loop in a new thread; return its result or raise its error."""

    def run() -> None:
        with contextlib.suppress(BaseException):  # the task stores the error
            _run(loop, task)

    thread = threading.Thread(target=run, name="notebook-serve run_sync", daemon=True)
    try:
        thread.start()  # within the try: both interrupts may arrive before it returns
        # With a timeout: Python handles an interrupt from just before a wait only after the wait.
        while thread.is_alive():
            thread.join(JOIN_TIMEOUT)
    except BaseException:  # interrupted twice
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            loop.call_soon_threadsafe(task.cancel)
        raise
    return task.result()
