"""A model in a worker process: the same answers and errors as on a thread."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from notebook_serve import Greedy, InvalidInput, ModelFailed, NoBatching, Server, serve
from notebook_serve.models.base import Prepared
from notebook_serve.workers.shared_model import SharedModel
from notebook_serve.workers.worker_process import Disconnected, LoadMessage, WorkerProcess

from ..helpers import small_models
from ..helpers.blocking_model import eventually
from ..helpers.compare_answers import assert_same
from ..helpers.process_models import OddError, block, double

Make = Callable[..., Server]


# -- one process ----------------------------------------------------------------------------


@pytest.fixture
def start() -> Iterator[Callable[..., WorkerProcess]]:
    """Start processes with a model; they are killed at the end."""
    packed, made = list[SharedModel](), list[WorkerProcess]()

    def start(model: Any, **options: Any) -> WorkerProcess:
        packed.append(SharedModel.pack(model))
        made.append(WorkerProcess(LoadMessage(packed[-1], is_loader=False, **options), {"A": "b"}))
        return made[-1]

    yield start
    for process in made:
        process.kill()
        process.wait()
        process.close()
    for each in packed:
        each.close()


def test_a_process_loads_runs_and_ends(start: Callable[..., WorkerProcess]) -> None:
    """It has the variables that were given, and ends with status 0 after its last batch."""
    process = start(lambda names: [os.environ.get(name) for name in names])
    assert process.load() is None
    assert process.pid != os.getpid()
    assert process.run([Prepared("A"), Prepared("NOT SET")]) == ["b", None]
    process.end()

    assert process.wait() == "exit status 0"
    with pytest.raises(Disconnected):
        process.run([Prepared("A")])


def test_a_process_that_is_killed_disconnects(start: Callable[..., WorkerProcess]) -> None:
    """A thread that waits for a batch is woken, and the signal is named with its usual reason."""
    process = start(block)
    process.load()
    timer = threading.Timer(0.0, process.kill)
    timer.start()
    with pytest.raises(Disconnected):
        process.run([Prepared(1)])
    timer.join()

    assert process.wait() == "killed by SIGKILL (as the system does when memory runs out)"
    assert not process.has_streamed


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (signal.SIGSEGV, "killed by SIGSEGV (a fault in native code)"),
        (signal.SIGTERM, "killed by SIGTERM"),
    ],
)
def test_a_signal_is_described(
    start: Callable[..., WorkerProcess], number: signal.Signals, expected: str
) -> None:
    """By its name, and by its usual reason if there is one."""
    process = start(double)
    process.load()
    os.kill(process.pid, number)
    assert process.wait() == expected


# -- in a server ---------------------------------------------------------------------------


def test_a_process_answers_as_a_thread_does(make: Make) -> None:
    """Check answers, parameters, lists, records, and a policy that is swapped."""
    server = make(double, worker="process", policy=NoBatching())

    assert server.predict("a") == "aa"
    assert server.predict([1, 2, 3], factor=5) == [5, 10, 15]
    server.policy = Greedy(2)
    server.pause()
    asked = threading.Thread(target=server.predict, args=([1, 2, 3],))
    asked.start()
    eventually(lambda: len(server.queue()) == 3, "all are queued")
    server.resume()
    asked.join()
    (pid,) = [worker.pid for worker in server.stats().workers]

    assert server.predict("pid") == pid != os.getpid()
    assert [batch.size for batch in server.batches()] == [1, 1, 1, 1, 2, 1, 1]
    assert {record.outcome for record in server.records()} == {"ok"}
    assert all(record.inference_time > 0 for record in server.records())
    with pytest.raises(InvalidInput, match="does not take the parameter 'power'"):
        server.predict(1, power=2)


def test_an_error_keeps_its_type_and_message(make: Make) -> None:
    """It also keeps its attributes and traceback, except attributes that cannot be sent."""
    server = make(double, worker="process")

    with pytest.raises(ModelFailed, match=r"^OddError: 3 is odd$") as caught:
        server.predict("odd")
    assert type(caught.value.__cause__) is OddError
    assert caught.value.__cause__.number == 3
    assert "in double" in str(caught.value.__cause__.__cause__)

    with pytest.raises(ModelFailed, match=r"^OddError: 5 is odd$") as caught:
        server.predict("held")
    assert type(caught.value.__cause__) is OddError
    assert not hasattr(caught.value.__cause__, "lock")

    with pytest.raises(ModelFailed, match=r"^EOFError: of a file$"):
        server.predict("end")
    with pytest.raises(ModelFailed, match="an output cannot be sent"):
        server.predict("lock")
    with pytest.raises(InvalidInput, match="cannot be sent to the worker process: cannot pickle"):
        server.predict(threading.Lock())
    assert server.stats().restarts == {}


def test_one_poisoned_item_fails_alone_in_a_process(make: Make) -> None:
    server = make(double, worker="process", policy=Greedy(16))
    inputs: list[Any] = [*range(9), "odd", *range(6)]
    server.pause()
    futures, _ = server._submit(inputs, {}, None)
    server.resume()

    for value, future in zip(inputs, futures, strict=True):
        if value == "odd":
            with pytest.raises(ModelFailed):
                future.result(60)
        else:
            assert future.result(60).value == value * 2


def test_large_arrays_go_to_a_process_and_back(make: Make) -> None:
    """Arrays of any layout come back equal and writable."""
    server = make(lambda inputs: inputs, worker="process")
    arrays: list[Any] = [
        np.arange(300_000, dtype=np.int16).reshape(300, -1),
        np.asfortranarray(np.ones((400, 500))),
        np.zeros((0, 3)),
        np.arange(100_000)[::7],
    ]
    for array in arrays:
        (answer,) = server.predict([array])
        assert answer.dtype == array.dtype
        assert np.array_equal(answer, array)
        answer[...] = 1


def assert_answers_as(pipe: Any, server: Server, task: str) -> None:
    texts = small_models.inputs(task, 6, seed=1)
    for parameters in small_models.PARAMETERS[task]:
        expected = [pipe(text, **parameters) for text in texts]
        assert_same(expected, server.predict(texts, **parameters))


def test_a_pipeline_that_is_sent_answers_as_it_does_alone(make: Make) -> None:
    """Try every parameter; a later change of the notebook's pipeline has no effect."""
    task = "text-classification"
    pipe, other = (small_models.pipeline(task) for _ in range(2))
    server = make(other, worker="process")
    for weight in other.model.parameters():
        weight.data.zero_()
    assert_answers_as(pipe, server, task)


def test_a_pipeline_of_a_loader_answers_as_it_does_alone(make: Make) -> None:
    """Try every parameter; the notebook has the pipeline without its weights."""
    task = "text-generation"
    server = make(loader=partial(small_models.pipeline, task), worker="process")
    server.wait_ready(100)
    assert_answers_as(small_models.pipeline(task), server, task)
    copy: Any = server._engine.model
    assert all(weight.is_meta for weight in copy._reader.model.parameters())


def test_a_missing_extra_is_named() -> None:
    """Without cloudpickle a thread still works, and a process names the command."""
    code = """
import sys
sys.modules["cloudpickle"] = None
import notebook_serve as ns
assert ns.serve(lambda xs: xs, port=0).predict(1) == 1
try:
    ns.serve(lambda xs: xs, worker="process", port=0)
except ns.ServeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'notebook-serve[process]'" in done.stdout


def test_a_server_shows_its_processes(make: Make) -> None:
    server = serve(double, worker="process", workers=2, port=0, name="crew")
    stats = server.stats()
    assert "2 processes" in server._repr_html_()
    assert [worker.kind for worker in stats.workers] == ["process", "process"]
    assert str(stats.workers[1].pid) in str(stats)
    assert stats.to_dict()["workers"][1]["number"] == 1
