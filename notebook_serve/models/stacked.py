"""Pipelines that turn inputs into tensors: equal shapes are stacked into one forward pass.

There is no padding, so the only condition is that a model treats the rows of a batch independently.
Images that the processor resizes to one shape share a batch, and so do clips of equal length.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

from ..errors import InvalidInput
from .audio_video import make_sample_reader, open_clip
from .base import Prepared, unique_group_name
from .images import AUDIO_TASKS, decode_input
from .parameters import parameters_of
from .pipeline_copy import copy_for_thread, is_message, rejecting, resolve_parameters
from .tasks import TASKS, WRITES, task_of

#: most parts in one forward pass, unless more inputs than this share the batch
MOST_PARTS = 16
#: tasks that run the model in preprocess, which must happen on the worker thread
PREPARED_BY_MODEL = {"mask-generation"}


class StackedPipeline:
    """A pipeline that preprocesses on arrival and stacks equal shapes if its task is batched.

    Answers equal ``pipe(x)`` for each input in every batch. The length of an input is the number of
    its parts: the chunks of a recording, the labels to detect.
    """

    prepares = True

    def __init__(self, pipe: Any) -> None:
        self.task = task_of(pipe)
        known = TASKS[self.task]
        generates = known.batched and _generates(pipe)
        self.batched = known.batched and not generates
        self.why = WRITES if generates else known.why
        self.accepts = known.accepts
        alone = "" if self.batched else " (one at a time)"
        self.name = f"{self.task}, {type(pipe.model).__name__}{alone}"
        self._reader, self._runner = _copy(pipe), _copy(pipe)
        self._reader_keywords = lru_cache(128)(partial(resolve_parameters, self._reader))
        self._runner_keywords = lru_cache(128)(partial(resolve_parameters, self._runner))
        self._parameters = parameters_of(self.task, pipe._preprocess_params)
        self._sound = make_sample_reader(pipe)
        self._has_parts = _is_chunked(pipe)

    @staticmethod
    def fits(pipe: Any) -> bool:
        """Return True if the steps of `pipe`, an original of transformers, can run separately."""
        task = task_of(pipe)
        return task in TASKS and task not in PREPARED_BY_MODEL

    def split(self, inputs: Any, parameters: Mapping[str, Any]) -> list[Any] | None:
        """Return the items of a list, except of a chat, a pair of images or samples: one input."""
        if not isinstance(inputs, list) or (inputs and is_message(inputs[0])):
            return None
        if self.task == "keypoint-matching" and not any(isinstance(i, list) for i in inputs):
            return None
        if self.task in AUDIO_TASKS and inputs and isinstance(inputs[0], (int, float)):
            return None
        return inputs

    def prepare(self, inputs: Any, parameters: Mapping[str, Any]) -> Prepared:
        """Preprocess one input with the tokenizer and processors of this thread."""
        self._parameters.check(parameters)
        key = json.dumps(parameters, sort_keys=True) if parameters else ""
        with rejecting(self.task):
            preprocess, _, _ = self._reader_keywords(key)
            source = self._source(
                decode_input(self.task, inputs, self._sound), parameters, preprocess
            )
            # transformers modifies some of the parameters.
            result = self._reader.preprocess(source, **copy.deepcopy(preprocess))
            parts = [dict(part) for part in (result if self._has_parts else [result])]
            if not parts:
                raise InvalidInput(
                    f"{self.task} found nothing in the input; send a longer or another one"
                )
        if self.batched:
            shapes = sorted({str(_shapes(part)) for part in parts})
            group = f"{key} [{'; '.join(shapes)}]"
        else:
            group = unique_group_name()
        return Prepared(parts, len(parts), group, parameters, None, key)

    def _source(
        self, value: Any, parameters: Mapping[str, Any], preprocess: Mapping[str, Any]
    ) -> Any:
        """Return the argument that the pipeline's call would pass to its preprocess."""
        if isinstance(value, list) and value and is_message(value[0]):
            # any-to-any has its own `Chat` class and accepts no other.
            module = sys.modules[type(self._reader).__module__]
            return module.Chat(value)
        if self.task == "zero-shot-object-detection":
            return {"image": value, "candidate_labels": parameters["candidate_labels"]}
        if self.task == "table-question-answering":
            [table] = self._reader._args_parser(copy.copy(value))
            return table
        if self.task == "video-classification":
            return self._clip(value, preprocess)
        if self.task == "text-to-audio" and not isinstance(value, str):
            raise InvalidInput(f"{self.task} takes a string, not {type(value).__name__}")
        return value

    def _clip(self, value: Any, preprocess: Mapping[str, Any]) -> Any:
        if not isinstance(value, bytes):
            raise InvalidInput(f"{self.task} takes the bytes of a video")
        frames = preprocess.get("num_frames") or self._reader.model.config.num_frames
        opened = open_clip(value, frames)
        # A video processor opens paths only, so it gets frames; an image processor gets a file.
        return opened if self._reader.video_processor is None else opened.frames()

    def run(self, items: Sequence[Prepared]) -> list[Any]:
        """Run one forward pass for each shape; return the outputs of the parts of each item."""
        import torch

        _, forward, _ = self._runner_keywords(items[0].key)
        parts = [part for item in items for part in item.inputs]
        by_shape: dict[str, list[int]] = {}
        for i, part in enumerate(parts):
            by_shape.setdefault(str(_shapes(part)) if self.batched else str(i), []).append(i)
        most = max(MOST_PARTS, len(items))
        outputs: list[Any] = [None] * len(parts)
        with torch.inference_mode():
            for places in by_shape.values():
                for start in range(0, len(places), most):
                    some = places[start : start + most]
                    results = self._forward([parts[i] for i in some], forward)
                    for i, output in zip(some, results, strict=True):
                        outputs[i] = output
        rest = iter(outputs)
        return [[next(rest) for _ in item.inputs] for item in items]

    def _forward(
        self, parts: Sequence[Mapping[str, Any]], forward: Mapping[str, Any]
    ) -> Iterable[Any]:
        """Return the outputs of parts of one shape, each as if it had run alone."""
        options = copy.deepcopy(forward)
        if len(parts) == 1:
            return [self._runner.forward(dict(parts[0]), **options)]
        output = self._runner.forward(_stack(parts), **options)
        return [_take_row(output, i, len(parts)) for i in range(len(parts))]

    def finish(self, item: Prepared, output: Any) -> Any:
        """Postprocess the outputs of one item into the shape that ``pipe(x)`` returns."""
        import torch

        _, _, postprocess = self._reader_keywords(item.key)
        with torch.inference_mode():
            answer = self._reader.postprocess(
                output if self._has_parts else output[0], **copy.deepcopy(postprocess)
            )
        return _clone_inference_tensors(answer)


def _copy(pipe: Any) -> Any:
    copied = copy_for_thread(pipe)
    if hasattr(pipe, "label_token_ids"):
        # The original function is bound to the original tokenizer.
        from transformers.decision import label_token_ids

        copied.label_token_ids = lru_cache(128)(partial(label_token_ids, copied.tokenizer))
    return copied


def _generates(pipe: Any) -> bool:
    """Return True if the pipeline calls ``generate`` of its model."""
    can = getattr(pipe.model, "can_generate", None)
    return bool(pipe._pipeline_calls_generate and can is not None and can())


def _is_chunked(pipe: Any) -> bool:
    from transformers.pipelines.base import ChunkPipeline

    return isinstance(pipe, ChunkPipeline)


def _shapes(part: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the names, shapes and types that parts must share to be stacked."""
    return sorted(
        (name, (tuple(value.shape), str(value.dtype)) if hasattr(value, "dtype") else "")
        for name, value in part.items()
    )


def _stack(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Join parts of one shape: concatenate tensors, collect other values in lists."""
    import torch

    return {
        name: torch.cat([part[name] for part in parts])
        if isinstance(value, torch.Tensor)
        else [part[name] for part in parts]
        for name, value in parts[0].items()
    }


def _take_row(value: Any, i: int, count: int) -> Any:
    """Return row `i` of an output of `count` rows, as the output of a batch of one."""
    if isinstance(value, Mapping):
        return type(value)({name: _take_row(item, i, count) for name, item in value.items()})  # type: ignore[call-arg]
    if isinstance(value, list):
        return value[i] if len(value) == count else value
    if isinstance(value, tuple):  # of layers, each with all rows
        return tuple(_take_row(item, i, count) for item in value)
    if hasattr(value, "shape") and value.ndim and value.shape[0] == count:
        return value[i : i + 1]
    return value


def _clone_inference_tensors(value: Any) -> Any:
    """Replace tensors of inference mode, which callers could not modify."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.clone() if value.is_inference() else value
    if type(value) is dict:
        return {name: _clone_inference_tensors(item) for name, item in value.items()}
    return [_clone_inference_tensors(item) for item in value] if type(value) is list else value
