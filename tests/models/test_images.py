"""Decoding of images and other files; strings are never opened."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest

from notebook_serve.errors import InvalidInput
from notebook_serve.models import images as media
from notebook_serve.models.images import AUDIO_TASKS, IMAGE_TASKS, MIXED_TASKS, decode_input

#: strings that a pipeline for images or audio would open
OPENABLE = [
    "/etc/passwd",
    "cat.png",
    "http://127.0.0.1:1/cat.png",
    "https://example.invalid/cat.png",
    "file:///etc/passwd",
    "data:text/plain,hello",
]


def png(size: tuple[int, int] = (2, 3)) -> bytes:
    """Return a small PNG file."""
    image = pytest.importorskip("PIL.Image")
    buffer = io.BytesIO()
    image.new("RGB", size, (200, 30, 4)).save(buffer, format="PNG")
    return buffer.getvalue()


def b64(data: bytes) -> str:
    """Encode bytes for JSON."""
    return base64.b64encode(data).decode()


# -- text ---------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["fill-mask", "translation", "table-question-answering"])
@pytest.mark.parametrize("value", ["/etc/passwd", b"bytes", {"a": ["b"]}, ["http://x"], 5])
def test_a_task_of_text_has_its_input_as_it_is(task: str, value: Any) -> None:
    """A text that looks like a path is text if the task takes only text."""
    assert decode_input(task, value) is value


# -- audio --------------------------------------------------------------------------------


@pytest.mark.parametrize("task", sorted(AUDIO_TASKS))
def test_audio_comes_as_bytes_or_base64(task: str) -> None:
    """Bytes are unchanged; base64 and data URLs become bytes."""
    sound = b"RIFF\x00\xff"

    assert decode_input(task, sound) == sound
    assert decode_input(task, b64(sound)) == sound
    assert decode_input(task, "data:audio/wav;base64," + b64(sound)) == sound


@pytest.mark.parametrize("task", sorted(AUDIO_TASKS))
@pytest.mark.parametrize("value", OPENABLE)
def test_no_string_is_opened_as_audio(task: str, value: str) -> None:
    """A path or URL is rejected, alone or under any key."""
    with pytest.raises(InvalidInput, match="paths and URLs are never opened"):
        decode_input(task, value)
    for inside in ({"raw": value}, {"a": {"b": value}}, {"path": value, "sampling_rate": 8000}):
        with pytest.raises(InvalidInput, match="paths and URLs are never opened"):
            decode_input(task, inside)


@pytest.mark.parametrize("task", sorted(AUDIO_TASKS))
def test_samples_are_audio(task: str) -> None:
    """Lists of numbers are unchanged."""
    samples = {"raw": [0.0, 0.5, -0.5], "sampling_rate": 16000}

    assert decode_input(task, samples) == samples
    assert decode_input(task, [0.0, 0.5]) == [0.0, 0.5]


# -- images -------------------------------------------------------------------------------


def test_images_come_as_bytes_or_base64() -> None:
    """Bytes, base64 and data URLs become images."""
    data = png()

    for task in IMAGE_TASKS:
        for value in (data, b64(data), "data:image/png;base64," + b64(data)):
            image = decode_input(task, value)
            assert image.size == (2, 3)
            assert image.getpixel((1, 2)) == (200, 30, 4)


@pytest.mark.parametrize("value", OPENABLE)
def test_no_string_is_opened_as_an_image(value: str) -> None:
    """A path or URL is rejected, alone or under a key."""
    for task in IMAGE_TASKS:
        for given in ({"image": value}, {"image": {"url": value}}):
            with pytest.raises(InvalidInput, match="paths and URLs are never opened"):
                decode_input(task, given)
    pytest.importorskip("PIL.Image")
    for task in IMAGE_TASKS:
        with pytest.raises(InvalidInput):
            decode_input(task, value)


def test_a_file_that_exists_is_not_opened(tmp_path: Path) -> None:
    """The path of a real image is rejected too."""
    path = tmp_path / "cat.png"
    path.write_bytes(png())

    with pytest.raises(InvalidInput, match="paths and URLs are never opened"):
        decode_input("image-classification", str(path))


@pytest.mark.parametrize("data", [b"", b"no image", b"\x89PNG\r\n\x1a\n"], ids=repr)
def test_other_bytes_are_not_an_image(data: bytes) -> None:
    """Unreadable bytes are an `InvalidInput`."""
    pytest.importorskip("PIL.Image")

    for value in (data, b64(data)):
        with pytest.raises(InvalidInput, match="the input is not a readable image"):
            decode_input("image-classification", value)


def test_half_an_image_is_rejected() -> None:
    """A truncated image is rejected before the model runs."""
    with pytest.raises(InvalidInput, match="the input is not a readable image"):
        decode_input("object-detection", png((50, 50))[:-30])


def test_an_image_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The header decides: a small file with too many pixels is not decoded."""
    data = png((60, 50))[:-30]
    monkeypatch.setattr(media, "MOST_PIXELS", 60 * 50 - 1)

    with pytest.raises(InvalidInput, match="60 x 50 pixels, more than 2,999"):
        decode_input("image-classification", data)
    monkeypatch.setattr(media, "MOST_PIXELS", 60 * 50)
    with pytest.raises(InvalidInput, match="not a readable image"):
        decode_input("image-classification", data)
    assert decode_input("image-classification", png((60, 50))).size == (60, 50)


@pytest.mark.parametrize(
    "data",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) run\n%%EOF\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'><image href='/etc/passwd'/></svg>",
        b"P7 332 9 9 255\n" + b"\x00" * 81,
    ],
    ids=["eps", "svg", "xv"],
)
def test_formats_with_programs_or_references_are_rejected(data: bytes) -> None:
    """Another program would run PostScript; only plain formats are accepted."""
    with pytest.raises(InvalidInput, match="not a readable image"):
        decode_input("image-classification", data)


# -- pairs, clips, decisions ----------------------------------------------------------------


def test_a_pair_of_pictures_is_decoded() -> None:
    """A pair holds two images of any form."""
    first, second = decode_input("keypoint-matching", [png(), b64(png((4, 5)))])

    assert (first.size, second.size) == ((2, 3), (4, 5))
    wrong: Any
    for wrong in ([png()], [png()] * 3, png(), {"a": png()}, "text"):
        with pytest.raises(InvalidInput, match="takes a pair of images"):
            decode_input("keypoint-matching", wrong)
    for wrong in (*OPENABLE, 5, None):
        with pytest.raises(InvalidInput):
            decode_input("keypoint-matching", [png(), wrong])


def test_a_video_comes_as_bytes_or_base64() -> None:
    """The pipeline receives the file in memory."""
    value: Any
    for value in (b"video", b64(b"video"), "data:video/mp4;base64," + b64(b"video")):
        assert decode_input("video-classification", value) == b"video"
    for value in (*OPENABLE, ["/etc/passwd"], {"video": "/etc/passwd"}):
        with pytest.raises(InvalidInput, match="paths and URLs are never opened"):
            decode_input("video-classification", value)


@pytest.mark.parametrize("as_text", [False, True])
def test_a_decisions_images_are_decoded(as_text: bool) -> None:
    """Texts are unchanged even if they look like paths; assets must be base64 or bytes."""
    picture = b64(png())
    asked: Any = {
        "state": {"photo": "<a>", "path": "/etc/passwd"},
        "questions": {"q": {"type": "noul"}},
        "assets": {"<a>": {"type": "image", "format": "png", "data_base64": picture}, "b": picture},
    }
    made = decode_input("decision", json.dumps(asked) if as_text else asked)

    assert made["state"] == asked["state"]
    assert [image.size for image in made["assets"].values()] == [(2, 3), (2, 3)]
    wrong: Any
    for wrong in ({"a": "/etc/passwd"}, {"a": {"data_base64": "http://x"}}, {"a": {}}, ["x"]):
        with pytest.raises(InvalidInput):
            decode_input("decision", {**asked, "assets": wrong})


def test_a_decision_has_no_other_keys() -> None:
    """Unknown keys are rejected by name, and so are values of other types."""
    with pytest.raises(InvalidInput, match="does not take 'device'"):
        decode_input("decision", {"state": "a", "questions": {}, "device": 1})
    for wrong in ("{", [1], 5, None, "[]"):
        with pytest.raises(InvalidInput, match=r"decision"):
            decode_input("decision", wrong)


# -- strings in lists ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [["/etc/passwd"], [["http://127.0.0.1:1/cat.png"]], ("/etc/passwd",), [{"image": "cat.png"}]],
    ids=str,
)
def test_no_string_in_a_list_is_opened(value: Any) -> None:
    """A pipeline opens each string of a list, so a list with strings is rejected."""
    for task in IMAGE_TASKS | AUDIO_TASKS:
        with pytest.raises(InvalidInput):
            decode_input(task, value)


def test_no_asset_of_a_decision_is_opened() -> None:
    """transformers would open string assets of the ``decision`` task."""
    with pytest.raises(InvalidInput):
        decode_input(
            "decision", {"state": {"a": "<p>"}, "assets": {"<p>": "http://127.0.0.1:1/a.png"}}
        )


# -- text and images together -------------------------------------------------------------


@pytest.mark.parametrize("task", sorted(MIXED_TASKS))
def test_text_is_taken_under_keys_that_mean_text(task: str) -> None:
    """Questions, texts and chat messages may be any string, including paths."""
    value = [{"role": "user", "content": [{"type": "text", "text": "/etc/passwd"}]}]

    asked = {"question": "/etc/passwd", "word_boxes": [5]}

    assert decode_input(task, asked) == asked
    assert decode_input(task, value) == value
    assert decode_input(task, [{"role": "user", "content": "http://x"}]) == [
        {"role": "user", "content": "http://x"}
    ]


@pytest.mark.parametrize("task", sorted(MIXED_TASKS))
@pytest.mark.parametrize("key", ["url", "path", "video", "audio", "videos", "base64", "x", ""])
def test_no_string_is_taken_under_another_key(task: str, key: str) -> None:
    """Strings under other keys are rejected at any depth, and the error names the key."""
    inside: list[Any] = [
        {key: "/etc/passwd"},
        {key: ["http://x"]},
        {"content": [{"type": "image", key: "cat.png"}]},
        [[{"a": [{key: ("cat.png",)}]}]],
    ]
    for value in inside:
        with pytest.raises(InvalidInput, match=f"under {key!r}: paths and URLs are never opened"):
            decode_input(task, value)


@pytest.mark.parametrize("task", sorted(MIXED_TASKS))
def test_a_string_alone_is_text_only_where_the_task_reads_it_so(task: str) -> None:
    """Pipelines without plain text inputs would open the string."""
    if task in ("any-to-any", "image-text-to-text"):
        assert decode_input(task, "/etc/passwd") == "/etc/passwd"
    else:
        with pytest.raises(InvalidInput, match="paths and URLs are never opened"):
            decode_input(task, "/etc/passwd")


@pytest.mark.parametrize("value", OPENABLE)
def test_no_string_is_opened_beside_text(value: str) -> None:
    """Under the keys of images a string must be base64."""
    pytest.importorskip("PIL.Image")

    for task in MIXED_TASKS:
        for given in ({"image": value}, {"images": [value]}, {"images": [[value]], "text": "a"}):
            with pytest.raises(InvalidInput):
                decode_input(task, given)


def test_images_beside_text_are_decoded() -> None:
    """Base64 and bytes under the keys of images become images; the text is unchanged."""
    data = png()

    for task in MIXED_TASKS:
        made = decode_input(
            task, {"text": "what?", "images": [b64(data), data], "image": b64(data)}
        )
        assert made["text"] == "what?"
        assert [image.size for image in [*made["images"], made["image"]]] == [(2, 3)] * 3


def test_a_picture_in_a_chat_may_be_written_as_an_image_url() -> None:
    """Clients of the OpenAI API send images this way; only data URLs are accepted."""
    url = "data:image/png;base64," + b64(png())
    part: dict[str, Any]
    for source in ({"url": url}, url):
        part = {"type": "image_url", "image_url": source}
        [message] = decode_input("image-text-to-text", [{"role": "user", "content": [part]}])
        assert message["content"][0]["type"] == "image"
        assert message["content"][0]["image"].size == (2, 3)
    for value in (*OPENABLE[:-1], 5, None, {"uri": url}):
        part = {"type": "image_url", "image_url": {"url": value}}
        with pytest.raises(InvalidInput, match="URLs are never opened"):
            decode_input("image-text-to-text", [{"role": "user", "content": [part]}])


def test_sound_beside_text_is_decoded() -> None:
    """Files and samples under the key ``audio`` are converted, in chats too."""
    wave = {"raw": [0.0, 0.5], "sampling_rate": 8000}
    heard: list[Any] = []

    def sound(value: Any) -> str:
        heard.append(value)
        return "heard"

    for value in (b"RIFF", b64(b"RIFF"), [0.0, 0.5], wave):
        assert decode_input("any-to-any", {"text": "a", "audio": value}, sound)["audio"] == "heard"
    chat = [{"role": "user", "content": [{"type": "audio", "audio": b64(b"RIFF")}]}]
    assert decode_input("any-to-any", chat, sound)[0]["content"][0]["audio"] == "heard"
    several = decode_input("any-to-any", {"text": "a", "audio": [b"1", b"2"]}, sound)
    assert several["audio"] == ["heard", "heard"]
    assert heard == [b"RIFF", b"RIFF", [0.0, 0.5], wave, b"RIFF", b"1", b"2"]
    wrong: Any
    for wrong in (*OPENABLE, {"raw": "/etc/passwd", "sampling_rate": 1}, {"path": 1}):
        with pytest.raises(InvalidInput):
            decode_input("any-to-any", {"text": "a", "audio": wrong}, sound)


# -- keys that are none ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "value"),
    [
        ("any-to-any", {"text": "hello", "images_kwargs": {"size": 1}}),
        ("any-to-any", [{"role": "user", "content": [{"type": "text", "device": 1}]}]),
        ("image-text-to-text", {"text": "hello", "padding": 1}),
        ("automatic-speech-recognition", {"raw": [0.0], "sampling_rate": 8000, "stride": 1}),
        ("audio-classification", {"array": [0.0], "sampling_rate": 8000, "path": None}),
        ("document-question-answering", {"question": "who?", "word_boxes": [], "lang": 1}),
    ],
)
def test_an_object_has_no_keys_that_the_pipeline_takes_for_options(task: str, value: Any) -> None:
    """Other keys would reach the processor and bypass the allow-list of parameters."""
    with pytest.raises(InvalidInput, match="it takes: "):
        decode_input(task, value)


def test_objects_with_the_keys_of_their_task_pass() -> None:
    """Chats, samples and questions in the documented forms are unchanged."""
    chat = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
    wave = {"raw": [0.0, 0.5], "sampling_rate": 8000}

    assert decode_input("any-to-any", chat) == chat
    assert decode_input("audio-classification", wave) == wave
