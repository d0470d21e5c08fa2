"""Pipelines with inputs of equal tensor shape in one forward pass."""

from __future__ import annotations

import io
import random
from typing import Any

import pytest
import torch

from notebook_serve import (
    InvalidInput,
    ServedModel,
)
from notebook_serve.models.factory import as_model
from notebook_serve.models.tasks import WRITES

from ..helpers import small_models
from ..helpers.blocking_model import eventually
from ..helpers.compare_answers import assert_same
from ..helpers.engines import ask_together, started_engine
from ..helpers.task_cases import (
    BY_TASK,
    MORE,
    answer,
    heard,
    picture,
    recording,
    seen,
)

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.mark.parametrize("task", ["audio-classification", "automatic-speech-recognition"])
def test_padding_would_change_an_answer(task: str) -> None:
    """A batch of clips of different lengths in transformers has other answers than each clip."""
    example = BY_TASK[task]
    pipe, engine = example.pipeline(), started_engine(example.pipeline())
    clips = [recording(random.Random(seed), count) for seed, count in ((1, 2000), (2, 9000))]
    alone = [pipe(heard(given)) for given in clips]
    try:
        for expected, found in zip(
            alone, ask_together(engine, [(c, {}) for c in clips]), strict=True
        ):
            assert_same(expected, found)
    finally:
        engine.stop(drain=False)
    with pytest.raises(AssertionError):
        assert_same(alone, pipe([heard(given) for given in clips], batch_size=2))


def test_a_recording_is_as_long_as_it_has_chunks() -> None:
    """A policy that bounds the batch size counts parts instead of files."""
    model = as_model(BY_TASK["automatic-speech-recognition"].pipeline())
    sound = recording(random.Random(1), 40_000)

    assert model.prepare(sound, {}).length == 1
    assert model.prepare(sound, {"chunk_length_s": 1}).length > 2


def test_a_picture_is_as_long_as_it_has_labels() -> None:
    """Each label is a part."""
    model = as_model(BY_TASK["zero-shot-object-detection"].pipeline())

    made = model.prepare(picture(random.Random(1)), {"candidate_labels": "red,blue,green"})

    assert made.length == 3


def test_many_parts_run_a_few_at_a_time() -> None:
    """The labels of one image run in forward passes of 16 rows."""
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
    """If a processor keeps sizes, only images of one size share a batch."""
    example = BY_TASK[task]
    if task == "image-classification":
        # A convolutional model takes any size.
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
    engine = started_engine(pipe)
    try:
        for (given, _), found in zip(asked, ask_together(engine, asked), strict=True):
            assert_same(answer(pipe, seen(given), parameters), found)
        sizes = {3: 1, 2: 1} if task == "image-classification" else {5: 1}
        assert dict(engine.stats().batch_sizes) == sizes
    finally:
        engine.stop(drain=False)


def test_one_poisoned_picture_fails_alone() -> None:
    """A batch with one failing image: all other answers are correct."""
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
    engine = started_engine(pipe)
    try:
        engine.pause()
        futures = engine.submit(pictures, {})
        eventually(lambda: len(engine.requests.queue()) == 8, "all are prepared")
        engine.pause(False)
        for index, (given, future) in enumerate(zip(pictures, futures, strict=True)):
            if index == 5:
                assert "poisoned" in str(future.exception(60))
            else:
                assert_same(reference(seen(given)), future.result(60).value)
        assert engine.requests.batches()[0].size == 8
    finally:
        engine.stop(drain=False)


def test_a_model_that_generates_is_not_batched() -> None:
    """Of two speech models, the one that generates gives the reason in `why`."""
    [writes] = [example for example in MORE if "writing" in example.name]
    one, other = ServedModel.of(as_model(writes.pipeline())), BY_TASK[writes.task].pipeline()

    assert (one.batched, one.why) == (False, WRITES)
    assert ServedModel.of(as_model(other)).batched


def test_a_tokenizer_of_a_decision_is_the_workers_own() -> None:
    """transformers keeps a function with the original tokenizer, which the copy must replace."""
    pipe = BY_TASK["decision"].pipeline()
    model: Any = as_model(pipe)
    used = [part.label_token_ids.__wrapped__.args[0] for part in (model._reader, model._runner)]

    assert used == [model._reader.tokenizer, model._runner.tokenizer]
    assert pipe.tokenizer not in used


def test_another_task_takes_its_own_parameters_and_no_others() -> None:
    """Parameters outside the allow-list, such as a path, are rejected."""
    from PIL import Image
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor, pipeline

    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=8, patch_size=4, num_labels=3,
    )  # fmt: skip
    pipe = pipeline(
        "image-classification",
        model=ViTForImageClassification(config).eval(),
        image_processor=ViTImageProcessor(size={"height": 8, "width": 8}),
        device="cpu",
    )
    image = Image.new("RGB", (9, 9), (250, 120, 10))
    picture = io.BytesIO()
    image.save(picture, format="PNG")
    engine = started_engine(pipe)
    try:
        asked = {"top_k": 2, "function_to_apply": "none"}
        answer = engine.submit([picture.getvalue()], asked)[0].result(60).value
        assert_same(pipe(image, **asked), answer)
        for refused in ({"timeout": 1}, {"top_k": -1}, {"images": "/etc/passwd"}):
            with pytest.raises(InvalidInput):
                engine.submit([picture.getvalue()], refused)[0].result(60)
    finally:
        engine.stop(drain=False)
