"""Pipelines that run one input at a time, because batching is not known to be safe."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from .audio_video import make_sample_reader
from .base import Prepared, unique_group_name
from .functions.ownership import own
from .images import decode_input
from .parameters import parameters_of
from .pipeline_copy import copy_for_thread, is_message, rejecting
from .tasks import TASKS, UNKNOWN, task_of


class AnyPipeline:
    """A pipeline that is called as ``pipe(input, **parameters)``, one input at a time."""

    prepares = True
    batched = False

    def __init__(self, pipe: Any, why: str = UNKNOWN) -> None:
        self.task = task_of(pipe) or type(pipe).__name__
        self.name = f"{self.task}, {type(pipe.model).__name__} (one at a time)"
        self.why = why
        self._runner = copy_for_thread(pipe)
        self._parameters = parameters_of(self.task, pipe._preprocess_params)
        known = TASKS.get(self.task)
        self.accepts = known.accepts if known else frozenset({"text", "json", "bytes"})
        self._sound = make_sample_reader(pipe)

    def split(self, inputs: Any, parameters: Mapping[str, Any]) -> list[Any] | None:
        """Return the items of a list, except of a chat, which is one input."""
        if not isinstance(inputs, list) or (inputs and is_message(inputs[0])):
            return None
        return inputs

    def prepare(self, inputs: Any, parameters: Mapping[str, Any]) -> Prepared:
        """Check that the input can be decoded; put it into a group of its own."""
        self._parameters.check(parameters)
        with rejecting(self.task):
            decode_input(self.task, inputs, self._sound)
        # Keep the file: a decoded image takes far more memory while the request is in the queue.
        return Prepared(inputs, 1, unique_group_name(), parameters)

    def run(self, items: Sequence[Prepared]) -> list[Any]:
        """Call the pipeline with each item."""
        import torch

        with torch.inference_mode():
            # A pipeline of the user's may return the same object for several inputs.
            return [own(self._call(item)) for item in items]

    def _call(self, item: Prepared) -> Any:
        value = decode_input(self.task, item.inputs, self._sound)
        # transformers modifies the parameters, and all inputs of one list share them.
        return self._runner(value, **copy.deepcopy(item.parameters))

    def finish(self, item: Prepared, output: Any) -> Any:
        """Return the output unchanged: the pipeline has postprocessed it."""
        return output
