from __future__ import annotations

import copy
import inspect
import io
import random
import threading
from concurrent.futures import Future
from typing import Any

import pytest
import torch

from notebook_serve import (
    Greedy,
    InvalidInput,
    LengthAware,
    NoBatching,
    OptionError,
    Policy,
    ResettingWindow,
    Window,
)
from notebook_serve.engine.engine import Engine
from notebook_serve.engine.requests import Answer
from notebook_serve.models.text import TextPipeline, as_model, position_limit
from notebook_serve.models.unbatched import AnyPipeline

from ..helpers import small_models
from ..helpers.blocking_model import eventually
from ..helpers.compare_answers import assert_same

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def started(pipe: Any) -> Engine:
    engine = Engine(pipe, None, Greedy(), max_queue_size=1000, timeout=100.0, name="pipelines")
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
    """Random inputs and parameters in random batches under random policies: the same as pipe(x)."""
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
                # The library writes into the parameters it is given.
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
    """Places counted from elsewhere, no pad token, no token types: still equal to pipe(x)."""
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


def test_inputs_that_are_no_plain_strings() -> None:
    """Pairs, chats and lists of words are answered as the pipeline answers them."""
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
    """The length that policies see counts tokens, special ones included."""
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
        ("fill-mask", "[MASK]" + " queue" * 100, {}, "tokens long, and the model takes 64"),
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
    """Wrong inputs and parameters are refused before they wait, saying what is wrong."""
    model = as_model(small_models.pipeline(task))
    with pytest.raises(InvalidInput, match=message):
        model.prepare(given, parameters)


@pytest.mark.parametrize("task", small_models.TASKS)
def test_one_poisoned_item_costs_nobody_else_an_answer(task: str) -> None:
    """A batch of 16 with an item that makes the forward fail: 15 right answers and one failure."""
    pipe, reference = small_models.pipeline(task), small_models.pipeline(task)
    parameters = small_models.PARAMETERS[task][0]
    poison = small_models.tokenizer().convert_tokens_to_ids("z")
    forward = pipe.model.forward

    def fragile(input_ids: Any = None, *rest: Any, **options: Any) -> Any:
        # Only in a prompt: a step of generation has one token, and may well write this one.
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
        eventually(lambda: len(engine.queue()) == 16, "all are prepared")
        engine.pause(False)
        for index, (text, future) in enumerate(zip(texts, futures, strict=True)):
            if index == 6:
                assert "poisoned" in str(future.exception(60))
            else:
                assert_same(reference(text, **parameters), future.result(60).value)
        assert engine.batches()[0].size == 16
        assert engine.batches()[0].retries == 8
    finally:
        engine.stop(drain=False)


def test_a_model_left_in_training_mode_is_put_right() -> None:
    """pipeline(model=object) leaves dropout on; served, the model is in eval mode."""
    pipe = small_models.pipeline("text-classification")
    pipe.model.train()
    as_model(pipe)
    assert not pipe.model.training


def test_the_weights_are_not_copied_and_the_tokenizer_is() -> None:
    """The server shares the user's weights, and no two threads share a tokenizer."""
    pipe = small_models.pipeline("fill-mask")
    model = as_model(pipe)
    assert isinstance(model, TextPipeline)
    copies = [model._reader, model._runner]
    assert all(one.model is pipe.model for one in copies)
    backends = {id(one.tokenizer.backend_tokenizer) for one in [pipe, *copies]}
    assert len(backends) == 3


def test_a_users_tokenizer_and_the_servers_never_meet() -> None:
    """While a cell tokenises with other settings, the server's tokens stay right.

    With one shared tokenizer this fails: every call sets truncation on the shared object, and
    another thread then tokenises with it. The second half shows that, to prove the first.
    """
    pipe = small_models.pipeline("feature-extraction")
    text = "the queue waits for the server and the model runs slowly " * 4
    expected = pipe.tokenizer(text)["input_ids"]
    server_side = as_model(pipe)
    assert isinstance(server_side, TextPipeline)

    assert wrong_while_disturbed(server_side._reader.tokenizer, pipe.tokenizer, text, expected) == 0
    assert wrong_while_disturbed(pipe.tokenizer, pipe.tokenizer, text, expected) > 0


def wrong_while_disturbed(tokenizer: Any, disturbed: Any, text: str, expected: Any) -> int:
    """How many of many calls gave wrong tokens while another thread used `disturbed`."""
    stop = threading.Event()

    def disturb() -> None:
        while not stop.is_set():
            disturbed(text, truncation=True, max_length=4)

    threads = [threading.Thread(target=disturb) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        wrong = 0
        for _ in range(20_000):
            wrong += tokenizer(text)["input_ids"] != expected
            if wrong:
                break
        return wrong
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_the_served_pipeline_under_mixed_truncation_and_calls_from_a_cell() -> None:
    """Requests with different truncation, and pipe(...) in a cell meanwhile: all are right."""
    pipe, reference = (small_models.pipeline("feature-extraction") for _ in range(2))
    text = "the queue waits for the server " * 4
    lengths: list[int | None] = [None, 4, 9]
    settings: dict[int | None, dict[str, Any]] = {
        length: {"truncation": True, "tokenize_kwargs": {"max_length": length}} if length else {}
        for length in lengths
    }
    expected = {
        length: len(reference(text, **copy.deepcopy(settings[length]))[0]) for length in lengths
    }
    engine = started(pipe)
    stop = threading.Event()
    wrong: list[int] = []

    def cell() -> None:
        while not stop.is_set():
            for length in lengths:
                got = len(pipe(text, **copy.deepcopy(settings[length]))[0])
                if got != expected[length]:
                    wrong.append(got)

    thread = threading.Thread(target=cell)
    thread.start()
    try:
        futures: list[tuple[int | None, Future[Answer]]] = [
            (length, engine.submit([text], settings[length])[0])
            for _ in range(100)
            for length in lengths
        ]
        for length, future in futures:
            assert len(future.result(60).value[0]) == expected[length]
    finally:
        stop.set()
        thread.join()
        engine.stop(drain=False)
    assert not wrong


def test_any_other_pipeline_runs_one_at_a_time() -> None:
    """A task without a batching of its own is called as its user would; a subclass too."""
    from transformers import FillMaskPipeline

    class Shouting(FillMaskPipeline):  # type: ignore[misc]
        def postprocess(self, *arguments: Any, **options: Any) -> Any:
            answers = super().postprocess(*arguments, **options)
            return [answer["token_str"].upper() for answer in answers]

    plain = small_models.pipeline("fill-mask")
    pipe = Shouting(model=plain.model, tokenizer=plain.tokenizer, device="cpu")
    assert isinstance(as_model(pipe), AnyPipeline)
    texts = small_models.inputs("fill-mask", 6, 1)
    engine = started(pipe)
    try:
        answers = [future.result(60).value for future in engine.submit(texts, {"top_k": 2})]
        assert answers == [pipe(text, top_k=2) for text in texts]
        assert dict(engine.stats().batch_sizes) == {1: 6}
        assert "one at a time" in engine.stats().model
    finally:
        engine.stop(drain=False)


def test_another_task_takes_its_own_parameters_and_no_others() -> None:
    """Images are classified by parameters of a table; none of it opens or loads anything."""
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
    engine = started(pipe)
    try:
        asked = {"top_k": 2, "function_to_apply": "none"}
        answer = engine.submit([picture.getvalue()], asked)[0].result(60).value
        assert_same(pipe(image, **asked), answer)
        for refused in ({"timeout": 1}, {"top_k": -1}, {"images": "/etc/passwd"}):
            with pytest.raises(InvalidInput):
                engine.submit([picture.getvalue()], refused)[0].result(60)
    finally:
        engine.stop(drain=False)


def test_the_items_of_a_list_do_not_share_what_the_library_writes() -> None:
    """It writes into the parameters of a call, and would find that in those of the next."""
    from transformers import FeatureExtractionPipeline

    class Mine(FeatureExtractionPipeline):  # type: ignore[misc]
        pass

    plain = small_models.pipeline("feature-extraction")
    pipe = Mine(plain.model, tokenizer=plain.tokenizer, device="cpu", task="feature-extraction")
    engine = started(pipe)
    try:
        asked = {"truncation": True, "tokenize_kwargs": {"max_length": 4}}
        answers = engine.submit(["the queue waits for the model"] * 3, asked)
        assert [len(answer.result(60).value[0]) for answer in answers] == [4, 4, 4]
        assert asked == {"truncation": True, "tokenize_kwargs": {"max_length": 4}}
    finally:
        engine.stop(drain=False)


@pytest.mark.parametrize("thing", [3, "fill-mask", object()])
def test_what_is_no_model(thing: object) -> None:
    """Neither a pipeline nor a callable: refused in the cell, saying what is wanted."""
    with pytest.raises(OptionError, match="neither a transformers pipeline nor a callable"):
        as_model(thing)


def test_position_limit_counts_the_usable_places() -> None:
    """RoBERTa's table begins with two that are never used; a rotary model has no limit."""
    words = small_models.tokenizer()
    assert position_limit(roberta(words)) == 65
    assert position_limit(gpt2(words)) == 64
    assert position_limit(small_models.pipeline("text-generation").model) is None
