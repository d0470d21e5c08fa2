"""Pipelines whose inputs become tensors: those of one shape are stacked, and run as one forward.

Nothing is padded, so nothing has to be known of a model but that it treats the rows of a batch
apart: pictures of a processor that makes them equally large go together, and clips of one length.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

from ..errors import InvalidInput
from .audio_video import clip, sound_for
from .base import Prepared, next_alone
from .images import AUDIO_TASKS, decoded
from .parameters import parameters_of
from .pipeline_copy import is_message, private_copy, rejecting, resolve
from .tasks import TASKS, WRITES, task_of

#: of an input's many parts at most so many run at once, unless more inputs share the batch
MOST_PARTS = 16
#: tasks whose pipeline has the model work while it prepares: it must do so on the worker's thread
PREPARED_BY_MODEL = {"mask-generation"}


class StackedPipeline:
    """A task that is prepared on arrival; where the task allows it, equal shapes are stacked.

    Answers equal ``pipe(x)`` for each input, whatever batch it rode in. The length of an input is
    the number of its parts: the chunks of a recording, the labels that are looked for.
    """

    prepares = True

    def __init__(self, pipe: Any) -> None:
        self.task = task_of(pipe)
        known = TASKS[self.task]
        writes = known.batched and _writes(pipe)
        self.batched = known.batched and not writes
        self.why = WRITES if writes else known.why
        self.accepts = known.accepts
        alone = "" if self.batched else " (one at a time)"
        self.name = f"{self.task}, {type(pipe.model).__name__}{alone}"
        self._reader, self._runner = _private(pipe), _private(pipe)
        self._reading = lru_cache(128)(partial(resolve, self._reader))
        self._running = lru_cache(128)(partial(resolve, self._runner))
        self._parameters = parameters_of(self.task, pipe._preprocess_params)
        self._sound = sound_for(pipe)
        self._parts = _is_chunked(pipe)

    @staticmethod
    def fits(pipe: Any) -> bool:
        """Whether the steps of `pipe`, which is the library's own, are known to go apart."""
        task = task_of(pipe)
        return task in TASKS and task not in PREPARED_BY_MODEL

    def split(self, inputs: Any, parameters: Mapping[str, Any]) -> list[Any] | None:
        """A list is many inputs, except a chat, a pair of pictures, and samples."""
        if not isinstance(inputs, list) or (inputs and is_message(inputs[0])):
            return None
        if self.task == "keypoint-matching" and not any(isinstance(i, list) for i in inputs):
            return None
        if self.task in AUDIO_TASKS and inputs and isinstance(inputs[0], (int, float)):
            return None
        return inputs

    def prepare(self, inputs: Any, parameters: Mapping[str, Any]) -> Prepared:
        """Make tensors of one input with the desk's own tokenizer and processors."""
        self._parameters.check(parameters)
        key = json.dumps(parameters, sort_keys=True) if parameters else ""
        with rejecting(self.task):
            preprocess, _, _ = self._reading(key)
            source = self._source(decoded(self.task, inputs, self._sound), parameters, preprocess)
            # The library writes into some of the parameters that it is given.
            made = self._reader.preprocess(source, **copy.deepcopy(preprocess))
            parts = [dict(part) for part in (made if self._parts else [made])]
            if not parts:
                raise InvalidInput(f"{self.task} finds nothing in the input")
        if self.batched:
            shapes = sorted({str(_shapes(part)) for part in parts})
            group = f"{key} [{'; '.join(shapes)}]"
        else:
            group = next_alone()
        return Prepared(parts, len(parts), group, parameters, None, key)

    def _source(
        self, value: Any, parameters: Mapping[str, Any], preprocess: Mapping[str, Any]
    ) -> Any:
        """What the pipeline's call would hand to its preprocess."""
        if isinstance(value, list) and value and is_message(value[0]):
            # One task has a class for chats of its own, and knows no other.
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
        made = clip(value, frames)
        # A video processor opens paths only, and takes frames; an image processor needs the file.
        return made if self._reader.video_processor is None else made.frames()

    def run(self, items: Sequence[Prepared]) -> list[Any]:
        """One forward for the parts of each shape; gives each item the outputs of its parts."""
        import torch

        _, forward, _ = self._running(items[0].key)
        parts = [part for item in items for part in item.inputs]
        alike: dict[str, list[int]] = {}
        for i, part in enumerate(parts):
            alike.setdefault(str(_shapes(part)) if self.batched else str(i), []).append(i)
        most = max(MOST_PARTS, len(items))
        outputs: list[Any] = [None] * len(parts)
        with torch.inference_mode():
            for places in alike.values():
                for start in range(0, len(places), most):
                    some = places[start : start + most]
                    made = self._forward([parts[i] for i in some], forward)
                    for i, output in zip(some, made, strict=True):
                        outputs[i] = output
        rest = iter(outputs)
        return [[next(rest) for _ in item.inputs] for item in items]

    def _forward(
        self, parts: Sequence[Mapping[str, Any]], forward: Mapping[str, Any]
    ) -> Iterable[Any]:
        """The outputs of parts of one shape, as if each had run alone."""
        options = copy.deepcopy(forward)
        if len(parts) == 1:
            return [self._runner.forward(dict(parts[0]), **options)]
        output = self._runner.forward(_stacked(parts), **options)
        return [_row(output, i, len(parts)) for i in range(len(parts))]

    def finish(self, item: Prepared, output: Any) -> Any:
        """Postprocess one item's outputs, in the shape that ``pipe(x)`` gives for it alone."""
        import torch

        _, _, postprocess = self._reading(item.key)
        with torch.inference_mode():
            answer = self._reader.postprocess(
                output if self._parts else output[0], **copy.deepcopy(postprocess)
            )
        return _usable(answer)


def _private(pipe: Any) -> Any:
    mine = private_copy(pipe)
    if hasattr(pipe, "label_token_ids"):
        # A function that was made with the tokenizer of the original.
        from transformers.decision import label_token_ids

        mine.label_token_ids = lru_cache(128)(partial(label_token_ids, mine.tokenizer))
    return mine


def _writes(pipe: Any) -> bool:
    """Whether the pipeline has its model write an answer, step by step."""
    can = getattr(pipe.model, "can_generate", None)
    return bool(pipe._pipeline_calls_generate and can is not None and can())


def _is_chunked(pipe: Any) -> bool:
    from transformers.pipelines.base import ChunkPipeline

    return isinstance(pipe, ChunkPipeline)


def _shapes(part: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What must be equal of parts that are stacked."""
    return sorted(
        (name, (tuple(value.shape), str(value.dtype)) if hasattr(value, "dtype") else "")
        for name, value in part.items()
    )


def _stacked(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Parts of one shape as one: tensors under each other, anything else in a list."""
    import torch

    return {
        name: torch.cat([part[name] for part in parts])
        if isinstance(value, torch.Tensor)
        else [part[name] for part in parts]
        for name, value in parts[0].items()
    }


def _row(value: Any, i: int, count: int) -> Any:
    """Row `i` of an output of `count` rows, as the output of a batch of one."""
    if isinstance(value, Mapping):
        return type(value)({name: _row(item, i, count) for name, item in value.items()})  # type: ignore[call-arg]
    if isinstance(value, list):
        return value[i] if len(value) == count else value
    if isinstance(value, tuple):  # of layers, each with all rows
        return tuple(_row(item, i, count) for item in value)
    if hasattr(value, "shape") and value.ndim and value.shape[0] == count:
        return value[i : i + 1]
    return value


def _usable(value: Any) -> Any:
    """An answer whose tensors a caller may change: those of inference mode are of little use."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.clone() if value.is_inference() else value
    if type(value) is dict:
        return {name: _usable(item) for name, item in value.items()}
    return [_usable(item) for item in value] if type(value) is list else value
