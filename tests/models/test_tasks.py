"""The table of tasks."""

from __future__ import annotations

import pytest

from notebook_serve.models.parameters import TASKS as PARAMETERS
from notebook_serve.models.tasks import TASKS, task_of

from ..helpers import small_models
from ..helpers.task_cases import (
    BY_TASK,
)


def test_every_task_of_the_library_is_known() -> None:
    """A new task of transformers needs a row, parameters and an example."""
    from transformers.pipelines import SUPPORTED_TASKS

    assert set(SUPPORTED_TASKS) == set(TASKS) == set(PARAMETERS) == set(BY_TASK)


def test_the_task_follows_from_the_class() -> None:
    """The class decides, whatever the attribute `task` is."""
    from transformers import TextClassificationPipeline

    plain = small_models.pipeline("text-classification")

    class Mine(TextClassificationPipeline):  # type: ignore[misc]
        """A subclass."""

    for kind in (TextClassificationPipeline, Mine):
        made = kind(model=plain.model, tokenizer=plain.tokenizer, task="sentiment-analysis")
        assert task_of(made) == "text-classification"


@pytest.mark.parametrize("task", TASKS)
def test_each_task_has_a_reason_and_a_kind_of_body(task: str) -> None:
    """JSON carries every input; `server.model` shows the reason."""
    assert "json" in TASKS[task].accepts <= {"text", "json", "bytes"}
    assert TASKS[task].why


def test_a_class_of_another_library_keeps_the_name_that_it_has() -> None:
    """The attribute `task` is the last resort, and aliases are resolved."""

    class Pipeline:
        def __init__(self, task: str | None) -> None:
            self.task = task

    assert task_of(Pipeline("ner")) == "token-classification"
    assert task_of(Pipeline("weather")) == "weather"
    assert task_of(Pipeline(None)) == ""
