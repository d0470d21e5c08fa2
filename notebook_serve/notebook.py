"""Synchronous calls of coroutines, wherever the caller is: a script, a cell, an async function."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

#: seconds after which who waits for a thread looks up, to see an interrupt
LOOK_UP = 0.5


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """What `coroutine` returns, be there a running event loop or not.

    Without one in this thread (a script), it runs on a loop of its own. With one (a cell, an async
    function) on that, made to nest by nest_asyncio; what else runs there goes on. Where that cannot
    nest, as uvloop's, on a loop in another thread while this one waits.

    An interrupt cancels the coroutine; what it then returns is returned, and if it returns nothing
    `KeyboardInterrupt` is raised. A second interrupt raises that at once.
    """
    running = _running_loop()
    if running is not None and _can_nest(running):
        # The only place: a script, and a loop that it would not help, never see it applied.
        import nest_asyncio  # type: ignore[import-untyped]

        nest_asyncio.apply(running)
        return _finished(running, coroutine, running.run_until_complete)
    loop = asyncio.new_event_loop()
    run = _run if running is None else _run_in_thread
    return _finished(loop, coroutine, partial(run, loop))


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _can_nest(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether nest_asyncio can make `loop` run inside itself.

    It hides the task that runs by taking it out of a dictionary of asyncio's. Where a Python keeps
    it elsewhere, a nested loop runs no task and never ends, so that is better asked before.
    """
    if not isinstance(loop, asyncio.BaseEventLoop):
        return False
    task = asyncio.current_task(loop)
    return task is None or getattr(asyncio.tasks, "_current_tasks", {}).get(loop) is task


def _finished(
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, T],
    run: Callable[[asyncio.Task[T]], T],
) -> T:
    """Run a task of `coroutine` by `run`, so that it can be interrupted."""
    task = loop.create_task(coroutine)
    interrupted = threading.Event()
    with _cancelled_by_interrupt(loop, task, interrupted):
        try:
            return run(task)
        except asyncio.CancelledError:
            if interrupted.is_set():
                raise KeyboardInterrupt from None
            raise


@contextlib.contextmanager
def _cancelled_by_interrupt(
    loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any], interrupted: threading.Event
) -> Iterator[None]:
    """Let the first SIGINT cancel `task`; the next raises `KeyboardInterrupt`.

    By itself every one would raise that in whatever runs just then, in a callback of asyncio's own
    as well as in the coroutine, and neither is written for it.
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
    """Run `task` on a `loop` that is ours, and close that."""
    # Not asyncio.run: where nest_asyncio was ever applied, that is another.
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
    """The same in a thread of its own; what is raised there is raised here."""

    def run() -> None:
        with contextlib.suppress(BaseException):  # the task keeps it
            _run(loop, task)

    thread = threading.Thread(target=run, name="notebook-serve run_sync", daemon=True)
    try:
        thread.start()  # waits until it runs, and both interrupts may come by then
        # Python does not see an interrupt that comes just before a wait begins until it ends.
        while thread.is_alive():
            thread.join(LOOK_UP)
    except BaseException:  # interrupted twice
        with contextlib.suppress(RuntimeError):  # it has just ended by itself
            loop.call_soon_threadsafe(task.cancel)
        raise
    return task.result()
