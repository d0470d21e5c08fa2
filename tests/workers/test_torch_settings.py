"""Settings of torch's threads on a thread and in a worker process, and those of the user."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from notebook_serve import Server
from notebook_serve.models.factory import as_model
from notebook_serve.models.functions.function_model import FunctionModel
from notebook_serve.testing import Faulty
from notebook_serve.workers.torch_settings import (
    NUMBER,
    PASSIVE,
    WAITING,
    computes_on_cpu,
    default_thread_counts,
    get_thread_count,
    is_chosen_by_user,
    process_environment,
    set_thread_count,
)

from ..helpers import small_models

Make = Callable[..., Server]

pytestmark = pytest.mark.usefixtures("two_cores")


def variables(inputs: list[Any]) -> list[Any]:
    """Answer with the variables about threads in the worker's environment."""
    names = (*NUMBER, *WAITING)
    return [{name: os.environ[name] for name in names if name in os.environ} for _ in inputs]


def test_the_number_is_set_on_one_thread_only() -> None:
    """Torch's own function would also set it for threads that start later."""
    found: list[int] = []

    def use_three() -> None:
        assert get_thread_count() == 2
        set_thread_count(3)
        found.append(get_thread_count())

    for target in (use_three, lambda: found.append(get_thread_count())):
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()

    assert found == [3, 2]
    assert get_thread_count() == 2


def test_an_unusual_number_or_a_variable_is_the_users_choice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Torch itself never takes three threads on two cores."""
    assert not is_chosen_by_user()
    torch.set_num_threads(3)
    assert is_chosen_by_user()
    torch.set_num_threads(2)
    monkeypatch.setenv("MKL_NUM_THREADS", "2")
    assert is_chosen_by_user()


# -- the environment of processes -----------------------------------------------------------


def test_a_process_waits_passively(make: Make) -> None:
    """Its environment has torch's number of threads here, and lets them sleep soon."""
    server = make(variables, worker="process")

    assert server.predict(0) == {"OMP_NUM_THREADS": "2", **PASSIVE}
    assert not any(name in os.environ for name in PASSIVE)


def test_the_users_variables_stay(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process inherits them, and gets no others."""
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
        # the number of torch was changed after the variable
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
    """Set the option, or the share in torch's number here, unless a variable has it already."""
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert process_environment(threads, workers).get("OMP_NUM_THREADS") == number


def test_the_number_where_torch_is_not_loaded() -> None:
    """One process has torch's default; several divide the cores."""
    code = (
        "from notebook_serve.workers.torch_settings import list_cores, process_environment\n"
        "print(process_environment(None, 1).get('OMP_NUM_THREADS'),"
        " process_environment(None, 2)['OMP_NUM_THREADS'] == str(max(1, len(list_cores()) // 2)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None", "True"]


def test_torchs_default_is_a_default_count() -> None:
    """Otherwise each process would take it for the user's choice."""
    code = "import torch; print(torch.get_num_threads())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) in default_thread_counts()


# -- which models ---------------------------------------------------------------------------


class Encoder:
    """A wrapper of a module, as in many libraries."""

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
def test_pipelines_use_torch_on_the_cpu(task: str) -> None:
    """Find the modules of each task."""
    assert computes_on_cpu(as_model(small_models.pipeline(task)))


def test_functions_that_refer_to_torch_use_it() -> None:
    """By name, in a closure, as a bound method, in an object, or in a wrapper of these."""
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


def test_other_functions_do_not() -> None:
    """Plain functions, other devices, and objects that cannot be inspected."""

    class Odd:
        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError("outside of its context")

        def __call__(self, xs: list[Any]) -> list[Any]:
            return xs

    elsewhere = torch.nn.Linear(2, 2, device="meta")
    odd = Odd()
    for function in (lambda xs: xs, lambda xs: elsewhere(xs), lambda xs: odd(xs)):
        assert not computes_on_cpu(FunctionModel(function))
