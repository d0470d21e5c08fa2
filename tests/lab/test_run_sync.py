"""`run_sync` in a script, a thread, and a coroutine on each kind of loop."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from notebook_serve import OptionError, Report, Server, load_test
from notebook_serve.lab.run_sync import run_sync


async def answer(seconds: float = 0.001) -> int:
    """Take a moment."""
    await asyncio.sleep(seconds)
    return 42


async def fail() -> None:
    """Raise after a moment."""
    await asyncio.sleep(0.001)
    raise LookupError("lost")


async def until_interrupted(where: str = "here") -> str:
    """Interrupt this process, and return after the interrupt arrived."""
    os.kill(os.getpid(), signal.SIGINT)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return f"cancelled {where}"
    raise AssertionError("never")


def script(code: str, *flags: str) -> str:
    """Run a script and return its output; fail if it fails."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *flags, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


# -- each way of running --------------------------------------------------------------------


def plainly(call: Callable[[], object]) -> object:
    """Call without a running loop."""
    return call()


def in_a_thread(call: Callable[[], object]) -> object:
    """Call in a thread, without a running loop."""
    results: list[object] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(results[0], BaseException):
        raise results[0]
    return results[0]


def on_uvloop(call: Callable[[], object]) -> object:
    """Call in a coroutine on uvloop."""
    uvloop = pytest.importorskip("uvloop")

    async def run() -> object:
        return call()

    loop = uvloop.new_event_loop()
    try:
        return loop.run_until_complete(run())
    finally:
        loop.close()


def in_a_coroutine(call: Callable[[], object]) -> object:
    """Call in a coroutine on asyncio."""

    async def run() -> object:
        return call()

    return asyncio.run(run())


def in_a_coroutine_that_is_debugged(call: Callable[[], object]) -> object:
    """Call in a coroutine in debug mode, which new loops use too."""

    async def run() -> object:
        return call()

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONASYNCIODEBUG", "1")
        return asyncio.run(run(), debug=True)


WAYS = [plainly, in_a_thread, on_uvloop, in_a_coroutine, in_a_coroutine_that_is_debugged]
#: those in which the main thread waits, which receives the interrupt
MAIN = [way for way in WAYS if way is not in_a_thread]


@pytest.fixture
def handler() -> Iterator[None]:
    """Install Python's handler of SIGINT, and check that it is installed after the test."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    after = signal.signal(signal.SIGINT, before)
    assert after is signal.default_int_handler


@pytest.mark.parametrize("call", WAYS)
def test_it_returns_the_result_of_the_coroutine(call: Callable[..., object]) -> None:
    """It does in a script, a thread, and a coroutine on each kind of loop."""
    assert call(lambda: run_sync(answer())) == 42


@pytest.mark.parametrize("call", WAYS)
def test_a_load_test_runs_in_each_of_them(
    call: Callable[..., object], make: Callable[..., Server]
) -> None:
    """The synchronous `load_test` works everywhere."""
    server = make(lambda inputs: inputs)

    report = call(lambda: load_test(server, ["x"], traffic=[0.0] * 5, progress=False))

    assert isinstance(report, Report)
    assert report.outcomes["ok"] == 5


@pytest.mark.parametrize("call", WAYS)
def test_it_raises_the_error_of_the_coroutine(call: Callable[..., object]) -> None:
    """The caller gets the exception itself."""
    with pytest.raises(LookupError, match="lost"):
        call(lambda: run_sync(fail()))


@pytest.mark.parametrize("call", WAYS)
def test_a_cancelled_coroutine_without_an_interrupt(
    call: Callable[..., object],
) -> None:
    """Without an interrupt, `CancelledError` is raised unchanged."""

    async def cancel() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        call(lambda: run_sync(cancel()))


@pytest.mark.parametrize("call", WAYS)
def test_tasks_and_threads_of_the_coroutine_end(call: Callable[..., object]) -> None:
    """Tasks are cancelled and executor threads end; the leak check counts these."""
    ended = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def leave() -> asyncio.Task[None]:
        left = asyncio.create_task(forever())
        await asyncio.to_thread(int)
        return left

    left = call(lambda: run_sync(leave()))

    assert isinstance(left, asyncio.Task)
    assert left.cancelled()
    assert ended == [True]


@pytest.mark.parametrize("call", MAIN)
def test_an_interrupt_returns_the_result_so_far(call: Callable[..., object], handler: None) -> None:
    """It cancels the coroutine, and the coroutine's value is returned."""
    assert call(lambda: run_sync(until_interrupted())) == "cancelled here"


@pytest.mark.parametrize("call", MAIN)
def test_an_interrupt_without_a_result_is_raised(
    call: Callable[..., object], handler: None
) -> None:
    """A coroutine that ends cancelled raises `KeyboardInterrupt`."""

    async def interrupted() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()

    with pytest.raises(KeyboardInterrupt):
        call(lambda: run_sync(interrupted()))


@pytest.mark.parametrize("call", MAIN)
def test_a_second_interrupt_is_raised_at_once(call: Callable[..., object], handler: None) -> None:
    """A coroutine that ignores its cancellation does not block the caller."""

    async def stubborn() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()

    with pytest.raises(KeyboardInterrupt):
        call(lambda: run_sync(stubborn()))


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """If SIGINT is ignored, as in a background job, no handler is installed."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)

    async def unmoved() -> object:
        signal.raise_signal(signal.SIGINT)
        return signal.getsignal(signal.SIGINT)

    try:
        assert run_sync(unmoved()) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("call", [in_a_coroutine, on_uvloop])
def test_a_running_loop_waits(call: Callable[..., object]) -> None:
    """Its other tasks run after the call, not during it."""

    def asking() -> bool:
        other = asyncio.ensure_future(answer(0))
        assert run_sync(answer(0.1)) == 42
        return other.done()

    assert call(asking) is False


def test_it_has_the_context_of_its_caller() -> None:
    """The other thread has its context variables: a kernel assigns outputs to cells by one."""
    cell = contextvars.ContextVar("cell", default="none")

    async def here() -> tuple[str, bool]:
        return cell.get(), threading.current_thread() is threading.main_thread()

    def asking() -> object:
        cell.set("this one")
        return run_sync(here())

    assert in_a_coroutine(asking) == ("this one", False)


# -- nest_asyncio, which changes asyncio for the rest of the process -------------------------


def test_nest_asyncio_is_not_applied_by_default() -> None:
    """It is not in a script or a coroutine, nor with `share_loop` without a running loop."""
    printed = script(
        "import asyncio, sys\n"
        "from tests.lab.test_run_sync import answer, in_a_coroutine, on_uvloop\n"
        "from notebook_serve.lab.run_sync import run_sync\n"
        "assert run_sync(answer(), share_loop=True) == 42\n"
        "assert in_a_coroutine(lambda: run_sync(answer())) == 42\n"
        "assert on_uvloop(lambda: run_sync(answer())) == 42\n"
        "print('nest_asyncio' in sys.modules, hasattr(asyncio, '_nest_patched'))"
    )
    assert printed.split() == ["False", "False"]


def test_nest_asyncio_may_be_applied_by_the_caller() -> None:
    """Calls work under it, in nested loops too."""
    printed = script(
        "import asyncio, nest_asyncio, signal\n"
        "nest_asyncio.apply()\n"
        "from tests.lab.test_run_sync import answer, in_a_coroutine, plainly, until_interrupted\n"
        "from notebook_serve.lab.run_sync import run_sync\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "for way in plainly, in_a_coroutine:\n"
        "    assert way(lambda: run_sync(answer())) == 42\n"
        "    assert in_a_coroutine(lambda: way(lambda: run_sync(answer()))) == 42\n"
        "    print(in_a_coroutine(lambda: way(lambda: run_sync(until_interrupted()))))\n"
        "print(asyncio.run(answer()))"
    )
    assert printed.splitlines() == ["cancelled here", "cancelled here", "42"]


SHARED = """
import asyncio, signal, sys
from functools import partial
from tests.lab.test_run_sync import answer, fail, until_interrupted
from notebook_serve.lab import run_sync as notebook

run_sync = partial(notebook.run_sync, share_loop=True)

async def main():
    other = asyncio.create_task(answer())
    assert run_sync(answer(0.1)) == 42
    print(other.done(), "nest_asyncio" in sys.modules)
    try:
        run_sync(fail())
    except LookupError as error:
        print(error)
    print(run_sync(until_interrupted("in a coroutine")))
    await asyncio.sleep(0)  # the interrupt is over: no other task is cancelled

signal.signal(signal.SIGINT, signal.default_int_handler)
asyncio.run(main())
print(run_sync(answer()), run_sync(until_interrupted("afterwards")))
"""

nests = pytest.mark.skipif(sys.version_info >= (3, 14), reason="no loop of asyncio's nests there")


@nests
def test_a_shared_loop_continues() -> None:
    """Other tasks run, errors and interrupts arrive, and later calls work."""
    printed = script(SHARED).splitlines()

    assert printed == ["True True", "lost", "cancelled in a coroutine", "42 cancelled afterwards"]


SERVED_ON_THE_LOOP = """
import asyncio
import uvicorn
from notebook_serve import load_test, serve

server = serve(lambda inputs: inputs, start=False)

async def main():
    config = uvicorn.Config(server.app, port=0, log_level="error")
    own = uvicorn.Server(config)
    serving = asyncio.create_task(own.serve())
    while not own.started:
        await asyncio.sleep(0.01)
    port = own.servers[0].sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    report = load_test(url, ["x"], traffic=[0.0] * 5, progress=False, share_loop=True)
    print(report.outcomes["ok"])
    own.should_exit = True
    await serving

asyncio.run(main())
"""


@nests
def test_a_load_test_on_the_loop_of_its_server() -> None:
    """It needs `share_loop`: on another thread it would wait for a blocked server."""
    assert script(SERVED_ON_THE_LOOP).split() == ["5"]


def test_a_loop_that_cannot_nest_is_an_error() -> None:
    """So are uvloop's loop, and asyncio's if the running task is stored elsewhere."""

    def elsewhere() -> object:
        task = asyncio.current_task()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(asyncio, "current_task", lambda loop: task)
            patch.setattr(asyncio.tasks, "_current_tasks", {}, raising=False)
            return run_sync(answer(), share_loop=True)

    with pytest.raises(OptionError, match="can nest.*await"):
        in_a_coroutine(elsewhere)
    with pytest.raises(OptionError, match=r"got Loop on Python 3"):
        on_uvloop(lambda: run_sync(answer(), share_loop=True))
