from __future__ import annotations

import random
import re
from typing import Any

import pytest
import torch

from notebook_serve import (
    Greedy,
    InvalidInput,
    LengthAware,
    NoBatching,
    Policy,
    ServedModel,
    Window,
)
from notebook_serve.engine.engine import Engine
from notebook_serve.models.parameters import TASKS as PARAMETERS
from notebook_serve.models.tasks import TASKS, WRITES, task_of
from notebook_serve.models.text import as_model

from ..generate import task_table
from ..helpers import small_models
from ..helpers.blocking_model import eventually
from ..helpers.compare_answers import assert_same
from ..helpers.task_cases import (
    BY_TASK,
    EXAMPLES,
    MORE,
    Example,
    answer,
    heard,
    picture,
    recording,
    seen,
)

#: those whose small models the tests of text pipelines have
OTHERS = [example for example in [*EXAMPLES, *MORE] if example.task not in small_models.TASKS]


pytestmark = pytest.mark.usefixtures("one_torch_thread")


def started(pipe: Any) -> Engine:
    engine = Engine(pipe, None, Greedy(8), max_queue_size=1000, timeout=100.0, name="tasks")
    engine.start()
    return engine


def together(engine: Engine, asked: list[tuple[Any, Any]]) -> list[Any]:
    """The answers to questions that wait for each other, so that they may share batches."""
    engine.pause()
    futures = [engine.submit([given], parameters)[0] for given, parameters in asked]
    eventually(lambda: len(engine.queue()) == len(asked), "all are prepared")
    engine.pause(False)
    return [future.result(60).value for future in futures]


def test_every_task_of_the_library_is_known() -> None:
    """A task that transformers gains is noticed: it has to be described, and to have an example."""
    from transformers.pipelines import SUPPORTED_TASKS

    assert set(SUPPORTED_TASKS) == set(TASKS) == set(PARAMETERS) == set(BY_TASK)


def test_the_table_of_tasks_agrees_with_a_live_server() -> None:
    """Each row equals a new one; ``python -m tests.generate.task_table`` writes the table."""
    begin, end = task_table.place()
    lines = task_table.PAGE.read_text("utf-8")[begin:end].splitlines()

    assert len(lines) == len(EXAMPLES) + 2
    assert lines == task_table.table().splitlines()


@pytest.mark.parametrize("example", OTHERS, ids=str)
def test_answers_equal_the_pipelines_own_in_every_batch(example: Example) -> None:
    """Random inputs and parameters in random batches under random policies: the same as pipe(x)."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - to repeat a failure
    rng = random.Random(seed)
    reference, engine = example.pipeline(), started(example.pipeline())
    count = 12 if TASKS[example.task].batched else 4
    policies: list[Policy] = [Greedy(8), Window(3, 0.002), LengthAware(5, rng.random())]
    try:
        for policy in (Greedy(8), rng.choice([NoBatching(), *policies])):
            engine.policy = policy
            asked = [(example.given(rng), rng.choice(example.parameters)) for _ in range(count)]
            for (given, parameters), found in zip(asked, together(engine, asked), strict=True):
                assert_same(example.answer(reference, given, parameters), found, at=f"{parameters}")
        assert engine.model is not None
        about = ServedModel.of(engine.model)
        assert (max(engine.stats().batch_sizes) > 1) is about.batched
        assert ("one at a time" in about.name) is not about.batched
    finally:
        engine.stop(drain=False)


@pytest.mark.parametrize("example", OTHERS, ids=str)
def test_one_list_is_many_inputs(example: Example) -> None:
    """Except where it is one: a chat, a pair of pictures, samples."""
    model = as_model(example.pipeline())
    for form in example.forms:
        given = form.given(random.Random(1))

        assert model.split([given, given], {}) == [given, given]
        assert model.split(given, {}) is None
    assert model.split([], {}) in ([], None)


@pytest.mark.parametrize("task", ["audio-classification", "automatic-speech-recognition"])
def test_padding_would_change_an_answer(task: str) -> None:
    """The library's own batch of clips of unlike length answers otherwise than for each alone."""
    example = BY_TASK[task]
    pipe, engine = example.pipeline(), started(example.pipeline())
    clips = [recording(random.Random(seed), count) for seed, count in ((1, 2000), (2, 9000))]
    alone = [pipe(heard(given)) for given in clips]
    try:
        for expected, found in zip(alone, together(engine, [(c, {}) for c in clips]), strict=True):
            assert_same(expected, found)
    finally:
        engine.stop(drain=False)
    with pytest.raises(AssertionError):
        assert_same(alone, pipe([heard(given) for given in clips], batch_size=2))


def test_a_recording_is_as_long_as_it_has_chunks() -> None:
    """So a policy that bounds a batch counts forwards, and not files."""
    model = as_model(BY_TASK["automatic-speech-recognition"].pipeline())
    sound = recording(random.Random(1), 40_000)

    assert model.prepare(sound, {}).length == 1
    assert model.prepare(sound, {"chunk_length_s": 1}).length > 2


def test_a_picture_is_as_long_as_it_has_labels() -> None:
    """Each label that is looked for is a forward."""
    model = as_model(BY_TASK["zero-shot-object-detection"].pipeline())

    made = model.prepare(picture(random.Random(1)), {"candidate_labels": "red,blue,green"})

    assert made.length == 3


def test_many_parts_run_a_few_at_a_time() -> None:
    """A hundred labels of one picture are not a hundred rows of one forward."""
    example = BY_TASK["zero-shot-object-detection"]
    pipe = example.pipeline()
    rows: list[int] = []
    forward = pipe.model.forward

    def counted(**inputs: Any) -> Any:
        rows.append(len(inputs["pixel_values"]))
        return forward(**inputs)

    pipe.model.forward = counted
    model = as_model(pipe)
    labels = [f"{word} queue" for word in small_models.WORDS]
    given = picture(random.Random(1))
    item = model.prepare(given, {"candidate_labels": labels, "threshold": 0.01})
    [output] = model.run([item])

    assert item.length == len(labels) > 16
    assert rows == [16, len(labels) - 16]
    assert_same(
        example.answer(example.pipeline(), given, item.parameters), model.finish(item, output)
    )


@pytest.mark.parametrize("task", ["image-classification", "zero-shot-object-detection"])
def test_pictures_of_other_shapes_stay_apart(task: str) -> None:
    """Where a processor keeps sizes, tensors are unlike: those that are alike share batches."""
    example = BY_TASK[task]
    if task == "image-classification":
        # A model of convolutions takes any size.
        from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessorPil
        from transformers import pipeline as make

        config = ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=3, layer_type="basic"
        )
        torch.manual_seed(0)
        processor = ViTImageProcessorPil(do_resize=False)
        model = ResNetForImageClassification(config).eval()
        pipe = make(task, model=model, image_processor=processor, device="cpu")
    else:
        pipe = example.pipeline()
    rng = random.Random(4)
    parameters = example.parameters[0]
    asked = [(picture(rng, side, side), parameters) for side in (30, 40, 30, 40, 30)]
    engine = started(pipe)
    try:
        for (given, _), found in zip(asked, together(engine, asked), strict=True):
            assert_same(answer(pipe, seen(given), parameters), found)
        sizes = {3: 1, 2: 1} if task == "image-classification" else {5: 1}
        assert dict(engine.stats().batch_sizes) == sizes
    finally:
        engine.stop(drain=False)


def test_one_poisoned_picture_costs_nobody_else_an_answer() -> None:
    """A batch with a picture that makes the forward fail: all others are answered rightly."""
    example = BY_TASK["image-classification"]
    pipe, reference = example.pipeline(), example.pipeline()
    rng = random.Random(2)
    pictures = [picture(rng) for _ in range(8)]
    poison = reference.preprocess(seen(pictures[5]))["pixel_values"]
    forward = pipe.model.forward

    def fragile(**inputs: Any) -> Any:
        if any(torch.equal(row, poison[0]) for row in inputs["pixel_values"]):
            raise RuntimeError("poisoned")
        return forward(**inputs)

    pipe.model.forward = fragile
    engine = started(pipe)
    try:
        engine.pause()
        futures = engine.submit(pictures, {})
        eventually(lambda: len(engine.queue()) == 8, "all are prepared")
        engine.pause(False)
        for index, (given, future) in enumerate(zip(pictures, futures, strict=True)):
            if index == 5:
                assert "poisoned" in str(future.exception(60))
            else:
                assert_same(reference(seen(given)), future.result(60).value)
        assert engine.batches()[0].size == 8
    finally:
        engine.stop(drain=False)


def test_a_model_that_writes_is_not_batched() -> None:
    """Two kinds of speech recognition: the one that writes its answer says why it runs alone."""
    [writes] = [example for example in MORE if "writing" in example.name]
    one, other = ServedModel.of(as_model(writes.pipeline())), BY_TASK[writes.task].pipeline()

    assert (one.batched, one.why) == (False, WRITES)
    assert ServedModel.of(as_model(other)).batched


def test_a_tokenizer_of_a_decision_is_the_workers_own() -> None:
    """The library keeps a function that was made with the user's, and calls it while it runs."""
    pipe = BY_TASK["decision"].pipeline()
    model: Any = as_model(pipe)
    used = [part.label_token_ids.__wrapped__.args[0] for part in (model._reader, model._runner)]

    assert used == [model._reader.tokenizer, model._runner.tokenizer]
    assert pipe.tokenizer not in used


def test_a_task_is_told_by_the_class() -> None:
    """Whatever name a pipeline was made by, and where it was made without one."""
    from transformers import TextClassificationPipeline

    plain = small_models.pipeline("text-classification")

    class Mine(TextClassificationPipeline):  # type: ignore[misc]
        """Somebody's own."""

    for kind in (TextClassificationPipeline, Mine):
        made = kind(model=plain.model, tokenizer=plain.tokenizer, task="sentiment-analysis")
        assert task_of(made) == "text-classification"


@pytest.mark.parametrize(
    ("task", "given", "said"),
    [
        ("table-question-answering", "text", "it must be|Invalid input"),
        ("table-question-answering", {"table": {}, "query": "red"}, "Invalid input|table is empty"),
        ("document-question-answering", {"question": "red"}, "You must provide an image"),
        ("keypoint-matching", [b""], "a pair of images"),
        ("decision", {"state": "red"}, "questions"),
        ("decision", {"state": "red", "questions": {}, "device": 1}, "takes no 'device'"),
        ("decision", "no json", "request is JSON"),
        ("text-to-audio", 5, "takes a string, not int"),
        ("audio-classification", b"RIFF", "no audio that can be read"),
        ("video-classification", b"....", "no video that can be read"),
        ("video-classification", {"a": 1}, "takes the bytes of a video"),
        ("image-classification", 5, "an image comes as the bytes of a file"),
        ("image-text-to-text", {"text": "red"}, "rejects the input"),
    ],
)
def test_what_a_task_rejects(task: str, given: Any, said: str) -> None:
    """Wrong inputs are refused before they wait, saying what is wrong."""
    model = as_model(BY_TASK[task].pipeline())

    with pytest.raises(InvalidInput) as caught:
        model.prepare(given, {})
    assert re.search(said, caught.value.message), caught.value.message
