"""The model in a process of its own: the same answers and errors, and no death that is felt."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from notebook_serve import (
    CircuitOpen,
    DeadlineExceeded,
    Greedy,
    InvalidInput,
    LoaderFailed,
    ModelFailed,
    NoBatching,
    OptionError,
    Server,
    StartError,
    serve,
    servers,
)
from notebook_serve.models.generation import Piece, Prompt, Written
from notebook_serve.testing import Faulty
from notebook_serve.workers.supervisor import LONGEST_DELAY, restart_delay

from ..helpers import small_models
from ..helpers.blocking_model import eventually
from ..helpers.compare_answers import assert_same

Make = Callable[..., Server]


class Odd(Exception):
    """An error that cannot be made again from what it keeps."""

    def __init__(self, number: int, *, lock: Any) -> None:
        super().__init__(f"{number} is odd")
        self.number = number
        self.lock = lock


def model(inputs: list[Any], *, factor: int = 2) -> list[Any]:
    """Double what it gets, and do what some words say."""
    for value in inputs:
        match value:
            case "odd":
                raise Odd(3, lock=None)
            case "held":
                raise Odd(5, lock=threading.Lock())
            case "lock":
                return [threading.Lock() for _ in inputs]
            case "exit":
                os._exit(3)
            case "segfault":
                ctypes.string_at(0)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "end":
                raise EOFError("of a file")
    return [os.getpid() if value == "pid" else value * factor for value in inputs]


def never(inputs: list[Any]) -> list[Any]:
    """Give no answer."""
    threading.Event().wait()
    return inputs


def never_loaded() -> Any:
    threading.Event().wait()


def children() -> list[psutil.Process]:
    """The processes that this one has started and that run."""
    return [one for one in psutil.Process().children() if one.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture(autouse=True)
def no_orphans() -> Any:
    """Fail a test that leaves a process."""
    before = {one.pid for one in children()}
    yield
    for server in servers():
        server.stop(drain=False)
    assert [one for one in children() if one.pid not in before] == []


# -- as on a thread -------------------------------------------------------------------------


def test_it_answers_as_a_thread_does(make: Make) -> None:
    """Answers, parameters, lists, records and a policy that is swapped; from another process."""
    server = make(model, worker="process", policy=NoBatching())

    assert server.predict("a") == "aa"
    assert server.predict([1, 2, 3], factor=5) == [5, 10, 15]
    server.policy = Greedy(2)
    server.pause()
    asked = threading.Thread(target=server.predict, args=([1, 2, 3],))
    asked.start()
    eventually(lambda: len(server.queue()) == 3, "all wait")
    server.resume()
    asked.join()
    (pid,) = [worker.pid for worker in server.stats().workers]

    assert server.predict("pid") == pid != os.getpid()
    assert [batch.size for batch in server.batches()] == [1, 1, 1, 1, 2, 1, 1]
    assert {record.outcome for record in server.records()} == {"ok"}
    assert all(record.inference_time > 0 for record in server.records())
    with pytest.raises(InvalidInput, match="does not take the parameter 'power'"):
        server.predict(1, power=2)


def test_an_error_keeps_its_type_and_words(make: Make) -> None:
    """Its attributes too, and where it was raised; what cannot be sent is left out."""
    server = make(model, worker="process")

    with pytest.raises(ModelFailed, match=r"^Odd: 3 is odd$") as caught:
        server.predict("odd")
    assert type(caught.value.__cause__) is Odd
    assert caught.value.__cause__.number == 3
    assert "in model" in str(caught.value.__cause__.__cause__)

    with pytest.raises(ModelFailed, match=r"^Odd: 5 is odd$") as caught:
        server.predict("held")
    assert type(caught.value.__cause__) is Odd
    assert not hasattr(caught.value.__cause__, "lock")

    with pytest.raises(ModelFailed, match=r"^EOFError: of a file$"):
        server.predict("end")
    with pytest.raises(ModelFailed, match="an output cannot be sent"):
        server.predict("lock")
    with pytest.raises(InvalidInput, match="cannot be sent to the worker process: cannot pickle"):
        server.predict(threading.Lock())
    assert server.stats().restarts == {}


def test_one_poisoned_item_costs_nobody_else_an_answer_there(make: Make) -> None:
    server = make(model, worker="process", policy=Greedy(16))
    inputs: list[Any] = [*range(9), "odd", *range(6)]
    server.pause()
    futures, _ = server._first._submit(inputs, {}, None)
    server.resume()

    for value, future in zip(inputs, futures, strict=True):
        if value == "odd":
            with pytest.raises(ModelFailed):
                future.result(60)
        else:
            assert future.result(60).value == value * 2


def test_large_arrays_go_there_and_back(make: Make) -> None:
    """Of any layout, writable, and equal to what they were."""
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
    """With every parameter; and a change made later to the one in the notebook is not felt."""
    task = "text-classification"
    pipe, other = (small_models.pipeline(task) for _ in range(2))
    server = make(other, worker="process")
    for weight in other.model.parameters():
        weight.data.zero_()
    assert_answers_as(pipe, server, task)


def test_a_pipeline_that_is_made_there_answers_as_it_does_alone(make: Make) -> None:
    """With every parameter; and here there is all of it but the weights."""
    task = "text-generation"
    server = make(loader=partial(small_models.pipeline, task), worker="process")
    server.wait_ready(100)
    assert_answers_as(small_models.pipeline(task), server, task)
    here: Any = server._engine.model
    assert all(weight.is_meta for weight in here._reader.model.parameters())
    assert_it_is_heard(server)


def assert_it_is_heard(server: Server) -> None:
    """Each token is heard as it is written, and who has heard enough ends it."""
    pieces: list[Piece] = []
    settings = {"max_new_tokens": 40, "min_new_tokens": 40, "do_sample": False}

    def answer(prompt: Prompt) -> Written:
        (future,) = server._engine.submit([prompt], settings)
        (written,) = future.result(60).value
        assert isinstance(written, Written)
        return written

    whole = answer(Prompt("the queue"))
    assert answer(Prompt("the queue", (), pieces.append)) == whole
    assert tuple(piece.token for piece in pieces) == whole.tokens

    def hear(piece: Piece) -> None:
        heard.append(piece)
        if len(heard) == 3:
            ended.end()

    heard: list[Piece] = []
    ended = Prompt("the queue", (), hear)
    assert whole.tokens[:3] == answer(ended).tokens[:3]
    assert len(heard) < 40

    def fail(piece: Piece) -> None:
        raise ValueError("nobody listens")

    with pytest.raises(ModelFailed, match="nobody listens"):
        answer(Prompt("the queue", (), fail))
    assert answer(Prompt("the queue")) == whole
    assert server.stats().restarts == {}

    def kill(piece: Piece) -> None:
        killed.append(piece)
        os.kill(server.stats().workers[0].pid or 0, signal.SIGKILL)

    # What was heard once is not said again by the next process.
    killed: list[Piece] = []
    with pytest.raises(ModelFailed, match="SIGKILL"):
        answer(Prompt("the queue", (), kill))
    assert [piece.token for piece in killed] == list(whole.tokens[: len(killed)])


#: what a person may write into cells: none of it can be imported anywhere else
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
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", CELLS + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def gone(pids: list[int]) -> bool:
    return not any(psutil.pid_exists(pid) for pid in pids)


@pytest.mark.parametrize("end", ["", "sys.exit(0)", "ns.stop_all()", "del server, other"])
def test_what_a_cell_defines_works_and_a_script_ends_without_a_word(end: str) -> None:
    """Classes, lambdas and errors of ``__main__``; and no process outlives the script."""
    with script(end) as process:
        printed, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "")
    assert gone(eval(printed))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_parent_leaves_no_process(how: signal.Signals) -> None:
    """In the middle of a forward, one that sleeps and one that holds the interpreter's lock."""
    code = """
import ctypes, threading, time

def sleep(inputs):
    if inputs[0] == "hold":
        ctypes.PyDLL(None).sleep(600)  # without giving up the interpreter's lock
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
        assert not gone(pids)
        process.send_signal(how)
        process.wait()
        eventually(lambda: gone(pids), "the processes are gone", seconds=2)
        process.communicate()


# -- when it cannot start -------------------------------------------------------------------


def test_what_cannot_be_sent_is_said_in_the_cell(make: Make) -> None:
    """And no server is left."""
    lock = threading.Lock()
    with pytest.raises(StartError, match=r"the model cannot be sent .*; give loader=\.\.\."):
        make(lambda inputs: [lock for _ in inputs], worker="process")
    assert servers() == []


def broken_loader() -> Any:
    raise ValueError("weights are missing")


def test_wait_ready_raises_what_the_loader_raised_there(make: Make) -> None:
    server = make(loader=broken_loader, worker="process")
    with pytest.raises(LoaderFailed, match="ValueError: weights are missing") as caught:
        server.wait_ready(60)
    assert type(caught.value.__cause__) is ValueError
    assert server.state == "failed"


def test_a_process_that_dies_while_it_loads_is_said(make: Make) -> None:
    server = make(loader=partial(os._exit, 7), worker="process")
    with pytest.raises(LoaderFailed, match="died while it loaded the model: exit status 7"):
        server.wait_ready(60)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"worker": "fibre"}, "`worker` must be 'thread' or 'process'"),
        ({"workers": 0}, "`workers` must be a number from 1"),
        ({"workers": True}, "`workers` must be a whole number"),
        ({"devices": "cpu"}, "`devices` must be a list"),
        ({"devices": []}, "`devices` must be a list"),
        (
            {"devices": ["cpu"], "workers": 2},
            "`workers` must be 1, one for each of `devices`, got 2",
        ),
        ({"devices": ["cpu"]}, "cannot move a function, only a pipeline"),
        ({"workers": 2}, "2 threads cannot share one function"),
        ({"overtime": 2.0}, "a thread cannot be ended"),
        ({"worker": "process", "overtime": 0.5}, "overtime is a factor from 1"),
    ],
)
def test_an_option_that_makes_no_sense_is_said_in_the_cell(
    make: Make, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(OptionError, match=said):
        make(model, **options)


# -- death ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "end"), [("exit", "exit status 3"), ("segfault", "SIGSEGV"), ("kill", "SIGKILL")]
)
def test_only_the_request_that_kills_the_process_fails(make: Make, word: str, end: str) -> None:
    """It is found by halves; everybody else is answered, as is who comes after."""
    server = make(model, worker="process", policy=Greedy(4))
    inputs: list[Any] = [1, 2, word, 3, 4, 5]
    server.pause()
    futures, _ = server._first._submit(inputs, {}, None)
    server.resume()

    for value, future in zip(inputs, futures, strict=True):
        if value == word:
            with pytest.raises(ModelFailed, match=f"ProcessDied: .*{end}"):
                future.result(60)
        else:
            assert future.result(60).value == value * 2
    assert server.predict("after") == "afterafter"
    stats = server.stats()
    assert stats.outcomes["failed"] == 1
    assert sum(stats.restarts.values()) == 3
    assert end in str(stats)
    assert stats.breaker == "closed"


def waiting(folder: Path, inputs: list[str]) -> list[int]:
    """Say who runs; the first to run an input waits for ever."""
    (folder / "pid").write_text(str(os.getpid()))
    try:
        (folder / inputs[0]).touch(exist_ok=False)
    except FileExistsError:
        return [os.getpid()] * len(inputs)
    (folder / "runs").touch()
    threading.Event().wait()
    return []


def test_a_process_that_is_killed_from_outside_costs_nobody_his_answer(
    make: Make, tmp_path: Path
) -> None:
    """One alone in its batch is run once more; an idle process is replaced before it is wanted."""
    server = make(partial(waiting, tmp_path), worker="process")
    (future,), _ = server._first._submit("x", {}, None)
    eventually((tmp_path / "runs").exists, "it runs")
    before = int((tmp_path / "pid").read_text())
    os.kill(before, signal.SIGKILL)
    after = future.result(60).value
    assert after != before
    assert server.batches()[0].retries == 1

    os.kill(after, signal.SIGKILL)
    eventually(lambda: server.stats().workers[0].pid not in (after, None), "it is replaced")
    assert server.predict("x") not in (before, after)
    assert sum(server.stats().restarts.values()) == 2
    assert server.stats().outcomes["failed"] == 0


def once(path: Path) -> Any:
    """A loader that works once, and again where the file is away."""
    path.touch(exist_ok=False)
    return model


def test_a_process_that_cannot_be_started_again_opens_the_breaker(
    make: Make, tmp_path: Path
) -> None:
    """Requests fail instead of waiting for ever; once it can be started, all is well."""
    path = tmp_path / "loaded"
    server = make(loader=partial(once, path), worker="process")
    server.wait_ready(60)
    server._engine.breaker.threshold = 2
    with pytest.raises(ModelFailed, match="CannotStart: .*cannot be started again"):
        server.predict("kill")
    with pytest.raises(ModelFailed, match="cannot be started again"):
        server.predict(1)
    with pytest.raises(CircuitOpen):
        server.predict(1)
    path.unlink()

    def answers() -> bool:
        with suppress(ModelFailed, CircuitOpen):
            return bool(server.predict(2) == 4)
        return False

    eventually(answers, "it is started again")
    assert server.stats().breaker == "closed"
    assert any("could not load: FileExistsError" in end for end in server.stats().restarts)


def test_a_forward_far_beyond_its_time_is_ended(make: Make) -> None:
    """The request has its 504 on time, and the process is replaced; nothing is run again."""
    server = make(Faulty(model, slow_on="slow", seconds=600), worker="process", overtime=2.0)
    with pytest.raises(DeadlineExceeded, match="while it ran"):
        server.predict("slow", timeout=0.1)
    assert server.predict("next") == "nextnext"
    assert server.stats().restarts == {"a forward took 2 times as long as it had": 1}
    assert len(server.batches()) == 2


def test_a_stop_does_not_wait_for_a_forward(make: Make) -> None:
    """What a thread could not: the process ends in the middle of it; and it can start again."""
    server = make(never, worker="process")
    (future,), _ = server._first._submit("x", {}, None)
    eventually(lambda: server.stats().queue_depth == 0, "it runs")
    server.stop(drain=False)
    assert future.done()
    assert children() == []
    server.start()
    assert server.state == "ready"


def test_a_stop_while_it_loads(make: Make) -> None:
    server = make(loader=never_loaded, worker="process")
    eventually(lambda: server.stats().workers[0].pid is not None, "it loads")
    server.stop()
    assert server.state == "stopped"


# -- small parts ----------------------------------------------------------------------------


def test_pauses_grow() -> None:
    """None after a process that was of use; then longer, to a limit."""
    assert [restart_delay(row) for row in range(5)] == [0, 0.1, 0.2, 0.4, 0.8]
    assert restart_delay(1000) == LONGEST_DELAY


def test_a_missing_extra_is_named() -> None:
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


def test_the_server_says_who_works(make: Make) -> None:
    server = serve(model, worker="process", workers=2, port=0, name="crew")
    stats = server.stats()
    assert "2 processes" in server._repr_html_()
    assert [worker.kind for worker in stats.workers] == ["process", "process"]
    assert str(stats.workers[1].pid) in str(stats)
    assert stats.to_dict()["workers"][1]["number"] == 1
