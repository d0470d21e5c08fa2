"""Decoding of sound and video from bytes with PyAV; it opens no other file or address.

PyAV uses FFmpeg, which follows the references in a playlist to local files and to the network. So
only formats that hold their own data are accepted, whatever the name of the file.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..errors import InvalidInput, ServeError
from ..extras import require
from ..validation.option_hints import short

#: most seconds of sound in one input
MOST_SECONDS = 1800
#: most pixels in all frames of a video
MOST_VIDEO_PIXELS = 200_000_000
#: FFmpeg's names of formats that refer to no other file
FORMATS = (
    "aac,ac3,aiff,amr,asf,au,avi,caf,flac,flv,gif,matroska,mov,mp3,mpeg,mpegts,ogg,w64,wav,webm"
)
OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": "none"}


def make_sample_reader(pipe: Any) -> Callable[[Any], Any] | None:
    """Return a function from an input to samples for `pipe`; None if it takes no sound."""
    extractor = getattr(pipe, "feature_extractor", None)
    if extractor is None:
        extractor = getattr(getattr(pipe, "processor", None), "feature_extractor", None)
    rate = getattr(extractor, "sampling_rate", None)
    return None if rate is None else lambda value: read_samples(value, int(rate))


def read_samples(value: Any, rate: int) -> Any:
    """Convert `value` to an array of float32 samples: one channel, `rate` samples per second.

    `value` is the bytes of a file, ``{"raw" or "array": samples, "sampling_rate": N}``, or samples
    at `rate`. Raises `InvalidInput` for any other value, and for more than `MOST_SECONDS`.
    """
    import numpy as np

    if isinstance(value, bytes):
        return _decode_samples(value, rate)
    given = rate
    if isinstance(value, Mapping):
        raw = value.get("raw", value.get("array"))
        if raw is None or "sampling_rate" not in value:
            raise InvalidInput('samples must be sent as {"raw": [...], "sampling_rate": N}')
        value, given = raw, value["sampling_rate"]
        if isinstance(given, bool) or not isinstance(given, (int, float)) or not given >= 1:
            raise InvalidInput(
                f'"sampling_rate" must be a number of samples per second, got {short(given)}'
            )
    try:
        array = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"samples must be numbers: {error}") from error
    if array.ndim == 2:
        array = array.mean(axis=0 if array.shape[0] <= array.shape[1] else 1)
    if array.ndim != 1 or not array.size:
        raise InvalidInput("samples must be a list of numbers, or one such list for each channel")
    _check_seconds(array.size / given)
    return array if given == rate else _resample(array, int(given), rate)


def open_clip(data: bytes, frames: int) -> Clip:
    """Open the video file `data`, of which a pipeline uses `frames` frames.

    Raises `InvalidInput` for another file, and for more than `MOST_VIDEO_PIXELS`.
    """
    with _open_container(data, "video") as container:
        stream = container.streams.video[0]
        if frames * stream.width * stream.height > MOST_VIDEO_PIXELS:
            raise InvalidInput(
                f"{frames} frames of {stream.width} x {stream.height} pixels exceed the limit of "
                f"{MOST_VIDEO_PIXELS:,} pixels; send a smaller video or fewer frames"
            )
    return Clip(data)


class Clip(io.BytesIO):
    """A file in memory that a pipeline accepts in place of a path."""

    def startswith(self, prefix: str) -> bool:
        """Return False: a pipeline tests a path for being a URL."""
        return False

    def frames(self) -> Any:
        """Return all frames as an array of shape (frames, height, width, 3)."""
        import numpy as np

        found, pixels = [], 0
        with _open_container(self.getvalue(), "video") as container:
            for frame in container.decode(video=0):
                pixels += frame.width * frame.height
                if pixels > MOST_VIDEO_PIXELS:
                    raise InvalidInput(
                        f"the video has more than {MOST_VIDEO_PIXELS:,} pixels in all its frames"
                    )
                found.append(frame.to_ndarray(format="rgb24"))
        if not found:
            raise InvalidInput("the video has no frames")
        return np.stack(found)


def _decode_samples(data: bytes, rate: int) -> Any:
    import numpy as np

    with _open_container(data, "audio") as container:
        found, count = [], 0
        for piece in _pieces(container.decode(audio=0), rate):
            count += len(piece)
            _check_seconds(count / rate)
            found.append(piece)
    if not count:
        raise InvalidInput("the sound has no samples")
    return np.concatenate(found)


def _resample(array: Any, given: int, rate: int) -> Any:
    import numpy as np

    av = require("av", "media")
    frame = av.AudioFrame.from_ndarray(array[np.newaxis], format="flt", layout="mono")
    frame.sample_rate = given
    return np.concatenate(list(_pieces(iter([frame]), rate)))


def _pieces(frames: Iterator[Any], rate: int) -> Iterator[Any]:
    """Yield the samples of audio `frames` in pieces, as one channel at `rate`."""
    av = require("av", "media")
    # Take the mean of the channels: FFmpeg's own downmix makes sound that is on both louder.
    resampler = av.AudioResampler(format="fltp", rate=rate)
    started = False
    for frame in frames:
        started = True
        for piece in resampler.resample(frame):
            yield piece.to_ndarray().mean(axis=0)
    if started:
        for piece in resampler.resample(None):
            yield piece.to_ndarray().mean(axis=0)


def _check_seconds(seconds: float) -> None:
    if seconds > MOST_SECONDS:
        raise InvalidInput(f"the sound is longer than {MOST_SECONDS} s; send a shorter one")


@contextmanager
def _open_container(data: bytes, kind: str) -> Iterator[Any]:
    """Open the container `data`, which must have a stream of this `kind`."""
    av = require("av", "media")
    try:
        with av.open(io.BytesIO(data), options=OPTIONS) as container:
            if not getattr(container.streams, kind):
                raise InvalidInput(f"the input has no {kind} stream")
            yield container
    except (ServeError, MemoryError):
        raise
    except Exception as error:
        raise InvalidInput(f"the input is not a readable {kind} file: {error}") from error
