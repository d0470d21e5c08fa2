"""The threads of torch in real workers, and the settings of the user that stay as they are."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch._dynamo.utils as dynamo

from notebook_serve import OptionError, Server
from notebook_serve.models.base import FunctionModel
from notebook_serve.models.text import as_model
from notebook_serve.testing import Faulty
from notebook_serve.workers import torch_settings as settings
from notebook_serve.workers.torch_settings import (
    NUMBER,
    PASSIVE,
    WAITING,
    computes_on_cpu,
    default_thread_counts,
    is_chosen_by_user,
    process_environment,
)

from ..helpers import small_models

Make = Callable[..., Server]


def numbers(inputs: list[Any]) -> list[Any]:
    """Answer with the threads of torch that this worker uses."""
    return [torch.get_num_threads() for _ in inputs]


def variables(inputs: list[Any]) -> list[Any]:
    """Answer with what the worker's environment says of threads."""
    names = (*NUMBER, *WAITING)
    return [{name: os.environ[name] for name in names if name in os.environ} for _ in inputs]


def collapses(inputs: list[Any]) -> list[Any]:
    """Take far longer on more than one thread, as beside a busy program."""
    threads = torch.get_num_threads()
    threading.Event().wait(0.001 if threads == 1 else 0.03)
    return [threads for _ in inputs]


def on_new_thread(function: Callable[[], Any]) -> Any:
    """What `function` returns on a thread that torch has not seen."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No variables from outside, and two threads of torch, as if the machine had two cores."""
    for name in (*NUMBER, *WAITING):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(settings, "default_thread_counts", lambda: {2})
    monkeypatch.setattr(dynamo, "counters", {})  # another test may have compiled a model
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


# -- on a thread ----------------------------------------------------------------------------


@pytest.mark.parametrize("worker", ["thread", "process"])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_number_that_is_given_is_used(make: Make, worker: str, threads: int) -> None:
    """By the worker alone: the cells' own number, and that of threads made later, stay."""
    server = make(numbers, worker=worker, threads=threads)

    assert server.predict([1, 2]) == [threads, threads]
    assert torch.get_num_threads() == 2
    assert on_new_thread(torch.get_num_threads) == 2


def test_the_threads_are_divided_among_workers(make: Make) -> None:
    """And nothing of that is seen outside of them."""
    server = make(loader=lambda: numbers, workers=2)

    assert server.predict([1, 2, 3, 4]) == [1, 1, 1, 1]
    assert torch.get_num_threads() == 2
    assert on_new_thread(torch.get_num_threads) == 2


@pytest.mark.parametrize("worker", ["thread", "process"])
def test_a_worker_that_collapses_goes_on_with_one_thread(make: Make, worker: str) -> None:
    """It says so, from a process too; and the number of the cells is as it was all the time."""
    server = make(collapses, worker=worker)

    for _ in range(100):
        server.predict(1)
        assert torch.get_num_threads() == 2
        if server._engine.warnings:
            break
    assert server.predict(1) == 1
    (warning,) = server._engine.warnings
    assert warning.startswith("torch runs this model on 1 of 2 threads.")
    assert on_new_thread(torch.get_num_threads) == 2


def test_a_new_start_begins_anew(make: Make) -> None:
    server = make(collapses)
    while not server._engine.warnings:
        server.predict(1)
    server.stop()
    server.start()

    assert server._engine.warnings == []
    assert server.predict(1) == 2


@pytest.mark.parametrize("worker", ["thread", "process"])
def test_a_number_that_the_user_has_set_stays(
    make: Make, worker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a variable or by torch's own function: nothing else is tried."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    server = make(collapses, worker=worker)

    assert [server.predict(1) for _ in range(20)] == [2] * 20
    assert server._engine.warnings == []


def test_a_number_of_its_own_is_the_user_s(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_chosen_by_user()
    torch.set_num_threads(3)
    assert is_chosen_by_user()
    torch.set_num_threads(2)
    monkeypatch.setenv("MKL_NUM_THREADS", "2")
    assert is_chosen_by_user()


def test_a_number_that_a_loader_has_set_stays(make: Make) -> None:
    """On the worker's thread, where it runs."""

    def loader() -> Any:
        torch.set_num_threads(3)
        return collapses

    server = make(loader=loader)
    server.wait_ready()
    assert [server.predict(1) for _ in range(15)] == [3] * 15
    assert torch.get_num_threads() == 2


def test_no_number_is_tried_on_what_is_compiled(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would have the model compiled again."""
    monkeypatch.setattr(dynamo, "counters", {"frames": {"total": 1}})
    server = make(collapses)

    assert [server.predict(1) for _ in range(15)] == [2] * 15


def test_functions_without_torch_run_as_they_are(make: Make) -> None:
    server = make(lambda xs: [torch_free() for _ in xs])

    assert [server.predict(1) for _ in range(15)] == [2] * 15


def torch_free() -> int:
    """The number of threads, found in a way that names no torch."""
    return int(sys.modules["torch"].get_num_threads())


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2"])
def test_a_wrong_number_is_refused(make: Make, threads: Any) -> None:
    with pytest.raises(OptionError, match="`threads` must be a whole number >= 1"):
        make(numbers, threads=threads)
    server = make(numbers)
    with pytest.raises(OptionError, match="`threads` must be a whole number >= 1"):
        server.add("other", numbers, threads=threads)


def test_each_model_has_its_own_number(make: Make) -> None:
    server = make(numbers, threads=1)

    assert server.add("more", numbers, threads=3).predict(0) == 3
    assert server.predict(0) == 1


# -- the environment of processes -----------------------------------------------------------


def test_a_process_waits_passively(make: Make) -> None:
    """As many threads as torch has here, that sleep soon; in its environment, not in this one."""
    server = make(variables, worker="process")

    assert server.predict(0) == {"OMP_NUM_THREADS": "2", **PASSIVE}
    assert not any(name in os.environ for name in PASSIVE)


def test_what_the_user_says_of_waiting_stays(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    server = make(variables, worker="process", workers=2)

    assert server.predict(0) == {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "ACTIVE"}


@pytest.mark.parametrize(
    ("threads", "workers", "given", "number"),
    [
        (None, 1, None, "2"),
        (None, 2, None, "1"),
        (None, 64, None, "1"),
        (None, 2, "2", None),
        # torch was told otherwise after that
        (None, 1, "4", "2"),
        (3, 2, None, "3"),
        (3, 1, "2", "3"),
    ],
)
def test_the_number_of_a_process(
    threads: int | None,
    workers: int,
    given: str | None,
    number: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An option, or the share in what torch has here, unless the environment says the same."""
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert process_environment(threads, workers).get("OMP_NUM_THREADS") == number


def test_the_number_where_torch_is_not_loaded() -> None:
    """One process takes its own; several divide the cores."""
    code = (
        "from notebook_serve.workers.torch_settings import list_cores, process_environment\n"
        "print(process_environment(None, 1).get('OMP_NUM_THREADS'),"
        " process_environment(None, 2)['OMP_NUM_THREADS'] == str(max(1, len(list_cores()) // 2)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None", "True"]


def test_torch_s_own_number_is_a_usual_one() -> None:
    """So it is known when the user has chosen another."""
    code = "import torch; print(torch.get_num_threads())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) in default_thread_counts()


# -- which models ---------------------------------------------------------------------------


class Encoder:
    """An object around a module, as many libraries have."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def encode(self, inputs: list[Any]) -> list[Any]:
        """Answer with what came in."""
        return inputs

    __call__ = encode


def named_torch(inputs: list[Any], factor: Any = None) -> list[Any]:
    """Compute with torch itself."""
    return list(torch.tensor(inputs))


@pytest.mark.parametrize("task", small_models.TASKS)
def test_pipelines_are_known(task: str) -> None:
    assert computes_on_cpu(as_model(small_models.pipeline(task)))


def test_functions_that_reach_torch_are_known() -> None:
    """By name, in a closure, as a bound method, in an object, or in what wraps these."""
    module = torch.nn.Linear(2, 2)
    pipe = small_models.pipeline("text-classification")
    known: list[Any] = [
        named_torch,
        functools.partial(named_torch, factor=2),
        Faulty(named_torch),
        Encoder(module),
        Encoder(module).encode,
        lambda xs: module(xs),
        lambda xs: pipe(xs),
        Faulty(lambda xs: pipe(xs)),
    ]
    for function in known:
        assert computes_on_cpu(as_model(function)), function


def test_others_are_not() -> None:
    """Plain functions, other devices, and what cannot be looked at."""

    class Odd:
        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError("outside of its context")

        def __call__(self, xs: list[Any]) -> list[Any]:
            return xs

    elsewhere = torch.nn.Linear(2, 2, device="meta")
    odd = Odd()
    for function in (lambda xs: xs, lambda xs: elsewhere(xs), lambda xs: odd(xs)):
        assert not computes_on_cpu(FunctionModel(function))
