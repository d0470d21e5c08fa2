"""Advice for objects that cannot be served; more cases are in tests/validation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from notebook_serve.models.unservable import task_of_class, why_unservable


def numbers() -> Iterator[int]:
    yield 1


async def later() -> int:
    return 1


async def letters() -> AsyncIterator[str]:
    yield "a"


class Encoding:
    """A tokenizer of another library."""

    def encode(self, text: str) -> list[int]:
        """Return no tokens."""
        return []

    def decode(self, tokens: list[int]) -> str:
        """Return no text."""
        return ""


class Estimator:
    """A model with `predict` that cannot be called."""

    def predict(self, inputs: list[Any]) -> list[Any]:
        """Return the inputs."""
        return inputs


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("BertForMaskedLM", "fill-mask"),
        ("BertForSequenceClassification", "text-classification"),
        ("GPT2LMHeadModel", "text-generation"),
        ("LlamaForCausalLM", "text-generation"),
        ("WhisperForSpeechSeq2Seq", "automatic-speech-recognition"),
        ("BertModel", "feature-extraction"),
        ("Mystery", "TASK"),
    ],
)
def test_the_task_follows_from_the_class_name(name: str, task: str) -> None:
    """The end of the name decides."""
    assert task_of_class(name) == task


def test_a_generator_and_a_coroutine_run_once() -> None:
    """The function that creates them would be servable, or have advice of its own."""
    coroutine = later()
    try:
        for thing in (numbers(), coroutine, letters()):
            assert "runs only once; give the function that creates it" in why_unservable(thing)
    finally:
        coroutine.close()


@pytest.mark.parametrize(
    ("thing", "advice"),
    [
        (Encoding(), "tokenizer=tokenizer"),
        (Estimator(), "Estimator cannot be called; write serve(model.predict)"),
        (Estimator, "Estimator is a class; give an instance: serve(Estimator(...))"),
        (pytest, "pytest is a Python module; give a pipeline or a function from it"),
    ],
    ids=["tokenizer", "estimator", "class", "module"],
)
def test_the_advice_holds_a_line_that_works(thing: Any, advice: str) -> None:
    """Each sentence names the object and the alternative."""
    assert advice in why_unservable(thing)


@pytest.mark.parametrize("thing", [len, list, tuple, Estimator().predict, SimpleNamespace(), 3])
def test_without_advice_the_answer_is_empty(thing: Any) -> None:
    """Functions are servable; for other objects the caller has a general error."""
    assert why_unservable(thing) == ""
