"""Executors on threads, and the number of torch's threads that each worker uses."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._dynamo.utils as dynamo

from notebook_serve import OptionError, Server
from notebook_serve.models.base import Prepared
from notebook_serve.models.functions.function_model import FunctionModel
from notebook_serve.workers.executors import Executor, ThreadedModel, ThreadExecutor

Make = Callable[..., Server]

pytestmark = pytest.mark.usefixtures("two_cores")


def numbers(inputs: list[Any]) -> list[Any]:
    """Answer with the number of torch's threads that this worker uses."""
    return [torch.get_num_threads() for _ in inputs]


def collapses(inputs: list[Any]) -> list[Any]:
    """Take far longer on more than one thread, as beside a busy program."""
    threads = torch.get_num_threads()
    threading.Event().wait(0.001 if threads == 1 else 0.03)
    return [threads for _ in inputs]


def on_new_thread(function: Callable[[], Any]) -> Any:
    """Call `function` on a new thread, which torch has not seen, and return its result."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


# -- one executor ---------------------------------------------------------------------------


def echo(inputs: list[Any]) -> list[Any]:
    return inputs


def test_a_thread_executor_keeps_its_model() -> None:
    """It makes the model at the first load, and has it for the next start."""
    made: list[FunctionModel] = []

    def make() -> FunctionModel:
        made.append(FunctionModel(echo))
        return made[-1]

    executor: Executor = ThreadExecutor(None, make, device="cpu")
    ready = [executor.ready]
    executor.begin()
    assert executor.load() is made[0]
    assert executor.run([Prepared(1), Prepared(2)]) == [1, 2]
    executor.close()
    executor.join()
    ready.append(executor.ready)
    assert ready == [False, True]
    assert executor.load() is made[0]
    assert len(made) == 1


def test_a_thread_executor_has_no_process() -> None:
    """It cannot be interrupted, is not restarted, and blames an error on the inputs."""
    executor: Executor = ThreadExecutor(FunctionModel(echo))
    executor.interrupt("a forward pass takes too long")
    assert (executor.kind, executor.pid(), executor.restarts()) == ("thread", None, {})
    assert not executor.again(ValueError(), [Prepared(1)])
    assert executor.warnings() == []


def test_an_error_of_the_model_passes() -> None:
    """Its seconds are not learned from, and the next batch runs."""

    def fail_at_zero(inputs: list[Any]) -> list[Any]:
        return [torch.get_num_threads() // value for value in inputs]

    model = ThreadedModel(FunctionModel(fail_at_zero))
    with pytest.raises(ZeroDivisionError):
        model.run([Prepared(0)])
    assert model.run([Prepared(1)]) == [2]


# -- in a server ----------------------------------------------------------------------------


@pytest.mark.parametrize("worker", ["thread", "process"])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_number_that_is_given_is_used(make: Make, worker: str, threads: int) -> None:
    """Only the worker uses it: the numbers of cells and of later threads stay."""
    server = make(numbers, worker=worker, threads=threads)

    assert server.predict([1, 2]) == [threads, threads]
    assert torch.get_num_threads() == 2
    assert on_new_thread(torch.get_num_threads) == 2


def test_the_threads_are_divided_among_workers(make: Make) -> None:
    """Other threads keep their number."""
    server = make(loader=lambda: numbers, workers=2)

    assert server.predict([1, 2, 3, 4]) == [1, 1, 1, 1]
    assert torch.get_num_threads() == 2
    assert on_new_thread(torch.get_num_threads) == 2


@pytest.mark.parametrize("worker", ["thread", "process"])
def test_a_worker_that_becomes_slow_goes_on_with_one_thread(make: Make, worker: str) -> None:
    """A process also reports that; the number of cells never changes."""
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


def test_a_new_start_forgets_what_was_learned(make: Make) -> None:
    """It begins with all threads and without a warning."""
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
    """No other number is tried if a variable sets one."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    server = make(collapses, worker=worker)

    assert [server.predict(1) for _ in range(20)] == [2] * 20
    assert server._engine.warnings == []


def test_a_number_that_a_loader_has_set_stays(make: Make) -> None:
    """It runs on the worker's thread, so its number is that thread's."""

    def loader() -> Any:
        torch.set_num_threads(3)
        return collapses

    server = make(loader=loader)
    server.wait_ready()
    assert [server.predict(1) for _ in range(15)] == [3] * 15
    assert torch.get_num_threads() == 2


def test_no_other_number_is_tried_with_a_compiled_model(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each other number would have the model compiled again."""
    monkeypatch.setattr(dynamo, "counters", {"frames": {"total": 1}})
    server = make(collapses)

    assert [server.predict(1) for _ in range(15)] == [2] * 15


def test_functions_without_torch_keep_the_number(make: Make) -> None:
    """Only models that are seen to use torch are timed."""
    server = make(lambda xs: [hidden_count() for _ in xs])

    assert [server.predict(1) for _ in range(15)] == [2] * 15


def hidden_count() -> int:
    """Return the number of threads without a reference to torch."""
    return int(sys.modules["torch"].get_num_threads())


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2"])
def test_a_wrong_number_is_rejected(make: Make, threads: Any) -> None:
    """Both by `serve` and by `add`."""
    with pytest.raises(OptionError, match="`threads` must be a whole number >= 1"):
        make(numbers, threads=threads)
    server = make(numbers)
    with pytest.raises(OptionError, match="`threads` must be a whole number >= 1"):
        server.add("other", numbers, threads=threads)


def test_each_model_has_its_own_number(make: Make) -> None:
    """The option of `add` is for the new model only."""
    server = make(numbers, threads=1)

    assert server.add("more", numbers, threads=3).predict(0) == 3
    assert server.predict(0) == 1
