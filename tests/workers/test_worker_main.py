"""The program of a worker process: what it runs, replies to, and ends with."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psutil
import pytest

from notebook_serve.models.base import Prepared
from notebook_serve.models.bisection import Failure
from notebook_serve.models.factory import as_model
from notebook_serve.models.functions.function_model import FunctionModel
from notebook_serve.workers.channel import Channel
from notebook_serve.workers.executors import ThreadedModel
from notebook_serve.workers.remote_errors import RemoteError
from notebook_serve.workers.shared_model import SharedModel
from notebook_serve.workers.worker_main import load, make_model, run_batch, run_next_batch
from notebook_serve.workers.worker_process import LoadMessage, WarningsMessage

from ..helpers.blocking_model import eventually
from ..helpers.process_models import double


@pytest.fixture
def channels() -> Iterator[tuple[Channel, Channel]]:
    """The notebook's end and the process's end of a channel."""
    notebook, process = map(Channel, socket.socketpair())
    yield notebook, process
    notebook.close()
    process.close()


def threaded(function: Callable[[list[Any]], list[Any]]) -> ThreadedModel:
    return ThreadedModel(as_model(function))


def items(*inputs: Any) -> list[Prepared]:
    return [Prepared(value) for value in inputs]


# -- replies ----------------------------------------------------------------------------------


def test_a_batch_is_answered_with_its_outputs(channels: tuple[Channel, Channel]) -> None:
    """One message in, one message out."""
    notebook, process = channels
    notebook.send(items(1, 2))
    run_next_batch(process, threaded(double))

    assert notebook.receive() == [2, 4]


def test_an_exception_is_a_reply(channels: tuple[Channel, Channel]) -> None:
    """The model's own, an input that cannot be unpickled, or an output that cannot be sent."""
    notebook, process = channels

    class Unreadable:
        def __reduce__(self) -> Any:
            return int, ("not a number",)

    replies = []
    for value in ("odd", Unreadable(), "lock"):
        notebook.send(items(value))
        run_next_batch(process, threaded(double))
        replies.append(notebook.receive())

    assert all(isinstance(reply, RemoteError) for reply in replies)
    assert replies[0].message == "3 is odd"
    assert replies[1].message.startswith("invalid literal for int()")
    assert replies[2].message.startswith("an output cannot be sent to the notebook")


def test_a_failure_of_one_item_can_be_sent() -> None:
    """An output may be a `Failure`; its exception may hold what cannot be sent."""

    class Unbatched:
        def run(self, batch: Any) -> list[Any]:
            error = ValueError("no such token")
            error.lock = threading.Lock()  # type: ignore[attr-defined]
            return [1, Failure(error)]

    model: Any = Unbatched()
    first, second = run_batch(ThreadedModel(model), items("a", "b"))

    assert first == 1
    assert isinstance(second, Failure)
    assert (type(second.error), str(second.error)) == (ValueError, "no such token")
    assert not hasattr(second.error, "lock")


def test_an_end_of_the_channel_is_not_answered(channels: tuple[Channel, Channel]) -> None:
    """The loop of `main` ends then."""
    notebook, process = channels
    notebook.shut_down()
    with pytest.raises(EOFError):
        run_next_batch(process, threaded(double))


def test_new_warnings_are_sent_before_the_reply(channels: tuple[Channel, Channel]) -> None:
    """The same warnings are not sent twice."""
    notebook, process = channels

    class SlowModel(ThreadedModel):
        has_run = False

        @property
        def warnings(self) -> list[str]:
            return ["slow"] if self.has_run else []

        def run(self, batch: Any) -> list[Any]:
            self.has_run = True
            return [0]

    model = SlowModel(as_model(double))
    for _ in range(2):
        notebook.send(items(1))
        run_next_batch(process, model)

    assert notebook.receive() == WarningsMessage(["slow"])
    assert notebook.receive() == [0]
    assert notebook.receive() == [0]


# -- loading ----------------------------------------------------------------------------------


def message(given: Any, **options: Any) -> LoadMessage:
    packed = SharedModel.pack(given)
    return LoadMessage(packed, **options)


def test_a_model_is_used_and_a_loader_is_called() -> None:
    """Both become a model as the engine knows it."""
    made = make_model(message(double, is_loader=False))
    assert made.run(items(2)) == [4]
    made = make_model(message(lambda: double, is_loader=True))
    assert made.run(items(2)) == [4]


def test_a_loader_is_given_its_device() -> None:
    """If it has a parameter of that name."""

    def loader(device: str) -> Callable[[list[Any]], list[Any]]:
        return lambda inputs: [device for _ in inputs]

    made = make_model(message(loader, is_loader=True, device="cuda:1"))
    assert made.run(items(1)) == ["cuda:1"]


def test_a_copy_without_the_function_is_sent_back_if_wanted(
    channels: tuple[Channel, Channel],
) -> None:
    """The notebook prepares and finishes with it; the function may be large."""
    notebook, process = channels
    weights = np.zeros(1_000_000)

    def function(inputs: list[Any]) -> list[Any]:
        return [weights[0] for _ in inputs]

    for returns_copy in (True, False):
        notebook.send(message(function, is_loader=False, returns_copy=returns_copy))
        assert load(process) is not None
        copy = notebook.receive()
        assert isinstance(copy, FunctionModel) is returns_copy


def test_a_loader_that_raises_is_a_reply(channels: tuple[Channel, Channel]) -> None:
    """Also one that exits: the process ends after the reply."""
    notebook, process = channels

    def fail() -> Any:
        raise ValueError("weights are missing")

    for loader, expected in ((fail, "weights are missing"), (lambda: sys.exit(3), "3")):
        notebook.send(message(loader, is_loader=True))
        assert load(process) is None
        reply = notebook.receive()
        assert isinstance(reply, RemoteError)
        assert reply.message == expected


# -- in a process of a script -------------------------------------------------------------------

#: definitions of cells: no other process can import them
CELLS = """
import functools, os, sys
import notebook_serve as ns

class Mine(Exception):
    pass

class Thing:
    def __init__(self, value):
        self.value = value

SCALE = 3

@functools.lru_cache
def scaled(value):
    return value * SCALE

class Model:
    def __call__(self, inputs):
        if inputs[0] == "bad":
            raise Mine("bad")
        return [Thing(scaled(value)) for value in inputs]

server = ns.serve(Model(), worker="process", port=0)
answer = server.predict(2)
assert type(answer) is Thing and answer.value == 6
try:
    server.predict("bad")
except ns.ModelFailed as error:
    assert type(error.__cause__) is Mine, type(error.__cause__)
other = ns.serve(loader=lambda: lambda inputs: [len(inputs)], worker="process", name="o", port=0)
other.wait_ready()
assert other.predict("x") == 1
print([worker.pid for server in ns.servers() for worker in server.stats().workers], flush=True)
"""


def script(code: str) -> subprocess.Popen[str]:
    """Run the cells, and `code` after them, in a script."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", CELLS + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def have_ended(pids: list[int]) -> bool:
    return not any(psutil.pid_exists(pid) for pid in pids)


@pytest.mark.parametrize("end", ["", "sys.exit(0)", "ns.stop_all()", "del server, other"])
def test_definitions_of_cells_work_and_a_script_ends_quietly(end: str) -> None:
    """Send classes, lambdas and errors of ``__main__``; no process outlives the script."""
    with script(end) as process:
        printed, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert have_ended(eval(printed))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_parent_leaves_no_process(how: signal.Signals) -> None:
    """Kill it in the middle of two forward passes: one sleeps, the other holds the GIL."""
    code = """
import ctypes, threading, time

def sleep(inputs):
    if inputs[0] == "hold":
        ctypes.PyDLL(None).sleep(600)  # without releasing the GIL
    time.sleep(600)

server = ns.serve(sleep, worker="process", port=0, workers=2, policy=ns.NoBatching())
pids = [worker.pid for worker in server.stats().workers]
for value in ("sleep", "hold"):
    threading.Thread(target=server.predict, args=[value], daemon=True).start()
while not all(server.stats().workers[n].utilisation for n in (0, 1)):
    pass
print(pids, flush=True)
time.sleep(600)
"""
    with script(code) as process:
        assert process.stdout is not None
        process.stdout.readline()
        pids = eval(process.stdout.readline())
        assert not have_ended(pids)
        process.send_signal(how)
        process.wait()
        eventually(lambda: have_ended(pids), "the processes are gone", seconds=2)
        process.communicate()
