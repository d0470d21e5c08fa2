"""The tasks of transformers: in which form each takes its input, and whether it is batched."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .parameters import ALIASES

TEXT, JSON, BYTES = "text", "json", "bytes"
PADDED = "texts of unlike length are padded, and their attention masks keep the padding out"
STACKED = "pictures that their processor makes equally large are stacked; nothing is padded"
EQUALLY_LONG = (
    "only clips that become tensors of one shape are stacked, because padding changes an answer"
)
MIXED = "how a prompt with pictures or sound may be padded depends on the model"
#: why a task that is batched otherwise is not, where its model writes its answer
WRITES = "the model writes its answer token by token with beams, which looks at a whole batch"
#: why a class that is not the library's own is not batched
UNKNOWN = "what this pipeline does with a batch is not known, so it is called as its user would"


@dataclass(frozen=True)
class Task:
    """How the pipelines of one task are served."""

    #: the kinds of body that an input may come in: ``text``, ``json``, ``bytes``
    accepts: frozenset[str]
    #: whether several inputs may share a forward
    batched: bool
    #: why they may, or may not
    why: str


def _task(accepts: Iterable[str], batched: bool, why: str) -> Task:
    return Task(frozenset(accepts), batched, why)


TASKS = {
    "fill-mask": _task((TEXT, JSON), True, PADDED),
    "text-classification": _task((TEXT, JSON), True, PADDED),
    "token-classification": _task((TEXT, JSON), True, PADDED),
    "zero-shot-classification": _task((TEXT, JSON), True, PADDED),
    "feature-extraction": _task((TEXT, JSON), True, f"{PADDED}; each is cut back to its length"),
    "text-generation": _task(
        (TEXT, JSON),
        True,
        "prompts are padded in front; with beams, penalties or stop strings one at a time",
    ),
    "table-question-answering": _task(
        (JSON,), False, "the pipeline itself takes one table at a time"
    ),
    "document-question-answering": _task(
        (JSON,), True, "only parts of documents with as many tokens are stacked; nothing is padded"
    ),
    "image-classification": _task((JSON, BYTES), True, STACKED),
    "image-feature-extraction": _task((JSON, BYTES), True, STACKED),
    "image-segmentation": _task((JSON, BYTES), True, STACKED),
    "object-detection": _task((JSON, BYTES), True, STACKED),
    "depth-estimation": _task((JSON, BYTES), True, STACKED),
    "zero-shot-image-classification": _task((JSON, BYTES), True, STACKED),
    "zero-shot-object-detection": _task((JSON, BYTES), True, f"{STACKED}; each label is a part"),
    "keypoint-matching": _task((JSON,), False, "a pair of pictures is a batch already"),
    "mask-generation": _task((JSON, BYTES), False, "a picture is many batches of points already"),
    "video-classification": _task((JSON, BYTES), True, STACKED.replace("pictures", "clips")),
    "audio-classification": _task((JSON, BYTES), True, EQUALLY_LONG),
    "zero-shot-audio-classification": _task((JSON, BYTES), True, EQUALLY_LONG),
    "automatic-speech-recognition": _task((JSON, BYTES), True, EQUALLY_LONG),
    "text-to-audio": _task(
        (TEXT, JSON),
        False,
        "how long the sound gets is known at its end, and padding would be heard",
    ),
    "image-text-to-text": _task((TEXT, JSON), False, MIXED),
    "any-to-any": _task((TEXT, JSON), False, MIXED),
    "decision": _task((JSON,), False, "the pipeline itself runs one prompt after the other"),
}


def task_of(pipe: Any) -> str:
    """The task of a pipeline, by its class or those that it is made from; else what it says."""
    from transformers.pipelines import SUPPORTED_TASKS

    # An implementation is a class, or the dotted path of one.
    classes = {
        getattr(entry["impl"], "__name__", str(entry["impl"]).rpartition(".")[2]): task
        for task, entry in SUPPORTED_TASKS.items()
    }
    names = [kind.__name__ for kind in type(pipe).__mro__]
    said = str(getattr(pipe, "task", "") or "")
    return next((classes[name] for name in names if name in classes), ALIASES.get(said, said))
