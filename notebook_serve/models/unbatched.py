"""Pipelines of which nothing is known: called with one input at a time, as their users would."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from .audio_video import sound_for
from .base import Prepared, next_alone
from .images import decoded
from .parameters import parameters_of
from .pipeline_copy import is_message, private_copy, rejecting
from .tasks import TASKS, UNKNOWN, task_of


class AnyPipeline:
    """A pipeline called with one input at a time, exactly as its user would."""

    prepares = True
    batched = False

    def __init__(self, pipe: Any, why: str = UNKNOWN) -> None:
        self.task = task_of(pipe) or type(pipe).__name__
        self.name = f"{self.task}, {type(pipe.model).__name__} (one at a time)"
        self.why = why
        self._runner = private_copy(pipe)
        self._parameters = parameters_of(self.task, pipe._preprocess_params)
        known = TASKS.get(self.task)
        self.accepts = known.accepts if known else frozenset({"text", "json", "bytes"})
        self._sound = sound_for(pipe)

    def split(self, inputs: Any, parameters: Mapping[str, Any]) -> list[Any] | None:
        """A list is many inputs, except a chat."""
        if not isinstance(inputs, list) or (inputs and is_message(inputs[0])):
            return None
        return inputs

    def prepare(self, inputs: Any, parameters: Mapping[str, Any]) -> Prepared:
        """Check that the input can be read; a group of its own keeps every input alone."""
        self._parameters.check(parameters)
        with rejecting(self.task):
            decoded(self.task, inputs, self._sound)
        # Kept as it came: a picture takes far more memory than its file, and may wait for long.
        return Prepared(inputs, 1, next_alone(), parameters)

    def run(self, items: Sequence[Prepared]) -> list[Any]:
        """Call the pipeline on each item."""
        import torch

        with torch.inference_mode():
            # The library writes into the parameters it is given, which a list's items share.
            return [
                self._runner(
                    decoded(self.task, item.inputs, self._sound), **copy.deepcopy(item.parameters)
                )
                for item in items
            ]

    def finish(self, item: Prepared, output: Any) -> Any:
        """The pipeline has done it all."""
        return output
