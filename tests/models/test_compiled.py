"""A model of `torch.compile` is served like any other, without a new graph for each batch."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from notebook_serve import Server, Window

from ..helpers.compare_answers import assert_same
from ..helpers.small_models import inputs, pipeline


class Backend:
    """A backend that counts graphs and compiles nothing."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        """Count the graph and return it."""
        self.graphs += 1
        forward: Callable[..., Any] = graph.forward
        return forward


@pytest.fixture
def backend() -> Iterator[Backend]:
    """Provide a backend and clear the cache of compiled graphs."""
    torch.compiler.reset()
    yield Backend()
    torch.compiler.reset()


def compiled_in_place(pipe: Any, backend: Backend) -> None:
    pipe.model.compile(dynamic=True, backend=backend)


def compiled_anew(pipe: Any, backend: Backend) -> None:
    pipe.model = torch.compile(pipe.model, dynamic=True, backend=backend)


@pytest.mark.parametrize("compile_it", [compiled_in_place, compiled_anew])
def test_a_compiled_model_answers_as_before_and_is_not_compiled_for_each_size(
    make: Callable[..., Server], compile_it: Callable[[Any, Backend], None], backend: Backend
) -> None:
    """There is one graph for one text and one for several, for all batch sizes and lengths."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - to repeat a failure
    texts = inputs("text-classification", 20, seed)
    plain, compiled = pipeline("text-classification"), pipeline("text-classification")
    compile_it(compiled, backend)
    server = make(compiled)

    def answers_of(texts: list[str]) -> Any:
        server.policy = Window(len(texts), 60.0)  # all or none
        answers = server.predict(texts)
        assert server.batches()[-1].size == len(texts)
        return answers

    answers_of(["the queue waits"])
    answers_of(["the queue waits", "a red batch runs quickly"])
    graphs = backend.graphs
    assert graphs > 0
    for count in (3, 5, 16, 20, 1, 2):
        assert_same([plain(text) for text in texts[:count]], answers_of(texts[:count]))
    assert backend.graphs == graphs
