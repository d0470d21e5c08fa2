"""Placement of a server's workers: its options, and the models that the workers get."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from notebook_serve import LoaderFailed, OptionError, Server
from notebook_serve.models.factory import as_model
from notebook_serve.workers.executors import ThreadExecutor
from notebook_serve.workers.placement import MOST_WORKERS, Placement, ThreadModelFactory

from ..helpers import small_models
from ..helpers.compare_answers import assert_same

Make = Callable[..., Server]


def echo(inputs: list[Any]) -> list[Any]:
    return inputs


# -- options --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "workers", "text"),
    [
        (("thread", None, None), 1, "1 thread"),
        (("process", 2, None), 2, "2 processes"),
        (("thread", None, ["cuda:0", "cuda:1"]), 2, "2 threads on cuda:0, cuda:1"),
        (("process", 1, ("cpu",)), 1, "1 process on cpu"),
        (("thread", MOST_WORKERS, None, 1), MOST_WORKERS, f"{MOST_WORKERS} threads"),
    ],
)
def test_there_is_one_worker_for_each_device(arguments: Any, workers: int, text: str) -> None:
    """Without devices, `workers` is the number; a card shows the placement as text."""
    placement = Placement.of(*arguments)
    assert (placement.workers, str(placement)) == (workers, text)


@pytest.mark.parametrize(
    ("options", "message"),
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
        ({"overtime": 2.0}, "a thread cannot be killed"),
        ({"worker": "process", "overtime": 0.5}, "overtime must be a number >= 1"),
    ],
)
def test_an_invalid_option_raises_in_the_cell(
    make: Make, options: dict[str, Any], message: str
) -> None:
    """The message has the option and its value."""
    with pytest.raises(OptionError, match=message):
        make(echo, **options)


# -- executors ------------------------------------------------------------------------------


def executors(placement: Placement, model: Any, loader: Any = None) -> list[Any]:
    """Return the executors of a model or a loader."""
    made = None if model is None else as_model(model)
    return list(placement.executors(model, loader, made, "name", lambda done, size: None))


def test_one_worker_runs_the_model_that_the_engine_has() -> None:
    """A single thread needs no copy."""
    (executor,) = executors(Placement(), echo)
    assert isinstance(executor, ThreadExecutor)
    assert executor.ready
    assert executor.load() is executor._model


def test_several_threads_make_their_models_themselves() -> None:
    """Each calls the loader on its own thread, so none is ready before."""
    found = executors(Placement.of("thread", 3, None), None, lambda: lambda inputs: inputs)
    assert [executor.ready for executor in found] == [False] * 3
    models = [executor.load() for executor in found]
    assert len({id(model._function) for model in models}) == 3


def test_the_first_process_of_a_loader_returns_a_copy() -> None:
    """The notebook needs one copy without weights, and none if it has the model."""
    placement = Placement.of("process", 3, None)
    for model, loader, expected in ((None, lambda: echo, [1, 0, 0]), (echo, None, [0, 0, 0])):
        found = executors(placement, model, loader)
        assert [executor._returns_copy for executor in found] == expected
        assert len({id(executor._source) for executor in found}) == 1  # packed once


def test_threads_share_a_pipeline_of_a_loader() -> None:
    """The loader is called once; each thread has its own tokenizer for the same weights."""
    calls: list[int] = []

    def loader() -> Any:
        calls.append(1)
        return small_models.pipeline("fill-mask")

    factory = ThreadModelFactory(None, loader, workers=2)
    first, second = (factory.make("") for _ in range(2))
    runners: list[Any] = [first._runner, second._runner]  # type: ignore[attr-defined]
    assert calls == [1]
    assert runners[0].model is runners[1].model
    assert runners[0].tokenizer is not runners[1].tokenizer


# -- in a server ----------------------------------------------------------------------------


def test_a_loader_of_a_pipeline_is_called_once_and_one_with_a_device_for_each(make: Make) -> None:
    """Workers share a pipeline, unless the loader puts one on the device of each."""
    calls: list[str] = []

    def loader(device: str = "") -> Any:
        calls.append(device)
        return small_models.pipeline("fill-mask")

    shared = make(loader=loader, workers=2)
    shared.wait_ready(60)
    assert calls == [""]
    apart = make(loader=loader, devices=["cpu", "cpu"])
    apart.wait_ready(60)
    assert calls == ["", "cpu", "cpu"]
    assert [worker.device for worker in apart.stats().workers] == ["cpu", "cpu"]
    text = small_models.inputs("fill-mask", 1, seed=1)[0]
    assert_same(apart.predict(text), shared.predict(text))


def test_a_pipeline_is_moved_to_its_device(make: Make) -> None:
    """Move a copy; the user's own stays where it was. (The device ``meta`` holds no numbers.)"""
    pipe = small_models.pipeline("fill-mask")
    server = make(pipe, devices=["meta", "cpu"])
    executors: Any = server._engine.runner.executors
    models = [executor._model._runner.model for executor in executors]
    assert [str(model.device) for model in models] == ["meta", "cpu"]
    assert models[1] is pipe.model
    assert "2 threads on meta, cpu" in server._repr_html_()


def test_a_function_of_a_loader_cannot_be_moved(make: Make) -> None:
    server = make(loader=lambda: list, devices=["cpu"])
    with pytest.raises(LoaderFailed, match="cannot be moved to cpu") as caught:
        server.wait_ready(60)
    assert isinstance(caught.value.__cause__, OptionError)
