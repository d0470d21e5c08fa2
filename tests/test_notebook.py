"""`run_sync` wherever it is called from."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from notebook_serve import Report, Server, load_test
from notebook_serve.notebook import run_sync


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


def on_a_loop_that_cannot_nest(call: Callable[[], object]) -> object:
    """Call in a coroutine on asyncio where the running task is kept elsewhere."""

    async def run() -> object:
        task = asyncio.current_task()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(asyncio, "current_task", lambda loop: task)
            patch.setattr(asyncio.tasks, "_current_tasks", {}, raising=False)
            return call()

    return asyncio.run(run())


WAYS = [plainly, in_a_thread, on_uvloop, on_a_loop_that_cannot_nest]
#: where the main thread waits, which is the one that is interrupted
MAIN = [plainly, on_uvloop, on_a_loop_that_cannot_nest]


@pytest.fixture
def handler() -> Iterator[None]:
    """The usual handler of SIGINT before, and after too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    after = signal.signal(signal.SIGINT, before)
    assert after is signal.default_int_handler


@pytest.mark.parametrize("call", WAYS)
def test_it_returns_what_the_coroutine_returns(call: Callable[..., object]) -> None:
    """From a script, from a thread, and where a loop runs that cannot nest."""
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


# -- nest_asyncio, which changes asyncio for the rest of the process -------------------------


def test_a_script_never_sees_a_patched_asyncio() -> None:
    """Nor does a program on uvloop, which would not be helped by it."""
    printed = script(
        "import asyncio, sys\n"
        "from tests.test_notebook import answer, on_uvloop\n"
        "from notebook_serve.notebook import run_sync\n"
        "assert run_sync(answer()) == 42\n"
        "assert on_uvloop(lambda: run_sync(answer())) == 42\n"
        "print('nest_asyncio' in sys.modules, hasattr(asyncio, '_nest_patched'))"
    )
    assert printed.split() == ["False", "False"]


NESTED = """
import asyncio, signal, sys
from tests.test_notebook import answer, fail, until_interrupted
from notebook_serve.notebook import run_sync

async def main():
    other = asyncio.create_task(answer())
    assert run_sync(answer(0.1)) == 42
    print(other.done(), "nest_asyncio" in sys.modules)
    try:
        run_sync(fail())
    except LookupError as error:
        print(error)
    print(run_sync(until_interrupted("in a coroutine")))
    await asyncio.sleep(0)  # the interrupt is over: nobody else is cancelled

signal.signal(signal.SIGINT, signal.default_int_handler)
asyncio.run(main())
print(run_sync(answer()), run_sync(until_interrupted("afterwards")))
"""


def test_a_running_loop_goes_on_meanwhile() -> None:
    """In an async function: other tasks run, errors and interrupts arrive; and it works after."""
    printed = script(NESTED).splitlines()

    if sys.version_info < (3, 14):  # from then on nothing nests, and the thread does it
        assert printed.pop(0) == "True True"
        assert printed == ["lost", "cancelled in a coroutine", "42 cancelled afterwards"]
