"""The six text tasks."""

from __future__ import annotations

import copy
import inspect
import random
from typing import Any

import pytest
import torch

from notebook_serve import (
    Greedy,
    InvalidInput,
    LengthAware,
    NoBatching,
    Policy,
    ResettingWindow,
    Window,
)
from notebook_serve.engine.engine import Engine
from notebook_serve.models.factory import as_model
from notebook_serve.models.text import position_limit

from ..helpers import small_models
from ..helpers.blocking_model import eventually
from ..helpers.compare_answers import assert_same
from ..helpers.engines import make_engine

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def started(pipe: Any) -> Engine:
    engine = make_engine(pipe, Greedy(), timeout=100.0, name="pipelines")
    engine.start()
    return engine


def random_policy(rng: random.Random) -> Policy:
    size = rng.randint(1, 12)
    policies: list[Policy] = [
        NoBatching(),
        ResettingWindow(0.001),
        Window(size, 0.002),
        Greedy(size),
        LengthAware(size, rng.random()),
        LengthAware(size, 1.0, max_tokens=rng.randint(1, 100)),
    ]
    return rng.choice(policies)


@pytest.mark.parametrize("task", small_models.TASKS)
def test_answers_equal_the_pipelines_own_in_every_batch(task: str) -> None:
    """Random inputs, parameters, batches and policies: the same as pipe(x)."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - to repeat a failure
    rng = random.Random(seed)
    pipe, reference = small_models.pipeline(task), small_models.pipeline(task)
    engine = started(pipe)
    try:
        for policy in (Greedy(8), *(random_policy(rng) for _ in range(3))):
            engine.policy = policy
            texts = small_models.inputs(task, 20, rng.randrange(2**32))
            asked = [(text, rng.choice(small_models.PARAMETERS[task])) for text in texts]
            engine.pause()
            futures = [engine.submit([text], parameters)[0] for text, parameters in asked]
            engine.pause(False)
            for (text, parameters), future in zip(asked, futures, strict=True):
                # transformers modifies the parameters.
                expected = reference(text, **copy.deepcopy(parameters))
                assert_same(expected, future.result(60).value, at=f"{text!r}, {parameters}")
        assert max(engine.stats().batch_sizes) > 1
    finally:
        engine.stop(drain=False)


def gpt2(words: Any) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=len(words), n_embd=32, n_layer=2, n_head=2, n_positions=64,
        initializer_range=0.5, bos_token_id=2, eos_token_id=3,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def roberta(words: Any) -> Any:
    from transformers import RobertaConfig, RobertaForSequenceClassification

    config = RobertaConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=66, pad_token_id=0, type_vocab_size=2,
        num_labels=3, initializer_range=0.5,
    )  # fmt: skip
    return RobertaForSequenceClassification(config)


def gpt2_classifier(words: Any) -> Any:
    from transformers import GPT2Config, GPT2ForSequenceClassification

    config = GPT2Config(
        vocab_size=len(words), n_embd=32, n_layer=2, n_head=2, n_positions=64, num_labels=3,
        initializer_range=0.5,
    )  # fmt: skip
    return GPT2ForSequenceClassification(config)


def distilbert(words: Any) -> Any:
    from transformers import DistilBertConfig, DistilBertModel

    return DistilBertModel(
        DistilBertConfig(
            vocab_size=len(words),
            dim=32,
            n_layers=2,
            n_heads=2,
            hidden_dim=64,
            max_position_embeddings=64,
            initializer_range=0.5,
        )
    )


@pytest.mark.parametrize(
    ("task", "build", "batched"),
    [
        ("text-generation", gpt2, True),
        ("text-classification", roberta, True),
        ("text-classification", gpt2_classifier, False),
        ("feature-extraction", distilbert, True),
    ],
)
def test_other_architectures_answer_the_same(task: str, build: Any, batched: bool) -> None:
    """Models with other positions, without a pad token or token types: equal to pipe(x)."""
    from transformers import pipeline

    torch.manual_seed(0)
    words = copy.deepcopy(small_models.tokenizer())
    if build is distilbert:
        words.model_input_names = ["input_ids", "attention_mask"]
    pipe = pipeline(task, model=build(words).eval(), tokenizer=words, device="cpu")
    parameters = {"do_sample": False, "max_new_tokens": 4} if task == "text-generation" else {}
    texts = small_models.inputs(task, 12, 3)
    expected = [pipe(text, **parameters) for text in texts]
    engine = started(pipe)
    try:
        engine.pause()
        futures = engine.submit(texts, parameters)
        engine.pause(False)
        for want, future in zip(expected, futures, strict=True):
            assert_same(want, future.result(60).value)
        assert (max(engine.stats().batch_sizes) > 1) is batched
    finally:
        engine.stop(drain=False)


def test_pairs_chats_and_lists_of_words() -> None:
    """The answers equal those of the pipeline."""
    classify = small_models.pipeline("text-classification")
    label = small_models.pipeline("token-classification")
    generate = small_models.pipeline("text-generation")
    template = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"
    generate.tokenizer.chat_template = template
    chat = [{"role": "user", "content": "the queue waits"}]
    greedy = {"do_sample": False, "max_new_tokens": 3}
    cases: list[tuple[Any, Any, dict[str, Any]]] = [
        (classify, {"text": "the queue", "text_pair": "waits"}, {}),
        (classify, {"text": "the queue"}, {"top_k": 2}),
        (label, ["alice", "visits", "paris"], {"is_split_into_words": True}),
        (generate, chat, greedy),
    ]
    for pipe, given, parameters in cases:
        model = as_model(pipe)
        assert model.split(given, parameters) is None
        item = model.prepare(given, parameters)
        [output] = model.run([item])
        assert_same(pipe(given, **parameters), model.finish(item, output))
    assert as_model(generate).split([chat, chat], {}) == [chat, chat]


def test_length_is_tokens() -> None:
    """The length for policies includes special tokens."""
    model = as_model(small_models.pipeline("fill-mask"))
    assert model.prepare("the [MASK] waits", {}).length == 5


@pytest.mark.parametrize(
    ("task", "given", "parameters", "message"),
    [
        ("fill-mask", "no mask here", {}, "No mask_token"),
        ("fill-mask", 3, {}, "takes a string, not int"),
        ("fill-mask", None, {}, "takes a string, not NoneType"),
        ("fill-mask", "[MASK]", {"top_k": 0}, "'top_k' must be"),
        ("fill-mask", "[MASK]", {"top_p": 0.5}, "does not take the parameter 'top_p'"),
        ("fill-mask", "[MASK]" + " queue" * 100, {}, "tokens, and the model takes at most 64"),
        ("text-classification", {"text": "a", "return_tensors": "np"}, {}, "a pair must be"),
        ("text-classification", "a", {"return_tensors": "np"}, "'return_tensors'"),
        ("zero-shot-classification", "a", {}, "needs the parameter 'candidate_labels'"),
        ("zero-shot-classification", "", {"candidate_labels": ["a"]}, "at least one"),
        ("text-generation", "a", {"max_new_tokens": 10**9}, "'max_new_tokens' must be"),
        ("text-generation", "a", {"custom_generate": "some/repo"}, "'custom_generate'"),
        ("text-generation", [{"role": "user", "content": "a"}], {}, "chat_template"),
        ("token-classification", [1, 2], {"is_split_into_words": True}, "takes a string"),
        ("feature-extraction", "\ud800", {}, "rejects the input"),
    ],
)
def test_what_a_task_rejects(
    task: str, given: Any, parameters: dict[str, Any], message: str
) -> None:
    """Invalid inputs and parameters are rejected before they are enqueued."""
    model = as_model(small_models.pipeline(task))
    with pytest.raises(InvalidInput, match=message):
        model.prepare(given, parameters)


@pytest.mark.parametrize("task", small_models.TASKS)
def test_one_poisoned_item_costs_nobody_else_an_answer(task: str) -> None:
    """A batch of 16 with one failing input: 15 correct answers and one failure."""
    pipe, reference = small_models.pipeline(task), small_models.pipeline(task)
    parameters = small_models.PARAMETERS[task][0]
    poison = small_models.tokenizer().convert_tokens_to_ids("z")
    forward = pipe.model.forward

    def fragile(input_ids: Any = None, *rest: Any, **options: Any) -> Any:
        # Only in a prompt: a later step has one token, which may be this one.
        prompt = input_ids is not None and input_ids.shape[1] > 1
        if prompt and (input_ids == poison).any():
            raise RuntimeError("poisoned")
        return forward(input_ids, *rest, **options)

    fragile.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    pipe.model.forward = fragile
    texts = small_models.inputs(task, 16, 5)
    texts[6] += " z"
    engine = started(pipe)
    engine.policy = Greedy(16)
    try:
        engine.pause()
        futures = engine.submit(texts, parameters)
        eventually(lambda: len(engine.requests.queue()) == 16, "all are prepared")
        engine.pause(False)
        for index, (text, future) in enumerate(zip(texts, futures, strict=True)):
            if index == 6:
                assert "poisoned" in str(future.exception(60))
            else:
                assert_same(reference(text, **parameters), future.result(60).value)
        assert engine.requests.batches()[0].size == 16
        assert engine.requests.batches()[0].retries == 8
    finally:
        engine.stop(drain=False)


def test_position_limit_counts_the_usable_places() -> None:
    """RoBERTa's table begins with unused positions; a rotary model has no limit."""
    words = small_models.tokenizer()
    assert position_limit(roberta(words)) == 65
    assert position_limit(gpt2(words)) == 64
    assert position_limit(small_models.pipeline("text-generation").model) is None
