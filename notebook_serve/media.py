"""Inputs that are not text: bytes become images, and no string is ever opened as a path or URL.

Pipelines for images, audio and video open the strings that they are given. A client must not
choose what this machine opens, so strings are refused there, or read as base64.
"""

from __future__ import annotations

import base64
import binascii
import io
from typing import Any

from .errors import InvalidInput

IMAGE_TASKS = {
    "depth-estimation",
    "image-classification",
    "image-feature-extraction",
    "image-segmentation",
    "mask-generation",
    "object-detection",
    "zero-shot-image-classification",
    "zero-shot-object-detection",
}
AUDIO_TASKS = {
    "audio-classification",
    "automatic-speech-recognition",
    "zero-shot-audio-classification",
}
#: tasks that mix text with what could be opened: strings only under the keys that mean text
MIXED_TASKS = {
    "any-to-any",
    "decision",
    "document-question-answering",
    "image-text-to-text",
    "keypoint-matching",
    "video-classification",
}
TEXT_KEYS = {"question", "text", "role", "type", "word_boxes"}
IMAGE_KEYS = {"image", "images"}
#: the keys that an object may have, where the pipeline would take others for options
MIXED_KEYS = {
    *("role", "type", "content", "text", "question", "word_boxes"),
    *("image", "images", "video", "videos", "audio"),
}
WAVE_KEYS = {"raw", "array", "sampling_rate"}
KEYS = {
    **dict.fromkeys(AUDIO_TASKS, WAVE_KEYS),
    **dict.fromkeys(
        ("any-to-any", "document-question-answering", "image-text-to-text"), MIXED_KEYS
    ),
}


def decoded(task: str, value: Any) -> Any:
    """`value` as the task's pipeline may have it: images for bytes and base64, and no paths."""
    if task in IMAGE_TASKS:
        return _image(value)
    made = value
    if task in AUDIO_TASKS:
        made = _bytes(value) if isinstance(value, (str, bytes)) else _without_strings(value)
    elif task in MIXED_TASKS:
        made = _mixed(value, "text" if task in ("any-to-any", "image-text-to-text") else "")
    if task in KEYS:
        _check_keys(task, value)
    return made


def _check_keys(task: str, value: Any) -> None:
    """Refuse an object with keys that the parameters' allow-list would not see."""
    if isinstance(value, dict):
        unknown = set(value) - KEYS[task]
        if unknown:
            known = ", ".join(sorted(KEYS[task]))
            raise InvalidInput(f"{task} takes no {min(map(str, unknown))!r}; it takes: {known}")
    if isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            _check_keys(task, item)


def _image(value: Any) -> Any:
    if not isinstance(value, (str, bytes)):
        return _without_strings(value)
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(_bytes(value)))
        image.load()
    except Exception as error:
        raise InvalidInput(f"the input is no image that can be read: {error}") from error
    return image


def _bytes(value: str | bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    encoded = value.partition(",")[2] if value.startswith("data:") else value
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(
            "a string here must be base64; paths and URLs are never opened, send the bytes"
        ) from error


def _mixed(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        return {name: _mixed(item, str(name)) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_mixed(item, key) for item in value]
    if isinstance(value, (str, bytes)) and key in IMAGE_KEYS:
        return _image(value)
    if isinstance(value, str) and key not in TEXT_KEYS | {"content"}:
        raise InvalidInput(f"a string is not taken under {key!r}: paths and URLs are never opened")
    return value


def _without_strings(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_strings(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_strings(item) for item in value]
    if isinstance(value, str):
        raise InvalidInput("paths and URLs are never opened; send the bytes")
    return value
