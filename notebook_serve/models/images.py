"""Inputs that are not text: bytes become images, and no string is ever opened as a path or URL.

Pipelines for images, audio and video open the strings that they are given. A client must not
choose what this machine opens, so strings are refused there, or read as base64.
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

#: most pixels of a picture; below the number at which Pillow itself warns
MOST_PIXELS = 64_000_000
#: Pillow's names of formats that it reads by itself, and as nothing else
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
#: tasks that mix text with what could be opened: strings only under the keys that mean text
MIXED_TASKS = {"any-to-any", "document-question-answering", "image-text-to-text"}
TEXT_KEYS = {"question", "text", "role", "type", "word_boxes"}
IMAGE_KEYS = {"image", "images"}
#: the keys that an object may have, where the pipeline would take others for options
MIXED_KEYS = {
    *("role", "type", "content", "text", "question", "word_boxes"),
    *("image", "images", "image_url", "url", "video", "videos", "audio"),
}
WAVE_KEYS = {"raw", "array", "sampling_rate"}
DECISION_KEYS = {"state", "questions", "assets"}

#: what makes samples of the bytes of a file, or of samples at another rate
Sound = Callable[[Any], Any]


def decoded(task: str, value: Any, sound: Sound | None = None) -> Any:
    """`value` as the task's pipeline may have it: images for bytes and base64, and no paths.

    What is to be heard goes through `sound`, where the model hears anything.
    """
    if task in IMAGE_TASKS:
        return _image(value)
    if task == "keypoint-matching":
        return _pair(value)
    if task == "decision":
        return _decision(value)
    made = value
    if task == "video-classification":
        made = _bytes(value) if isinstance(value, (str, bytes)) else _without_strings(value)
    elif task in AUDIO_TASKS:
        made = _bytes(value) if isinstance(value, (str, bytes)) else _without_strings(value)
        _check_keys(task, value, WAVE_KEYS)
        made = sound(made) if sound else made
    elif task in MIXED_TASKS:
        text = "text" if task in ("any-to-any", "image-text-to-text") else ""
        made = _mixed(value, text, sound)
        _check_keys(task, value, MIXED_KEYS)
    return made


def _check_keys(task: str, value: Any, known: set[str]) -> None:
    """Refuse an object with keys that the parameters' allow-list would not see."""
    if isinstance(value, dict):
        unknown = set(value) - known
        if unknown:
            names = ", ".join(sorted(known))
            raise InvalidInput(f"{task} takes no {min(map(str, unknown))!r}; it takes: {names}")
    if isinstance(value, (dict, list, tuple)):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(item, (dict, list, tuple)):  # many samples are numbers
                _check_keys(task, item, WAVE_KEYS if name == "audio" else known)


def _image(value: Any) -> Any:
    if not isinstance(value, (str, bytes)):
        if hasattr(_without_strings(value), "shape") or hasattr(value, "getbands"):
            return value  # a cell has it decoded already
        raise InvalidInput("an image comes as the bytes of a file, or as base64")
    data = _bytes(value)
    pillow = require("PIL.Image", "media")
    pillow.init()
    try:
        formats = [name for name in FORMATS if name in pillow.OPEN]
        image = pillow.open(io.BytesIO(data), formats=formats)
        if image.width * image.height > MOST_PIXELS:
            raise InvalidInput(
                f"the image has {image.width} x {image.height} pixels, and may have {MOST_PIXELS:,}"
            )
        image.load()
    except (ServeError, MemoryError):
        raise
    except Exception as error:
        raise InvalidInput(f"the input is no image that can be read: {error}") from error
    return image


def _pair(value: Any) -> list[Any]:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise InvalidInput("keypoint-matching takes a pair of images: [image, image]")
    return [_image(item) for item in value]


def _decision(value: Any) -> Any:
    """A request with its images decoded, which the library would open if they were strings."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise InvalidInput(f"a decision's request is JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidInput('decision takes {"state": ..., "questions": {name: question, ...}}')
    unknown = set(value) - DECISION_KEYS
    if unknown:
        raise InvalidInput(f"decision takes no {min(map(str, unknown))!r}")
    assets = value.get("assets")
    if not assets:
        return value
    if not isinstance(assets, dict):
        raise InvalidInput('"assets" are images by their placeholders: {"img-1": image}')
    images = {
        name: _image(asset.get("data_base64") if isinstance(asset, dict) else asset)
        for name, asset in assets.items()
    }
    return {**value, "assets": images}


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


def _mixed(value: Any, key: str, sound: Sound | None = None) -> Any:
    if isinstance(value, dict) and value.get("type") == "image_url":
        # How clients of OpenAI's interface write a picture in a chat.
        source = value.get("image_url")
        return {"type": "image", "image": _image(_url_of(source))}
    if key == "audio" and sound and not (isinstance(value, (list, tuple)) and _holds_more(value)):
        return sound(_bytes(value) if isinstance(value, (str, bytes)) else _without_strings(value))
    if isinstance(value, dict):
        return {name: _mixed(item, str(name), sound) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_mixed(item, key, sound) for item in value]
    if isinstance(value, (str, bytes)) and key in IMAGE_KEYS:
        return _image(value)
    if isinstance(value, str) and key not in TEXT_KEYS | {"content"}:
        raise InvalidInput(f"a string is not taken under {key!r}: paths and URLs are never opened")
    return value


def _url_of(source: Any) -> str:
    url = source.get("url") if isinstance(source, dict) else source
    if not isinstance(url, str) or not url.startswith("data:"):
        raise InvalidInput("an image_url is data:image/png;base64,...; URLs are never opened")
    return url


def _holds_more(value: Any) -> bool:
    """Whether a list is one of recordings, and not of samples."""
    return bool(value) and not isinstance(value[0], (int, float))


def _without_strings(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_strings(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_strings(item) for item in value]
    if isinstance(value, str):
        raise InvalidInput("paths and URLs are never opened; send the bytes")
    return value
