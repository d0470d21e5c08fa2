"""All tasks of transformers with small models: answers equal those of the pipeline."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from notebook_serve import (
    Greedy,
    InvalidInput,
    LengthAware,
    NoBatching,
    Policy,
    ServedModel,
    Window,
)
from notebook_serve.models.factory import as_model
from notebook_serve.models.tasks import TASKS

from ..generate import task_table
from ..helpers import small_models
from ..helpers.compare_answers import assert_same
from ..helpers.engines import ask_together, started_engine
from ..helpers.task_cases import (
    BY_TASK,
    EXAMPLES,
    MORE,
    Example,
)

#: all examples but those of test_text.py
OTHERS = [example for example in [*EXAMPLES, *MORE] if example.task not in small_models.TASKS]


pytestmark = pytest.mark.usefixtures("one_torch_thread")


def test_the_table_of_tasks_agrees_with_a_live_server() -> None:
    """Each row equals a new one; ``python -m tests.generate.task_table`` writes the table."""
    begin, end = task_table.place()
    lines = task_table.PAGE.read_text("utf-8")[begin:end].splitlines()

    assert len(lines) == len(EXAMPLES) + 2
    assert lines == task_table.table().splitlines()


@pytest.mark.parametrize("example", OTHERS, ids=str)
def test_answers_equal_the_pipelines_own_in_every_batch(example: Example) -> None:
    """Random inputs, parameters, batches and policies: the same as pipe(x)."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - to repeat a failure
    rng = random.Random(seed)
    reference, engine = example.pipeline(), started_engine(example.pipeline())
    count = 12 if TASKS[example.task].batched else 4
    policies: list[Policy] = [Greedy(8), Window(3, 0.002), LengthAware(5, rng.random())]
    try:
        for policy in (Greedy(8), rng.choice([NoBatching(), *policies])):
            engine.policy = policy
            asked = [(example.given(rng), rng.choice(example.parameters)) for _ in range(count)]
            for (given, parameters), found in zip(asked, ask_together(engine, asked), strict=True):
                assert_same(example.answer(reference, given, parameters), found, at=f"{parameters}")
        assert engine.model is not None
        about = ServedModel.of(engine.model)
        assert (max(engine.stats().batch_sizes) > 1) is about.batched
        assert ("one at a time" in about.name) is not about.batched
    finally:
        engine.stop(drain=False)


@pytest.mark.parametrize("example", OTHERS, ids=str)
def test_a_list_is_split(example: Example) -> None:
    """Chats, pairs of images and samples are lists that are one input."""
    model = as_model(example.pipeline())
    for form in example.forms:
        given = form.given(random.Random(1))

        assert model.split([given, given], {}) == [given, given]
        assert model.split(given, {}) is None
    assert model.split([], {}) in ([], None)


@pytest.mark.parametrize(
    ("task", "given", "said"),
    [
        ("table-question-answering", "text", "it must be|Invalid input"),
        ("table-question-answering", {"table": {}, "query": "red"}, "Invalid input|table is empty"),
        ("document-question-answering", {"question": "red"}, "You must provide an image"),
        ("keypoint-matching", [b""], "a pair of images"),
        ("decision", {"state": "red"}, "questions"),
        ("decision", {"state": "red", "questions": {}, "device": 1}, "does not take 'device'"),
        ("decision", "no json", "request of a decision must be JSON"),
        ("text-to-audio", 5, "takes a string, not int"),
        ("audio-classification", b"RIFF", "not a readable audio file"),
        ("video-classification", b"....", "not a readable video file"),
        ("video-classification", {"a": 1}, "takes the bytes of a video"),
        ("image-classification", 5, "an image must be sent as the bytes of a file"),
        ("image-text-to-text", {"text": "red"}, "rejects the input"),
    ],
)
def test_what_a_task_rejects(task: str, given: Any, said: str) -> None:
    """Invalid inputs are rejected before they are enqueued, and the error says why."""
    model = as_model(BY_TASK[task].pipeline())

    with pytest.raises(InvalidInput) as caught:
        model.prepare(given, {})
    assert re.search(said, caught.value.message), caught.value.message
