from __future__ import annotations

import base64
import io
import json
import math
import wave
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from notebook_serve.http.json_encoding import is_slow_to_encode, to_file, to_json
from notebook_serve.http.wav import encode_wav, is_sound

from ..helpers.compare_answers import called


def read(data: bytes) -> tuple[int, int, int, list[int]]:
    """Return channels, rate, bytes per sample and samples of a WAV file."""
    with wave.open(io.BytesIO(data)) as file:
        found = np.frombuffer(file.readframes(file.getnframes()), "<i2").tolist()
        return file.getnchannels(), file.getframerate(), file.getsampwidth(), found


@pytest.mark.parametrize(
    ("samples", "channels", "expected"),
    [
        ([0.0, 0.5, -1.0], 1, [0, 16384, -32767]),
        ([2.0, -2.0], 1, [32767, -32767]),
        ([math.nan, math.inf, -math.inf], 1, [0, 32767, -32767]),
        ([[0.0, 1.0], [0.5, -1.0]], 2, [0, 16384, 32767, -32767]),
        ([[0.0, 1.0, 0.5]], 1, [0, 32767, 16384]),
        (0.5, 1, [16384]),
        ([], 1, []),
    ],
    ids=called,
)
@pytest.mark.parametrize("kind", [np.float32, np.float64, torch.tensor])
def test_samples_become_a_file(samples: Any, channels: int, expected: list[int], kind: Any) -> None:
    """One or several channels are written; loud samples are clipped, and NaN becomes 0."""
    array = kind(samples) if kind is torch.tensor else np.asarray(samples, dtype=kind)
    found = read(encode_wav({"audio": array, "sampling_rate": 16000}))

    assert found == (channels, 16000, 2, expected)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"audio": np.zeros(2), "sampling_rate": 8000}, True),
        ({"audio": np.zeros(2), "sampling_rate": None}, False),
        ({"audio": [0.0], "sampling_rate": 8000}, False),
        ({"audio": np.zeros(2)}, False),
        (np.zeros(2), False),
        ("audio", False),
    ],
    ids=called,
)
def test_sound_is_samples_with_a_rate(value: Any, expected: bool) -> None:
    """Only samples with a rate are sound."""
    assert is_sound(value) is expected


def test_sound_in_json_is_a_file() -> None:
    """Sound in an answer, or in a list, becomes a file beside its rate."""
    sound = {"audio": np.zeros(3), "sampling_rate": 8000}
    one, [first, second] = json.loads(to_json(sound)), json.loads(to_json([sound, {"audio": 1}]))

    assert one == first
    assert one["sampling_rate"] == 8000
    assert read(base64.b64decode(one["audio"])) == (1, 8000, 2, [0, 0, 0])
    assert second == {"audio": 1}
    assert isinstance(sound["audio"], np.ndarray)


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_masks_in_json_are_pictures(kind: Any) -> None:
    """Masks become images: white inside, black outside."""
    mask = [[True, False, True], [False, False, True]]
    answer = {"masks": [kind(mask)], "scores": torch.tensor([0.5])}
    found = json.loads(to_json(answer))
    [picture] = found["masks"]
    image = Image.open(io.BytesIO(base64.b64decode(picture)))

    assert found["scores"] == [0.5]
    assert (image.size, image.mode) == ((3, 2), "L")
    assert (np.asarray(image) == np.asarray(mask) * 255).all()
    assert json.loads(to_json({"masks": [[1, 2]]})) == {"masks": [[1, 2]]}
    assert json.loads(to_json({"masks": []})) == {"masks": []}


PICTURE = Image.new("L", (2, 2))


@pytest.mark.parametrize(
    ("value", "images", "sounds"),
    [
        (PICTURE, 1, 0),
        ({"depth": PICTURE, "predicted_depth": torch.zeros(2, 2)}, 1, 0),
        ([{"mask": PICTURE, "label": "a"}], 1, 0),
        ([{"mask": PICTURE}, {"mask": PICTURE}], 0, 0),
        ({"a": PICTURE, "b": PICTURE}, 0, 0),
        ({"audio": np.zeros(2), "sampling_rate": 8000}, 0, 1),
        ([{"label": "a", "score": 0.5}], 0, 0),
        ([], 0, 0),
        ("text", 0, 0),
        (None, 0, 0),
    ],
    ids=called,
)
def test_an_answer_that_is_one_file(value: Any, images: int, sounds: int) -> None:
    """An answer is a file if it has exactly one image, or is sound."""
    picture, sound = to_file(value, "image/png"), to_file(value, "audio/wav")

    assert (picture is not None, sound is not None) == (bool(images), bool(sounds))
    if picture:
        assert Image.open(io.BytesIO(picture)).size == (2, 2)
    if sound:
        assert read(sound)[1] == 8000


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (PICTURE, True),
        ({"depth": PICTURE}, True),
        ([{"mask": PICTURE}], True),
        ({"masks": [np.zeros((2, 2), bool)]}, True),
        (torch.zeros(2), True),
        ([{"label": "a"}], False),
        ([[0.5] * 100], False),
        ("text", False),
        ([], False),
    ],
    ids=called,
)
def test_files_and_arrays_are_slow_to_encode(value: Any, expected: bool) -> None:
    """Images, sound and arrays are slow, so the event loop does not encode them."""
    assert is_slow_to_encode(value) is expected
