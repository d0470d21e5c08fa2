"""Pipelines from the name of a task."""

from __future__ import annotations

import pytest

from notebook_serve import OptionError
from notebook_serve.models.model_names import check_task, task_names
from notebook_serve.models.pipeline_builder import build_pipeline


@pytest.mark.parametrize("task", ["fill-mask", "ner", "sentiment-analysis", "demo"])
def test_tasks_and_aliases_are_known(task: str) -> None:
    """Aliases of transformers and the model that ships are tasks too."""
    check_task(task)
    assert task in task_names()


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("fillmask", "did you mean fill-mask"),
        ("text-clasification", "text-classification"),
        ("qqqq", "tasks are "),
    ],
)
def test_an_unknown_task_is_refused_with_the_nearest_names(wrong: str, hint: str) -> None:
    """The error names the value and what to write instead."""
    with pytest.raises(OptionError, match=hint) as caught:
        check_task(wrong)
    assert repr(wrong) in str(caught.value)


def test_the_model_that_ships_is_built() -> None:
    """``demo`` needs no model and no download."""
    assert type(build_pipeline("demo")).__name__ == "FillMaskPipeline"
