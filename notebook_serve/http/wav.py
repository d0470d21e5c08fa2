"""WAV encoding of the sound that a model generates."""

from __future__ import annotations

import io
import wave
from collections.abc import Mapping
from typing import Any


def is_sound(value: Any) -> bool:
    """Return True if `value` is the answer of an audio pipeline: samples and their rate."""
    if not isinstance(value, Mapping) or not {"audio", "sampling_rate"} <= value.keys():
        return False
    return hasattr(value["audio"], "shape") and isinstance(value["sampling_rate"], (int, float))


def encode_wav(sound: Mapping[str, Any]) -> bytes:
    """Encode `sound` as a WAV file of 16-bit samples; values beyond -1 and 1 are clipped.

    ``audio`` has the shape (samples,) or (channels, samples). ``sampling_rate`` is in samples per
    second.
    """
    import numpy as np

    samples = sound["audio"]
    if hasattr(samples, "detach"):
        samples = samples.detach().cpu().float().numpy()
    samples = np.atleast_1d(np.asarray(samples, dtype=np.float64))
    # A file interleaves the channels.
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
