"""Copies of a pipeline: shared weights, separate tokenizers."""

from __future__ import annotations

import copy
import threading
from concurrent.futures import Future
from typing import Any

import pytest

from notebook_serve import (
    Greedy,
)
from notebook_serve.engine.engine import Answer, Engine
from notebook_serve.models.factory import as_model
from notebook_serve.models.text import TextPipeline

from ..helpers import small_models

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def started(pipe: Any) -> Engine:
    engine = Engine(pipe, None, Greedy(), max_queue_size=1000, timeout=100.0, name="pipelines")
    engine.start()
    return engine


def test_the_weights_are_not_copied_and_the_tokenizer_is() -> None:
    """The server shares the user's weights, and no two threads share a tokenizer."""
    pipe = small_models.pipeline("fill-mask")
    model = as_model(pipe)
    assert isinstance(model, TextPipeline)
    copies = [model._reader, model._runner]
    assert all(one.model is pipe.model for one in copies)
    backends = {id(one.tokenizer.backend_tokenizer) for one in [pipe, *copies]}
    assert len(backends) == 3


def test_a_users_tokenizer_and_the_servers_never_meet() -> None:
    """While a cell tokenises with other settings, the server's tokens stay right.

    With one shared tokenizer this fails: every call sets truncation on the shared object, and
    another thread then tokenises with it. The second half shows that, to prove the first.
    """
    pipe = small_models.pipeline("feature-extraction")
    text = "the queue waits for the server and the model runs slowly " * 4
    expected = pipe.tokenizer(text)["input_ids"]
    server_side = as_model(pipe)
    assert isinstance(server_side, TextPipeline)

    assert wrong_while_disturbed(server_side._reader.tokenizer, pipe.tokenizer, text, expected) == 0
    assert wrong_while_disturbed(pipe.tokenizer, pipe.tokenizer, text, expected) > 0


def wrong_while_disturbed(tokenizer: Any, disturbed: Any, text: str, expected: Any) -> int:
    """How many of many calls gave wrong tokens while another thread used `disturbed`."""
    stop = threading.Event()

    def disturb() -> None:
        while not stop.is_set():
            disturbed(text, truncation=True, max_length=4)

    threads = [threading.Thread(target=disturb) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        wrong = 0
        for _ in range(20_000):
            wrong += tokenizer(text)["input_ids"] != expected
            if wrong:
                break
        return wrong
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_the_served_pipeline_under_mixed_truncation_and_calls_from_a_cell() -> None:
    """Requests with different truncation, and pipe(...) in a cell meanwhile: all are right."""
    pipe, reference = (small_models.pipeline("feature-extraction") for _ in range(2))
    text = "the queue waits for the server " * 4
    lengths: list[int | None] = [None, 4, 9]
    settings: dict[int | None, dict[str, Any]] = {
        length: {"truncation": True, "tokenize_kwargs": {"max_length": length}} if length else {}
        for length in lengths
    }
    expected = {
        length: len(reference(text, **copy.deepcopy(settings[length]))[0]) for length in lengths
    }
    engine = started(pipe)
    stop = threading.Event()
    wrong: list[int] = []

    def cell() -> None:
        while not stop.is_set():
            for length in lengths:
                got = len(pipe(text, **copy.deepcopy(settings[length]))[0])
                if got != expected[length]:
                    wrong.append(got)

    thread = threading.Thread(target=cell)
    thread.start()
    try:
        futures: list[tuple[int | None, Future[Answer]]] = [
            (length, engine.submit([text], settings[length])[0])
            for _ in range(100)
            for length in lengths
        ]
        for length, future in futures:
            assert len(future.result(60).value[0]) == expected[length]
    finally:
        stop.set()
        thread.join()
        engine.stop(drain=False)
    assert not wrong
