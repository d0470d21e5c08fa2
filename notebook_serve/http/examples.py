"""An example request for each task, shown in the page's form at first."""

from __future__ import annotations

from typing import Any

from ..models.base import Model
from ..models.images import AUDIO_TASKS, IMAGE_TASKS

LABELS = {"candidate_labels": ["travel", "food", "music"]}
#: inputs and required parameters, by task
EXAMPLES: dict[str, tuple[Any, dict[str, Any]]] = {
    "fill-mask": ("Paris is the [MASK] of France.", {}),
    "text-classification": ("The queue was short and the answer came at once.", {}),
    "token-classification": ("Ada Lovelace lived in London.", {}),
    "zero-shot-classification": ("The train was two hours late.", LABELS),
    "feature-extraction": ("A sentence to embed.", {}),
    "text-generation": ("Once upon a time", {"max_new_tokens": 20}),
    "text-to-audio": ("Your request is the next one.", {}),
    "image-text-to-text": ("Describe a queue in one sentence.", {}),
    "any-to-any": ("Describe a queue in one sentence.", {}),
    "table-question-answering": (
        {
            "query": "Which city has most people?",
            "table": {"city": ["Paris", "Rome"], "people": ["2100000", "2800000"]},
        },
        {},
    ),
    "document-question-answering": (
        {"question": "What is the total?", "image": "the picture as base64"},
        {},
    ),
    "keypoint-matching": (["a picture as base64", "another picture as base64"], {}),
    "decision": ({"state": "The queue has 12 requests.", "questions": {"long": "Is it long?"}}, {}),
    "zero-shot-image-classification": ("", {"candidate_labels": ["a cat", "a dog"]}),
    "zero-shot-object-detection": ("", {"candidate_labels": ["a cat", "a dog"]}),
    "zero-shot-audio-classification": ("", {"candidate_labels": ["speech", "music"]}),
}
#: media types of files that an answer may be, by task; a function may return any
FILES = {
    "depth-estimation": ["image/png"],
    "image-segmentation": ["image/png"],
    "text-to-audio": ["audio/wav"],
    "function": ["image/png", "audio/wav"],
}


def example(model: Model) -> dict[str, Any]:
    """Return an example request to `model` for a form, as plain JSON values.

    ``way`` is the first kind of body to offer, and ``files`` the filter of a file dialog.
    ``answers`` has the media types of files that an answer may be.
    """
    inputs, parameters = EXAMPLES.get(model.task, ("your text", {}))
    if model.task == "fill-mask":
        inputs = inputs.replace("[MASK]", _mask_token(model))
    return {
        "task": model.task,
        "accepts": sorted(model.accepts),
        "way": _first_kind(model, inputs),
        "inputs": inputs,
        "parameters": parameters,
        "files": _file_filter(model.task),
        "answers": FILES.get(model.task, []),
    }


def _mask_token(model: Model) -> str:
    """Return the mask token of the model's tokenizer."""
    tokenizer = getattr(getattr(model, "_reader", None), "tokenizer", None)
    return str(getattr(tokenizer, "mask_token", None) or "[MASK]")


def _first_kind(model: Model, inputs: Any) -> str:
    if "text" in model.accepts and isinstance(inputs, str):
        return "text"
    return "bytes" if "bytes" in model.accepts else "json"


def _file_filter(task: str) -> str:
    if task in IMAGE_TASKS:
        return "image/*"
    if task in AUDIO_TASKS:
        return "audio/*"
    return "video/*" if task == "video-classification" else ""
