"""Sound and video from bytes, by PyAV; nothing but these bytes is ever opened.

FFmpeg, which does the work, would follow what a playlist names, on this machine and elsewhere. So
only formats that hold their own data are read, whatever the bytes are called.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..errors import InvalidInput, ServeError
from ..extras import require

#: most seconds of sound in one input
MOST_SECONDS = 1800
#: most pixels of all frames of a video that a model is given
MOST_VIDEO_PIXELS = 200_000_000
#: FFmpeg's names of formats that refer to nothing outside of themselves
FORMATS = (
    "aac,ac3,aiff,amr,asf,au,avi,caf,flac,flv,gif,matroska,mov,mp3,mpeg,mpegts,ogg,w64,wav,webm"
)
OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": "none"}


def sound_for(pipe: Any) -> Callable[[Any], Any] | None:
    """What makes samples for `pipe` of what a client sent; None where it hears nothing."""
    known = getattr(pipe, "feature_extractor", None)
    if known is None:
        known = getattr(getattr(pipe, "processor", None), "feature_extractor", None)
    rate = getattr(known, "sampling_rate", None)
    return None if rate is None else lambda value: samples(value, int(rate))


def samples(value: Any, rate: int) -> Any:
    """`value` as an array of float32 samples, one channel, `rate` of them a second.

    It is a file's bytes, ``{"raw" or "array": samples, "sampling_rate": N}``, or samples at `rate`.
    Raises `InvalidInput` for what is none of these, and for more than `MOST_SECONDS`.
    """
    import numpy as np

    if isinstance(value, bytes):
        return _decoded(value, rate)
    given = rate
    if isinstance(value, Mapping):
        raw = value.get("raw", value.get("array"))
        if raw is None or "sampling_rate" not in value:
            raise InvalidInput('samples come as {"raw": [...], "sampling_rate": N}')
        value, given = raw, value["sampling_rate"]
        if isinstance(given, bool) or not isinstance(given, (int, float)) or not given >= 1:
            raise InvalidInput('"sampling_rate" is the number of samples a second')
    try:
        array = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"samples are numbers: {error}") from error
    if array.ndim == 2:
        array = array.mean(axis=0 if array.shape[0] <= array.shape[1] else 1)
    if array.ndim != 1 or not array.size:
        raise InvalidInput("samples are a list of numbers, or one such list for each channel")
    _check_seconds(array.size / given)
    return array if given == rate else _resampled(array, int(given), rate)


def clip(data: bytes, frames: int) -> Clip:
    """The file `data` as a pipeline may open it, which looks at `frames` of its pictures."""
    with _opened(data, "video") as container:
        stream = container.streams.video[0]
        if frames * stream.width * stream.height > MOST_VIDEO_PIXELS:
            raise InvalidInput(
                f"{frames} frames of {stream.width} x {stream.height} pixels are more than "
                f"{MOST_VIDEO_PIXELS:,} pixels"
            )
    return Clip(data)


class Clip(io.BytesIO):
    """A file in memory, of which a pipeline asks what it would ask of a path."""

    def startswith(self, prefix: str) -> bool:
        """Whether it is the address of a page: never."""
        return False

    def frames(self) -> Any:
        """All pictures, as an array of frames x height x width x 3."""
        import numpy as np

        found, pixels = [], 0
        with _opened(self.getvalue(), "video") as container:
            for frame in container.decode(video=0):
                pixels += frame.width * frame.height
                if pixels > MOST_VIDEO_PIXELS:
                    raise InvalidInput(f"the video has more than {MOST_VIDEO_PIXELS:,} pixels")
                found.append(frame.to_ndarray(format="rgb24"))
        if not found:
            raise InvalidInput("the video has no frames")
        return np.stack(found)


def _decoded(data: bytes, rate: int) -> Any:
    import numpy as np

    with _opened(data, "audio") as container:
        found, count = [], 0
        for piece in _pieces(container.decode(audio=0), rate):
            count += len(piece)
            _check_seconds(count / rate)
            found.append(piece)
    if not count:
        raise InvalidInput("the sound has no samples")
    return np.concatenate(found)


def _resampled(array: Any, given: int, rate: int) -> Any:
    import numpy as np

    av = require("av", "media")
    frame = av.AudioFrame.from_ndarray(array[np.newaxis], format="flt", layout="mono")
    frame.sample_rate = given
    return np.concatenate(list(_pieces(iter([frame]), rate)))


def _pieces(frames: Iterator[Any], rate: int) -> Iterator[Any]:
    """The samples of audio `frames`, in pieces, as one channel at `rate`."""
    av = require("av", "media")
    # FFmpeg's own way to one channel makes sound that is on both louder; this is their mean.
    resampler = av.AudioResampler(format="fltp", rate=rate)
    started = False
    for frame in frames:
        started = True
        for made in resampler.resample(frame):
            yield made.to_ndarray().mean(axis=0)
    if started:
        for made in resampler.resample(None):
            yield made.to_ndarray().mean(axis=0)


def _check_seconds(seconds: float) -> None:
    if seconds > MOST_SECONDS:
        raise InvalidInput(f"the sound is longer than {MOST_SECONDS} s")


@contextmanager
def _opened(data: bytes, kind: str) -> Iterator[Any]:
    """The container that `data` is, which must have a stream of the `kind`."""
    av = require("av", "media")
    try:
        with av.open(io.BytesIO(data), options=OPTIONS) as container:
            if not getattr(container.streams, kind):
                raise InvalidInput(f"there is no {kind} in the input")
            yield container
    except (ServeError, MemoryError):
        raise
    except Exception as error:
        raise InvalidInput(f"the input is no {kind} that can be read: {error}") from error
