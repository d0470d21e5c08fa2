"""Files over HTTP: images, sound and video in requests, images and sound in answers."""

from __future__ import annotations

import base64
import io
import random
import shutil
import subprocess
import threading
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from notebook_serve import NotReady, Server
from notebook_serve.http.responses import accepted_file

from ..helpers.blocking_model import Gate
from ..helpers.compare_answers import assert_same
from ..helpers.task_cases import BY_TASK, on_disk, picture, recording, seen, video

Make = Callable[..., Server]


def ask(server: Server, content: bytes, **headers: str) -> httpx.Response:
    """Post a body with these headers, written with underscores."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(server.url, content=content, headers=named, timeout=60, trust_env=False)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", ""),
        ("*/*", ""),
        ("application/json", ""),
        ("image/png", "image/png"),
        ("IMAGE/PNG", "image/png"),
        ("image/*", "image/png"),
        ("image/webp, image/png;q=0.8", "image/png"),
        ("audio/wav", "audio/wav"),
        ("audio/x-wav", "audio/wav"),
        ("audio/flac,audio/*;q=0.5", "audio/wav"),
        ("application/json, image/png", ""),
        ("text/html,application/xhtml+xml,image/avif,*/*;q=0.8", ""),
        ("image/jpeg", ""),
        (",;,", ""),
    ],
)
def test_accept_chooses_the_file(accept: str, expected: str) -> None:
    """The first type that the server has counts, else JSON."""
    assert accepted_file(accept) == expected


def test_a_picture_is_answered_as_a_file(make: Make) -> None:
    """A depth map comes as base64 in JSON, or as a file with every header."""
    example = BY_TASK["depth-estimation"]
    server, given = make(example.pipeline()), picture(random.Random(1), 70, 40)
    expected = example.pipeline()(seen(given))
    answer = ask(server, given, content_type="image/png").raise_for_status()
    itself = ask(server, given, content_type="image/png", accept="image/png", x_request_id="mine")

    assert_same(expected["predicted_depth"].tolist(), answer.json()["predicted_depth"])
    for data in (base64.b64decode(answer.json()["depth"]), itself.content):
        assert_same(expected["depth"], Image.open(io.BytesIO(data)))
    assert itself.headers["content-type"] == "image/png"
    assert itself.headers["x-request-id"] == "mine"
    assert itself.headers["x-batch-size"] == "1"
    assert "inference;dur=" in itself.headers["server-timing"]


def test_sound_is_answered_as_a_file(make: Make) -> None:
    """Sound comes as base64 in JSON, or as a WAV file."""
    example = BY_TASK["text-to-audio"]
    server = make(example.pipeline())
    expected = example.pipeline()("the queue waits")
    answer = ask(server, b"the queue waits").raise_for_status().json()
    itself = ask(server, b"the queue waits", accept="audio/wav").raise_for_status()

    assert itself.headers["content-type"] == "audio/wav"
    assert base64.b64decode(answer["audio"]) == itself.content
    with wave.open(io.BytesIO(itself.content)) as file:
        assert file.getframerate() == answer["sampling_rate"] == expected["sampling_rate"]
        found = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767
    assert_same(expected["audio"].clip(-1, 1), found)
    assert_same(expected, server.predict("the queue waits"))


def test_an_answer_that_is_no_file_is_not_acceptable(make: Make) -> None:
    """The status is 406, also for several answers, and the message says what to send."""
    server = make(lambda inputs: [{"audio": np.zeros(9), "sampling_rate": 8} for _ in inputs])
    several = httpx.post(
        server.url, json={"inputs": ["a", "b"]}, headers={"accept": "audio/wav"}, trust_env=False
    )

    assert ask(server, b"a", accept="audio/wav").content[:4] == b"RIFF"
    for response in (several, ask(server, b"a", accept="image/png")):
        assert response.status_code == 406
        assert response.json()["type"] == "NotAcceptable"
        assert response.json()["error"].endswith("send Accept: application/json")


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream", "video/mp4", ""])
def test_a_file_is_the_body_whatever_it_is_called(make: Make, kind: str) -> None:
    """Every usual media type, or none, is accepted for a file."""
    example = BY_TASK["image-classification"]
    server, given = make(example.pipeline()), picture(random.Random(1))
    headers = {"content_type": kind} if kind else {}

    assert_same(example.pipeline()(seen(given)), ask(server, given, **headers).json())


def test_curl_sends_a_file(make: Make, tmp_path: Path) -> None:
    """The README's command works, with curl's own content type."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    example = BY_TASK["image-classification"]
    server, given = make(example.pipeline()), picture(random.Random(1))
    (tmp_path / "cat.png").write_bytes(given)
    command = ["curl", "-s", "--noproxy", "*", "--data-binary", f"@{tmp_path}/cat.png", server.url]
    answer = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout

    assert answer == ask(server, given).content


@pytest.mark.parametrize(
    ("task", "kind", "sends"),
    [
        ("image-classification", "text/plain", "the bytes of a file as application/octet-stream"),
        ("table-question-answering", "text/plain", "application/json"),
        ("table-question-answering", "image/png", "application/json"),
        ("decision", "", "application/json"),
        ("text-to-audio", "audio/wav", "text/plain in UTF-8, or application/json"),
    ],
)
def test_a_body_that_a_task_cannot_take(make: Make, task: str, kind: str, sends: str) -> None:
    """The status is 415, and the message says what the task takes."""
    server = make(BY_TASK[task].pipeline())
    response = ask(server, b"x", **({"content_type": kind} if kind else {}))

    assert (response.status_code, response.json()["type"]) == (415, "UnsupportedMediaType")
    assert f"{task} does not take {kind or 'text'}" in response.json()["error"]
    assert f"; send {sends}" in response.json()["error"]


@pytest.mark.parametrize(
    ("task", "body"),
    [
        ("image-classification", b"/etc/passwd"),
        ("image-classification", b""),
        ("audio-classification", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"),
        ("video-classification", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"),
    ],
)
def test_a_bad_file_is_refused_before_it_waits(make: Make, task: str, body: bytes) -> None:
    """The status is 422, and the next request is answered."""
    server = make(BY_TASK[task].pipeline())
    response = ask(server, body)

    assert (response.status_code, response.json()["type"]) == (422, "InvalidInput")
    assert not server.batches()
    given = BY_TASK[task].given(random.Random(1))
    assert ask(server, given).status_code == 200


def test_a_video_is_classified(make: Make) -> None:
    """Video files as browsers and phones make them are decoded from their bytes."""
    example = BY_TASK["video-classification"]
    server, given = make(example.pipeline()), video(random.Random(3))

    assert_same(example.pipeline()(on_disk(given)), ask(server, given).json())


def test_files_of_many_clients_at_once(make: Make) -> None:
    """Images of many sizes from several threads each get their own answer."""
    example = BY_TASK["image-classification"]
    server, reference = make(example.pipeline()), example.pipeline()
    rng = random.Random(5)
    pictures = [picture(rng) for _ in range(32)]
    answers: dict[int, Any] = {}

    def client(mine: range) -> None:
        for i in mine:
            answers[i] = ask(server, pictures[i]).json()

    threads = [threading.Thread(target=client, args=(range(n, 32, 4),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for i, given in enumerate(pictures):
        assert_same(reference(seen(given)), answers[i])


def test_a_subclass_of_ones_own_is_called_with_files(make: Make) -> None:
    """A subclass runs its own call with decoded images, and says why it is not batched."""
    from transformers import AudioClassificationPipeline, ImageClassificationPipeline

    class Loudest(ImageClassificationPipeline):  # type: ignore[misc]
        def __call__(self, inputs: Any, **options: Any) -> Any:
            return super().__call__(inputs, **options)[0]["label"].upper()

    class Shortest(AudioClassificationPipeline):  # type: ignore[misc]
        def postprocess(self, *arguments: Any, **options: Any) -> Any:
            return min(item["label"] for item in super().postprocess(*arguments, **options))

    plain = BY_TASK["image-classification"].pipeline()
    mine = Loudest(model=plain.model, image_processor=plain.image_processor, device="cpu")
    server, given = make(mine), picture(random.Random(1))
    hears = BY_TASK["audio-classification"].pipeline()
    other = Shortest(model=hears.model, feature_extractor=hears.feature_extractor, device="cpu")
    listener = make(other)

    assert ask(server, given).json() == plain(seen(given))[0]["label"].upper()
    assert ask(listener, recording(random.Random(1))).json() == "busy"
    for about in (server.model, listener.model):
        assert not about.batched
        assert "inputs run one at a time" in about.why
    assert ask(server, b"no picture").status_code == 422


def test_the_model_says_what_it_is(make: Make) -> None:
    """`model` is a frozen object with a table; before loading it raises `NotReady`."""
    about = make(BY_TASK["table-question-answering"].pipeline()).model
    gate = Gate()
    loading = make(loader=lambda: gate(["loaded"]) and BY_TASK["decision"].pipeline())

    assert (about.task, about.batched, about.accepts) == (
        "table-question-answering",
        False,
        ("json",),
    )
    assert "no, one at a time" in repr(about)
    assert about.why in repr(about)
    with pytest.raises(NotReady, match="wait_ready"):
        loading.model
    gate.opened.set()
    loading.wait_ready(60)
    assert loading.model.task == "decision"
