"""Copies of a pipeline: shared weights, separate tokenizers."""

from __future__ import annotations

import copy
import threading
from concurrent.futures import Future
from typing import Any

import pytest

from notebook_serve import (
    Greedy,
    InvalidInput,
    ModelFailed,
)
from notebook_serve.engine.engine import Engine
from notebook_serve.engine.requests import Answer
from notebook_serve.models.factory import as_model
from notebook_serve.models.pipeline_copy import (
    copy_for_thread,
    is_message,
    rejecting,
    resolve_parameters,
)
from notebook_serve.models.text import TextPipeline

from ..helpers import small_models
from ..helpers.engines import make_engine
from ..helpers.task_cases import BY_TASK

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def started(pipe: Any) -> Engine:
    engine = make_engine(pipe, Greedy(), timeout=100.0, name="pipelines")
    engine.start()
    return engine


def test_the_weights_are_not_copied_and_the_tokenizer_is() -> None:
    """The server shares the weights of the user, and no two threads share a tokenizer."""
    pipe = small_models.pipeline("fill-mask")
    model = as_model(pipe)
    assert isinstance(model, TextPipeline)
    copies = [model._reader, model._runner]
    assert all(one.model is pipe.model for one in copies)
    backends = {id(one.tokenizer.backend_tokenizer) for one in [pipe, *copies]}
    assert len(backends) == 3


def test_calls_from_a_cell_do_not_affect_the_tokens_of_the_server() -> None:
    """While a cell tokenises with other settings, the tokens of the server stay correct.

    With a shared tokenizer this fails: every call sets truncation on the shared object, and another
    thread then tokenises with it. The second assertion shows that the first can fail.
    """
    pipe = small_models.pipeline("feature-extraction")
    text = "the queue waits for the server and the model runs slowly " * 4
    expected = pipe.tokenizer(text)["input_ids"]
    server_side = as_model(pipe)
    assert isinstance(server_side, TextPipeline)

    assert wrong_while_disturbed(server_side._reader.tokenizer, pipe.tokenizer, text, expected) == 0
    assert wrong_while_disturbed(pipe.tokenizer, pipe.tokenizer, text, expected) > 0


def wrong_while_disturbed(tokenizer: Any, disturbed: Any, text: str, expected: Any) -> int:
    """Count calls with wrong tokens while other threads use `disturbed`; stop at the first."""
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
    """Requests with different truncation, and pipe(...) in a cell at the same time."""
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


def test_parts_that_share_an_object_still_share_it() -> None:
    """A processor and its pipeline keep one tokenizer between them, in the copy too."""
    pipe = BY_TASK["image-text-to-text"].pipeline()
    copied = copy_for_thread(pipe)

    assert pipe.processor.tokenizer is pipe.tokenizer
    assert copied.processor is not pipe.processor
    assert copied.processor.tokenizer is copied.tokenizer is not pipe.tokenizer


def test_a_request_overrides_the_parameters_of_the_pipeline() -> None:
    """Each step has the pipeline's defaults, and the pipeline itself does not change."""
    pipe = small_models.pipeline("fill-mask")
    pipe._postprocess_params = {"top_k": 3}

    assert resolve_parameters(pipe, "")[2] == {"top_k": 3}
    assert resolve_parameters(pipe, '{"top_k": 7}')[2] == {"top_k": 7}
    assert pipe._postprocess_params == {"top_k": 3}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"role": "user", "content": "a"}, True),
        ({"role": "user"}, False),
        ({"content": "a"}, False),
        ("role content", False),
        (["role", "content"], False),
    ],
)
def test_a_message_has_a_role_and_a_content(value: object, expected: bool) -> None:
    """Other dicts are inputs of other kinds."""
    assert is_message(value) is expected


def test_errors_of_preprocessing_become_invalid_input() -> None:
    """Errors of this package and want of memory keep their class."""
    with pytest.raises(InvalidInput, match="no mask") as caught, rejecting("fill-mask"):
        raise ValueError("no mask")
    assert isinstance(caught.value.__cause__, ValueError)
    for error in (MemoryError(), ModelFailed("x")):
        with pytest.raises(type(error)), rejecting("fill-mask"):
            raise error
