"""Example requests: one for each task, in a form that the task accepts."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from notebook_serve import Server
from notebook_serve.http.examples import EXAMPLES, example
from notebook_serve.models.functions.function_model import FunctionModel
from notebook_serve.models.tasks import TASKS

from ..helpers import small_models

Make = Callable[..., Server]


def echo(inputs: list[Any]) -> list[Any]:
    return inputs


def test_every_task_has_a_form() -> None:
    """Each task has an example or a file dialog, in a kind of body that it accepts."""

    class Some(FunctionModel):
        """A model of a task."""

    for task, known in TASKS.items():
        model = Some(echo)
        model.task, model.accepts = task, known.accepts
        found = example(model)
        assert found["way"] in known.accepts
        assert task in EXAMPLES or found["files"]
        json.dumps(found, allow_nan=False)


def test_the_mask_is_the_tokenizers_own(make: Make) -> None:
    """The example uses the mask token of the model's tokenizer."""
    pipe = small_models.pipeline("fill-mask")
    pipe.tokenizer.mask_token = "<gap>"
    server = make(pipe)
    model = server._engine.model
    assert model is not None

    assert example(model)["inputs"] == "Paris is the <gap> of France."
