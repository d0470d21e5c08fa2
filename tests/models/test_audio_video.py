"""Decoding of sound and video."""

from __future__ import annotations

import contextlib
import io
import math
import random
import wave
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from notebook_serve.errors import InvalidInput
from notebook_serve.models import audio_video as recordings
from notebook_serve.models.audio_video import make_sample_reader, open_clip, read_samples

from ..helpers.task_cases import BY_TASK, RATE, heard, recording, video


def tone(seconds: float = 0.5, rate: int = RATE, hertz: float = 440.0) -> Any:
    """Return a pure tone of amplitude 0.5."""
    return (0.5 * np.sin(2 * math.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype("f4")


def pitch(array: Any, rate: int = RATE) -> float:
    """Return the loudest frequency in hertz."""
    spectrum = np.abs(np.fft.rfft(array * np.hanning(len(array))))
    return float(np.argmax(spectrum) * rate / len(array))


def encoded(array: Any, form: str, codec: str, rate: int, layout: str = "mono") -> bytes:
    """Encode samples as a file."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=form) as file:
        stream: Any = file.add_stream(codec, rate=rate, layout=layout)
        whole = np.stack([array] * (2 if layout == "stereo" else 1))
        frame = av.AudioFrame.from_ndarray(whole, format="fltp", layout=layout)
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
        resampler = av.AudioResampler(stream.format, layout, rate, stream.frame_size or None)
        for piece in (*resampler.resample(frame), *resampler.resample(None)):
            file.mux(stream.encode(piece))
        file.mux(stream.encode())
    return buffer.getvalue()


# -- sound --------------------------------------------------------------------------------


def test_a_file_at_the_models_rate_is_its_samples() -> None:
    """Samples are scaled to -1 to 1 and not resampled."""
    data = recording(random.Random(1), 3000)
    found = read_samples(data, RATE)

    assert (found.dtype, found.shape) == (np.float32, (3000,))
    assert np.array_equal(found, heard(data))


@pytest.mark.parametrize(
    ("form", "codec", "rate"),
    [
        ("wav", "pcm_s16le", 44_100),
        ("wav", "pcm_f32le", 8_000),
        ("flac", "flac", 48_000),
        ("ogg", "libopus", 48_000),
        ("webm", "libopus", 48_000),
        ("mp3", "libmp3lame", 44_100),
        ("mp4", "aac", 44_100),
        ("adts", "aac", 22_050),
    ],
)
@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_usual_recordings_are_decoded(form: str, codec: str, rate: int, layout: str) -> None:
    """Each format, rate and number of channels gives the same tone, length and amplitude."""
    found = read_samples(encoded(tone(0.5, rate), form, codec, rate, layout), RATE)

    assert found.dtype == np.float32
    assert len(found) == pytest.approx(0.5 * RATE, abs=0.08 * RATE)  # some codecs begin late
    assert pitch(found) == pytest.approx(440, abs=5)
    assert np.abs(found[len(found) // 4 : -len(found) // 4]).max() == pytest.approx(0.5, abs=0.06)


def test_samples_are_resampled() -> None:
    """Samples at another rate are converted to the rate of the model."""
    found = read_samples({"raw": tone(0.5, 8_000).tolist(), "sampling_rate": 8_000}, RATE)

    assert len(found) == pytest.approx(0.5 * RATE, abs=50)
    assert pitch(found) == pytest.approx(440, abs=5)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([0.0, 0.5], [0.0, 0.5]),
        ({"raw": [0.0, 0.5], "sampling_rate": RATE}, [0.0, 0.5]),
        ({"array": [0, 1], "sampling_rate": RATE}, [0.0, 1.0]),
        (np.array([0.25], dtype="float64"), [0.25]),
        ([[0.0, 0.5, 1.0], [1.0, 0.5, 0.0]], [0.5, 0.5, 0.5]),
        ([[0.0, 1.0], [0.5, 0.5], [1.0, 1.0]], [0.5, 0.5, 1.0]),
    ],
    ids=str,
)
def test_samples_of_every_form(value: Any, expected: list[float]) -> None:
    """Lists and arrays, with or without a rate; channels are averaged."""
    found = read_samples(value, RATE)

    assert found.dtype == np.float32
    assert found.tolist() == expected


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"raw": [0.0]}, "samples must be sent as"),
        ({"sampling_rate": 8000}, "samples must be sent as"),
        ({"raw": [0.0], "sampling_rate": "8000"}, "number of samples per second"),
        ({"raw": [0.0], "sampling_rate": 0}, "number of samples per second"),
        ({"raw": [0.0], "sampling_rate": True}, "number of samples per second"),
        ({"raw": ["loud"], "sampling_rate": 8000}, "samples must be numbers"),
        ([], "a list of numbers"),
        ([[[0.0]]], "a list of numbers"),
        (5, "a list of numbers"),
        (None, "a list of numbers|samples must be numbers"),
        (b"", "not a readable audio file"),
        (b"RIFF", "not a readable audio file"),
        (b"\x00" * 1000, "not a readable audio file"),
        (recording(random.Random(1), 3000)[:44], "no samples|no audio"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_other_values_are_not_sound(value: Any, said: str) -> None:
    """The error names the expected form."""
    with pytest.raises(InvalidInput, match=said):
        read_samples(value, RATE)


def test_a_video_without_sound_is_none() -> None:
    """The error names the missing stream."""
    with pytest.raises(InvalidInput, match="the input has no audio stream"):
        read_samples(video(random.Random(1)), RATE)


def test_sound_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file of long sound is rejected during decoding."""
    monkeypatch.setattr(recordings, "MOST_SECONDS", 2)
    silence = encoded(np.zeros(3 * RATE, "f4"), "flac", "flac", RATE)

    assert len(silence) < 10_000
    for value in (silence, {"raw": [0.0] * 10, "sampling_rate": 4}, [0.0] * (2 * RATE + 1)):
        with pytest.raises(InvalidInput, match="longer than 2 s"):
            read_samples(value, RATE)
    assert len(read_samples([0.0] * 2 * RATE, RATE)) == 2 * RATE


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{path}\n#EXT-X-ENDLIST\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{path}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile {path}\n",
        "[playlist]\nFile1={path}\nNumberOfEntries=1\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011">'
        "<BaseURL>{path}</BaseURL></MPD>",
    ],
    ids=["hls", "hls-file", "concat", "pls", "sdp", "dash"],
)
def test_no_playlist_is_followed(text: str, tmp_path: Path) -> None:
    """FFmpeg would open the entries of a playlist."""
    path = tmp_path / "secret.wav"
    path.write_bytes(recording(random.Random(1), 3000))
    data = text.format(path=path).encode()

    with pytest.raises(InvalidInput, match="not a readable audio file"):
        read_samples(data, RATE)
    with pytest.raises(InvalidInput, match="not a readable video file"):
        open_clip(data, 1)


# -- video --------------------------------------------------------------------------------


def test_a_clip_is_what_the_pipeline_opens() -> None:
    """The clip is a file in memory that a pipeline does not take for a URL."""
    data = video(random.Random(1), frames=5)
    made = open_clip(data, 5)

    assert made.getvalue() == data
    assert not made.startswith("http://")
    assert made.frames().shape == (5, 32, 48, 3)
    assert made.frames().dtype == np.uint8


def test_video_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit holds for the frames that the pipeline uses and for all decoded frames."""
    data = video(random.Random(1), frames=5)
    monkeypatch.setattr(recordings, "MOST_VIDEO_PIXELS", 4 * 32 * 48)

    with pytest.raises(InvalidInput, match="5 frames of 48 x 32 pixels exceed the limit"):
        open_clip(data, 5)
    with pytest.raises(InvalidInput, match="the video has more than"):
        open_clip(data, 4).frames()


@pytest.mark.parametrize("cut", [20, 200, -200])
def test_half_a_video_has_fewer_frames_or_is_rejected(cut: int) -> None:
    """A truncated file causes no other error."""
    data = video(random.Random(1), frames=5)[:cut]
    found = 0
    with contextlib.suppress(InvalidInput):
        found = len(open_clip(data, 5).frames())

    assert found < 5


# -- the rate of a model ------------------------------------------------------------------


def test_only_audio_models_have_a_sample_reader() -> None:
    """The rate is that of the feature extractor of the pipeline or of its processor."""
    assert make_sample_reader(BY_TASK["image-classification"].pipeline()) is None
    for task in ("audio-classification", "any-to-any"):
        sound = make_sample_reader(BY_TASK[task].pipeline())
        assert sound is not None
        assert len(sound(recording(random.Random(1), 800, 8000))) == pytest.approx(1600, abs=50)


def test_a_file_of_one_sample_is_decoded() -> None:
    """The smallest WAV file has one sample."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(b"\x00\x40")

    assert read_samples(buffer.getvalue(), RATE).tolist() == [0.5]
