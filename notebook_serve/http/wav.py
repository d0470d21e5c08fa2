"""Sound as an answer: the samples that a model made, as a WAV file."""

from __future__ import annotations

import io
import wave
from collections.abc import Mapping
from typing import Any


def is_sound(value: Any) -> bool:
    """Whether `value` is what a pipeline answers that makes sound: samples and their rate."""
    if not isinstance(value, Mapping) or not {"audio", "sampling_rate"} <= value.keys():
        return False
    return hasattr(value["audio"], "shape") and isinstance(value["sampling_rate"], (int, float))


def wav(sound: Mapping[str, Any]) -> bytes:
    """The file, of 16-bit samples; what is louder than 1 is cut off.

    ``audio`` has the shape (samples,) or (channels, samples), ``sampling_rate`` is per second.
    """
    import numpy as np

    samples = sound["audio"]
    if hasattr(samples, "detach"):
        samples = samples.detach().cpu().float().numpy()
    samples = np.atleast_1d(np.asarray(samples, dtype=np.float64))
    # A file has one sample of each channel after the other.
    channels = 1 if samples.ndim == 1 else samples.shape[-2]
    ordered = samples.reshape(channels, -1).T
    whole = (np.clip(np.nan_to_num(ordered), -1, 1) * 32767).round().astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(int(sound["sampling_rate"]))
        file.writeframes(whole.tobytes())
    return buffer.getvalue()
