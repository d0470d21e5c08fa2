"""Decoding of inputs with images, sound or video; no string is ever opened as a path or URL.

Pipelines for images, audio and video open strings as paths or URLs. A client must not choose what
this machine opens. So a string is read as base64 or rejected.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Callable
from typing import Any

from ..errors import InvalidInput, ServeError
from ..extras import require

#: most pixels of an image; below the number at which Pillow warns
MOST_PIXELS = 64_000_000
#: Pillow's names of formats that it decodes without another program
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "MPO", "AVIF")
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
#: tasks that mix text with files: strings are allowed only under keys that mean text
MIXED_TASKS = {"any-to-any", "document-question-answering", "image-text-to-text"}
TEXT_KEYS = {"question", "text", "role", "type", "word_boxes"}
IMAGE_KEYS = {"image", "images"}
#: all keys that an object may have; a pipeline would take others for options
MIXED_KEYS = {
    *("role", "type", "content", "text", "question", "word_boxes"),
    *("image", "images", "image_url", "url", "video", "videos", "audio"),
}
WAVE_KEYS = {"raw", "array", "sampling_rate"}
DECISION_KEYS = {"state", "questions", "assets"}

#: a function from the bytes of a file, or from samples, to samples at the rate of the model
Sound = Callable[[Any], Any]


def decode_input(task: str, value: Any, sound: Sound | None = None) -> Any:
    """Decode `value` for the pipeline of `task`: bytes and base64 become images or sound.

    `sound` converts audio to samples; it is None if the model takes no sound. Raises `InvalidInput`
    for strings that could be paths or URLs, and for files that cannot be decoded.
    """
    if task in IMAGE_TASKS:
        return _decode_image(value)
    if task == "keypoint-matching":
        return _decode_pair(value)
    if task == "decision":
        return _decode_decision(value)
    decoded = value
    if task == "video-classification":
        decoded = _to_bytes(value) if isinstance(value, (str, bytes)) else _reject_strings(value)
    elif task in AUDIO_TASKS:
        decoded = _to_bytes(value) if isinstance(value, (str, bytes)) else _reject_strings(value)
        _check_keys(task, value, WAVE_KEYS)
        decoded = sound(decoded) if sound else decoded
    elif task in MIXED_TASKS:
        text = "text" if task in ("any-to-any", "image-text-to-text") else ""
        decoded = _decode_mixed(value, text, sound)
        _check_keys(task, value, MIXED_KEYS)
    return decoded


def _check_keys(task: str, value: Any, known: set[str]) -> None:
    """Reject objects with keys that bypass the allow-list of parameters."""
    if isinstance(value, dict):
        unknown = set(value) - known
        if unknown:
            names = ", ".join(sorted(known))
            raise InvalidInput(
                f"{task} does not take {min(map(str, unknown))!r}; it takes: {names}"
            )
    if isinstance(value, (dict, list, tuple)):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(
                item, (dict, list, tuple)
            ):  # skip samples, which may be millions of numbers
                _check_keys(task, item, WAVE_KEYS if name == "audio" else known)


def _decode_image(value: Any) -> Any:
    if not isinstance(value, (str, bytes)):
        if hasattr(_reject_strings(value), "shape") or hasattr(value, "getbands"):
            return value  # a call from Python may pass a decoded image
        raise InvalidInput("an image must be sent as the bytes of a file, or as base64")
    data = _to_bytes(value)
    pillow = require("PIL.Image", "media")
    pillow.init()
    try:
        formats = [name for name in FORMATS if name in pillow.OPEN]
        image = pillow.open(io.BytesIO(data), formats=formats)
        if image.width * image.height > MOST_PIXELS:
            raise InvalidInput(
                f"the image has {image.width} x {image.height} pixels, more than {MOST_PIXELS:,}; "
                "send a smaller one"
            )
        image.load()
    except (ServeError, MemoryError):
        raise
    except Exception as error:
        raise InvalidInput(f"the input is not a readable image: {error}") from error
    return image


def _decode_pair(value: Any) -> list[Any]:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise InvalidInput("keypoint-matching takes a pair of images: [image, image]")
    return [_decode_image(item) for item in value]


def _decode_decision(value: Any) -> Any:
    """Decode the images of a decision request; transformers would open strings as paths."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise InvalidInput(f"the request of a decision must be JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidInput('decision takes {"state": ..., "questions": {name: question, ...}}')
    unknown = set(value) - DECISION_KEYS
    if unknown:
        names = ", ".join(sorted(DECISION_KEYS))
        raise InvalidInput(f"decision does not take {min(map(str, unknown))!r}; it takes: {names}")
    assets = value.get("assets")
    if not assets:
        return value
    if not isinstance(assets, dict):
        raise InvalidInput('"assets" must map placeholders to images: {"img-1": image}')
    images = {
        name: _decode_image(asset.get("data_base64") if isinstance(asset, dict) else asset)
        for name, asset in assets.items()
    }
    return {**value, "assets": images}


def _to_bytes(value: str | bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    encoded = value.partition(",")[2] if value.startswith("data:") else value
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(
            "a string here must be base64; paths and URLs are never opened, send the bytes"
        ) from error


def _decode_mixed(value: Any, key: str, sound: Sound | None = None) -> Any:
    if isinstance(value, dict) and value.get("type") == "image_url":
        # the form of an image in chats of the OpenAI API
        source = value.get("image_url")
        return {"type": "image", "image": _decode_image(_data_url(source))}
    if (
        key == "audio"
        and sound
        and not (isinstance(value, (list, tuple)) and _is_list_of_recordings(value))
    ):
        return sound(
            _to_bytes(value) if isinstance(value, (str, bytes)) else _reject_strings(value)
        )
    if isinstance(value, dict):
        return {name: _decode_mixed(item, str(name), sound) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_decode_mixed(item, key, sound) for item in value]
    if isinstance(value, (str, bytes)) and key in IMAGE_KEYS:
        return _decode_image(value)
    if isinstance(value, str) and key not in TEXT_KEYS | {"content"}:
        raise InvalidInput(
            f"a string is not allowed under {key!r}: paths and URLs are never opened"
        )
    return value


def _data_url(source: Any) -> str:
    url = source.get("url") if isinstance(source, dict) else source
    if not isinstance(url, str) or not url.startswith("data:"):
        raise InvalidInput("an image_url must be data:image/png;base64,...; URLs are never opened")
    return url


def _is_list_of_recordings(value: Any) -> bool:
    """Return True for a list of recordings, False for a list of samples."""
    return bool(value) and not isinstance(value[0], (int, float))


def _reject_strings(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _reject_strings(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_reject_strings(item) for item in value]
    if isinstance(value, str):
        raise InvalidInput("paths and URLs are never opened; send the bytes")
    return value
