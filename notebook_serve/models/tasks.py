"""Tasks of transformers pipelines: the kinds of input and the batching rule of each."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .parameters import ALIASES

TEXT, JSON, BYTES = "text", "json", "bytes"
PADDED = "texts of different lengths are padded; attention masks exclude the padding"
STACKED = "images that the processor resizes to one shape are stacked; there is no padding"
EQUALLY_LONG = "only clips of equal tensor shape are stacked, because padding changes answers"
MIXED = "padding of prompts with images or sound depends on the model"
#: reason not to batch a model that generates its answer, in a task that is batched otherwise
WRITES = "the model generates its answer with beam search, which depends on the whole batch"
#: reason not to batch a pipeline class from outside transformers
UNKNOWN = "batching is not known to be safe for this pipeline class, so inputs run one at a time"


@dataclass(frozen=True)
class Task:
    """Serving rules for the pipelines of one task."""

    #: kinds of request body that can hold an input: ``text``, ``json``, ``bytes``
    accepts: frozenset[str]
    #: True if several inputs may share a forward pass
    batched: bool
    #: the reason for `batched`
    why: str


def _task(accepts: Iterable[str], batched: bool, why: str) -> Task:
    return Task(frozenset(accepts), batched, why)


TASKS = {
    "fill-mask": _task((TEXT, JSON), True, PADDED),
    "text-classification": _task((TEXT, JSON), True, PADDED),
    "token-classification": _task((TEXT, JSON), True, PADDED),
    "zero-shot-classification": _task((TEXT, JSON), True, PADDED),
    "feature-extraction": _task(
        (TEXT, JSON), True, f"{PADDED}; each output is cut back to the length of its text"
    ),
    "text-generation": _task(
        (TEXT, JSON),
        True,
        "prompts are padded on the left; with beams, penalties or stop strings one at a time",
    ),
    "table-question-answering": _task(
        (JSON,), False, "the pipeline itself takes one table at a time"
    ),
    "document-question-answering": _task(
        (JSON,), True, "only document parts of equal token count are stacked; there is no padding"
    ),
    "image-classification": _task((JSON, BYTES), True, STACKED),
    "image-feature-extraction": _task((JSON, BYTES), True, STACKED),
    "image-segmentation": _task((JSON, BYTES), True, STACKED),
    "object-detection": _task((JSON, BYTES), True, STACKED),
    "depth-estimation": _task((JSON, BYTES), True, STACKED),
    "zero-shot-image-classification": _task((JSON, BYTES), True, STACKED),
    "zero-shot-object-detection": _task((JSON, BYTES), True, f"{STACKED}; each label is a part"),
    "keypoint-matching": _task((JSON,), False, "a pair of images is a batch already"),
    "mask-generation": _task((JSON, BYTES), False, "an image is many batches of points already"),
    "video-classification": _task((JSON, BYTES), True, STACKED.replace("images", "clips")),
    "audio-classification": _task((JSON, BYTES), True, EQUALLY_LONG),
    "zero-shot-audio-classification": _task((JSON, BYTES), True, EQUALLY_LONG),
    "automatic-speech-recognition": _task((JSON, BYTES), True, EQUALLY_LONG),
    "text-to-audio": _task(
        (TEXT, JSON),
        False,
        "the length of the sound is known only at its end, and padding would be audible",
    ),
    "image-text-to-text": _task((TEXT, JSON), False, MIXED),
    "any-to-any": _task((TEXT, JSON), False, MIXED),
    "decision": _task((JSON,), False, "the pipeline itself runs one prompt after the other"),
}


def is_pipeline(model: Any) -> bool:
    """Return True for a pipeline of transformers, without importing transformers."""
    base = sys.modules.get("transformers.pipelines.base")
    return base is not None and isinstance(model, base.Pipeline)


def task_of(pipe: Any) -> str:
    """Return the task of a pipeline by its class or base classes, else by its attribute `task`."""
    from transformers.pipelines import SUPPORTED_TASKS

    # An implementation is a class, or the dotted path of one.
    classes = {
        getattr(entry["impl"], "__name__", str(entry["impl"]).rpartition(".")[2]): task
        for task, entry in SUPPORTED_TASKS.items()
    }
    names = [kind.__name__ for kind in type(pipe).__mro__]
    named = str(getattr(pipe, "task", "") or "")
    return next((classes[name] for name in names if name in classes), ALIASES.get(named, named))
