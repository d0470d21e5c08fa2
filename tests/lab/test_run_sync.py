"""`run_sync` wherever it is called from."""

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
    """Interrupt this process, and return when that has arrived."""
    os.kill(os.getpid(), signal.SIGINT)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return f"cancelled {where}"
    raise AssertionError("never")


def script(code: str, *flags: str) -> str:
    """What a script prints; fails if it fails."""
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
    """Call in a coroutine where asyncio looks for mistakes, in the loops to come too."""

    async def run() -> object:
        return call()

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONASYNCIODEBUG", "1")
        return asyncio.run(run(), debug=True)


WAYS = [plainly, in_a_thread, on_uvloop, in_a_coroutine, in_a_coroutine_that_is_debugged]
#: the main thread waits there, which is the one that is interrupted
MAIN = [way for way in WAYS if way is not in_a_thread]


@pytest.fixture
def handler() -> Iterator[None]:
    """The usual handler of SIGINT before, and after too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    after = signal.signal(signal.SIGINT, before)
    assert after is signal.default_int_handler


@pytest.mark.parametrize("call", WAYS)
def test_it_returns_what_the_coroutine_returns(call: Callable[..., object]) -> None:
    """From a script, from a thread, and in a coroutine on a loop of any kind."""
    assert call(lambda: run_sync(answer())) == 42


@pytest.mark.parametrize("call", WAYS)
def test_a_load_test_runs_there_too(
    call: Callable[..., object], make: Callable[..., Server]
) -> None:
    """Plain `load_test` needs no other form for any of them."""
    server = make(lambda inputs: inputs)

    report = call(lambda: load_test(server, ["x"], traffic=[0.0] * 5, progress=False))

    assert isinstance(report, Report)
    assert report.outcomes["ok"] == 5


@pytest.mark.parametrize("call", WAYS)
def test_it_raises_what_the_coroutine_raises(call: Callable[..., object]) -> None:
    """The exception itself, in the caller."""
    with pytest.raises(LookupError, match="lost"):
        call(lambda: run_sync(fail()))


@pytest.mark.parametrize("call", WAYS)
def test_a_coroutine_that_cancels_itself_is_not_taken_for_an_interrupt(
    call: Callable[..., object],
) -> None:
    """`CancelledError` is that, where nobody interrupted."""

    async def cancel() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        call(lambda: run_sync(cancel()))


@pytest.mark.parametrize("call", WAYS)
def test_it_ends_what_the_coroutine_leaves_behind(call: Callable[..., object]) -> None:
    """Tasks are cancelled and the executor's threads end; the leak check counts them."""
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
def test_an_interrupt_returns_what_there_is(call: Callable[..., object], handler: None) -> None:
    """It cancels the coroutine, whose answer to that is returned."""
    assert call(lambda: run_sync(until_interrupted())) == "cancelled here"


@pytest.mark.parametrize("call", MAIN)
def test_an_interrupt_is_raised_if_there_is_nothing_to_return(
    call: Callable[..., object], handler: None
) -> None:
    """A coroutine that ends by the cancelling leaves `KeyboardInterrupt`."""

    async def interrupted() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()

    with pytest.raises(KeyboardInterrupt):
        call(lambda: run_sync(interrupted()))


@pytest.mark.parametrize("call", MAIN)
def test_a_second_interrupt_is_raised_at_once(call: Callable[..., object], handler: None) -> None:
    """A coroutine that will not end when cancelled does not hold the caller."""

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
    """Where SIGINT is ignored (a background job) no handler is put in its place."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)

    async def unmoved() -> object:
        signal.raise_signal(signal.SIGINT)
        return signal.getsignal(signal.SIGINT)

    try:
        assert run_sync(unmoved()) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("call", [in_a_coroutine, on_uvloop])
def test_a_running_loop_stands_still_meanwhile(call: Callable[..., object]) -> None:
    """No other task of it runs inside the call, and all of them run afterwards."""

    def asking() -> bool:
        other = asyncio.ensure_future(answer(0))
        assert run_sync(answer(0.1)) == 42
        return other.done()

    assert call(asking) is False


def test_it_sees_the_context_of_its_caller() -> None:
    """Context variables arrive in the other thread: by one a kernel knows a cell's outputs."""
    cell = contextvars.ContextVar("cell", default="none")

    async def here() -> tuple[str, bool]:
        return cell.get(), threading.current_thread() is threading.main_thread()

    def asking() -> object:
        cell.set("this one")
        return run_sync(here())

    assert in_a_coroutine(asking) == ("this one", False)


# -- nest_asyncio, which changes asyncio for the rest of the process -------------------------


def test_it_is_not_applied_unasked() -> None:
    """Neither in a script nor in a coroutine; sharing a loop where none runs needs it neither."""
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


def test_it_may_have_been_applied_by_the_caller() -> None:
    """Whatever ran before under it runs on: plain calls, and those in nested loops."""
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
def test_a_shared_loop_goes_on_meanwhile() -> None:
    """Other tasks run, errors and interrupts arrive; and everything works after."""
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
def test_a_load_test_on_the_loop_that_serves_the_url() -> None:
    """There it must share the loop: on a thread it would wait for a server that stands still."""
    assert script(SERVED_ON_THE_LOOP).split() == ["5"]


def test_a_loop_that_cannot_nest_is_refused() -> None:
    """Rather than tried: uvloop's, and asyncio's where the running task is kept elsewhere."""

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
