"""Each method of huggingface_hub's client that has a pipeline: how it asks, and for what."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from notebook_serve.http.wav import encode_wav

from . import small_models
from .compare_answers import assert_same
from .task_cases import BY_TASK, heard, picture, recording, seen

#: a chat as a text: what each says, after its role
CHAT = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"
GREEDY = {"do_sample": False, "max_new_tokens": 6}


@dataclass(frozen=True)
class Method:
    """One way to ask, and what the pipeline itself gives."""

    name: str
    task: str
    ask: Callable[[Any], Any]
    expected: Callable[[Any], Any]
    #: the answer as `expected` has it
    read: Callable[[Any], Any] = lambda answer: answer
    note: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.note}".strip()

    def check(self, client: Any, pipe: Any) -> None:
        """That what the client gives is what the pipeline itself gives."""
        answer, expected = self.read(self.ask(client)), plain(self.expected(pipe))
        assert_same(expected, known(expected, answer), 1e-3)


def known(expected: Any, actual: Any) -> Any:
    """What `actual` has of what `expected` has: the client's objects have more fields."""
    if isinstance(expected, dict):
        return {key: known(value, actual[key]) for key, value in expected.items()}
    if isinstance(expected, list):
        return [known(*pair) for pair in zip(expected, actual, strict=True)]
    return actual


def plain(value: Any) -> Any:
    """Tuples as lists and numpy's numbers as Python's, which is what JSON makes of them."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def pipeline(task: str) -> Any:
    """A small pipeline for `task`; one that writes also knows chats."""
    if task not in small_models.TASKS:
        return BY_TASK[task].pipeline()
    pipe = small_models.pipeline(task)
    if task == "text-generation":
        pipe.tokenizer.chat_template = CHAT
    return pipe


@cache
def image() -> bytes:
    """The picture that is asked about."""
    return picture(random.Random(1), 40, 30)


@cache
def sound() -> bytes:
    """The recording that is asked about."""
    return recording(random.Random(1), 3000)


def mean(features: Any) -> Any:
    """The mean of what feature-extraction gives for each token, one long."""
    rows = np.asarray(features)[0].mean(axis=0)
    return rows / np.linalg.norm(rows)


def ranked(answer: Any) -> Any:
    """Zero-shot classification as labels with scores."""
    pairs = zip(answer["labels"], answer["scores"], strict=True)
    return [{"label": label, "score": score} for label, score in pairs]


def masks(answer: Any) -> Any:
    """Segments with their masks as numbers."""
    return [{**item, "mask": np.asarray(item["mask"])} for item in answer]


TABLE = {"batch": ["red", "blue"], "model": ["one", "two"]}
PAIRS = [["red", [10, 10, 19, 20]], ["batch", [20, 10, 29, 20]], ["waits", [30, 10, 39, 20]]]
CHATTING = [{"role": "user", "content": "the queue waits"}]
LABELS = ["red", "the blue queue"]


def of_text(name: str, task: str, text: str, note: str = "", **options: Any) -> Method:
    """A method that has the task's name and takes a text."""
    return Method(
        name,
        task,
        lambda client: getattr(client, name)(text, **options),
        lambda pipe: pipe(text, **options),
        note=note,
    )


def of_file(name: str, file: Callable[[], bytes], note: str = "", **options: Any) -> Method:
    """A method that has the task's name and takes a picture or a recording."""
    opened = seen if file is image else heard
    return Method(
        name,
        name.replace("_", "-"),
        lambda client: getattr(client, name)(file(), **options),
        lambda pipe: pipe(opened(file()), **options.get("extra_body", options)),
        note=note,
    )


METHODS = [
    of_text("fill_mask", "fill-mask", "the [MASK] waits"),
    of_text("fill_mask", "fill-mask", "a [MASK]", "by name", targets=["red", "blue"], top_k=1),
    of_text("text_classification", "text-classification", "the queue waits"),
    of_text("text_classification", "text-classification", "a batch", "of all", top_k=3),
    of_text(
        "text_classification",
        "text-classification",
        "a batch",
        "without shares",
        function_to_apply="none",
    ),
    of_text("token_classification", "token-classification", "alice visits paris"),
    of_text(
        "token_classification",
        "token-classification",
        "alice visits london",
        "in groups",
        aggregation_strategy="simple",
        ignore_labels=[],
    ),
    Method(
        "zero_shot_classification",
        "zero-shot-classification",
        lambda client: client.zero_shot_classification("the queue", LABELS),
        lambda pipe: ranked(pipe("the queue", LABELS)),
    ),
    Method(
        "zero_shot_classification",
        "zero-shot-classification",
        lambda client: client.zero_shot_classification(
            "the queue", LABELS, multi_label=True, hypothesis_template="a {} batch"
        ),
        lambda pipe: ranked(
            pipe("the queue", LABELS, multi_label=True, hypothesis_template="a {} batch")
        ),
        note="each by itself",
    ),
    Method(
        "feature_extraction",
        "feature-extraction",
        lambda client: client.feature_extraction("the queue waits"),
        lambda pipe: np.asarray(pipe("the queue waits")),
        note="of each token",
    ),
    Method(
        "feature_extraction",
        "feature-extraction",
        lambda client: client.feature_extraction(["a", "the queue waits"], normalize=True),
        lambda pipe: np.stack([mean(pipe("a")), mean(pipe("the queue waits"))]),
        note="of texts",
    ),
    Method(
        "sentence_similarity",
        "feature-extraction",
        lambda client: client.sentence_similarity("the queue", ["a batch", "the queue"]),
        lambda pipe: [
            float(mean(pipe("the queue")) @ mean(pipe(other))) for other in ("a batch", "the queue")
        ],
    ),
    Method(
        "text_generation",
        "text-generation",
        lambda client: client.text_generation("the queue", **GREEDY),
        lambda pipe: pipe("the queue", return_full_text=False, **GREEDY)[0]["generated_text"],
    ),
    Method(
        "text_generation",
        "text-generation",
        lambda client: client.text_generation("the queue", return_full_text=True, **GREEDY),
        lambda pipe: pipe("the queue", **GREEDY)[0]["generated_text"],
        note="with the prompt",
    ),
    Method(
        "text_generation",
        "text-generation",
        lambda client: client.text_generation("the queue", stream=True, **GREEDY),
        lambda pipe: pipe("the queue", return_full_text=False, **GREEDY)[0]["generated_text"],
        "".join,
        note="as it is written",
    ),
    Method(
        "chat_completion",
        "text-generation",
        lambda client: client.chat_completion(CHATTING, max_tokens=6, temperature=0),
        lambda pipe: pipe(CHATTING, **GREEDY)[0]["generated_text"][-1]["content"],
        lambda answer: answer.choices[0].message.content,
    ),
    Method(
        "chat_completion",
        "text-generation",
        lambda client: client.chat_completion(CHATTING, max_tokens=6, temperature=0, stream=True),
        lambda pipe: pipe(CHATTING, **GREEDY)[0]["generated_text"][-1]["content"],
        lambda answer: "".join(part.choices[0].delta.content or "" for part in answer),
        note="as it is written",
    ),
    Method(
        "table_question_answering",
        "table-question-answering",
        lambda client: client.table_question_answering(TABLE, "the red batch"),
        lambda pipe: pipe({"table": TABLE, "query": "the red batch"}),
    ),
    Method(
        "document_question_answering",
        "document-question-answering",
        lambda client: client.document_question_answering(
            image(), "the red batch", word_boxes=PAIRS, top_k=2
        ),
        lambda pipe: pipe({"question": "the red batch", "word_boxes": PAIRS}, top_k=2),
    ),
    Method(
        "document_question_answering",
        "document-question-answering",
        lambda client: client.document_question_answering(
            image(), "the red batch", word_boxes=[part for pair in PAIRS for part in pair]
        ),
        lambda pipe: pipe({"question": "the red batch", "word_boxes": PAIRS}),
        note="words and boxes in turn",
    ),
    of_file("image_classification", image),
    of_file("image_classification", image, "of two", top_k=2),
    Method(
        "image_segmentation",
        "image-segmentation",
        lambda client: client.image_segmentation(image()),
        lambda pipe: masks(pipe(seen(image()))),
        masks,
    ),
    of_file("object_detection", image, threshold=0.2),
    of_file("zero_shot_image_classification", image, candidate_labels=LABELS),
    of_file("audio_classification", sound),
    of_file("audio_classification", sound, "of one", top_k=1),
    of_file("automatic_speech_recognition", sound),
    of_file(
        "automatic_speech_recognition",
        sound,
        "with times",
        extra_body={"return_timestamps": "char"},
    ),
    Method(
        "text_to_speech",
        "text-to-audio",
        lambda client: client.text_to_speech("the queue waits"),
        lambda pipe: encode_wav(pipe("the queue waits")),
    ),
]
