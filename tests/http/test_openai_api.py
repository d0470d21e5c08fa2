from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notebook_serve import Greedy, Server, serve, servers

from ..helpers import raw_clients as web
from ..helpers import small_models
from ..helpers.blocking_model import Steps, eventually
from ..helpers.hf_client_cases import CHATTING, GREEDY, mean, pipeline
from .test_app import JSON_VALUES

Make = Callable[..., Server]
#: what GREEDY is here
PLAIN = {"model": "default", "temperature": 0, "max_tokens": 6}
LONG = {**PLAIN, "max_tokens": 60}


@pytest.fixture
def client_of() -> Iterator[Callable[..., Any]]:
    """Return a function that makes a client of `openai` for a server, without retries."""
    clients: list[openai.OpenAI] = []

    def client_of(server: Server, **options: Any) -> openai.OpenAI:
        base = {"base_url": server.url + "/v1", "api_key": "none", "max_retries": 0}
        clients.append(openai.OpenAI(**{**base, **options}))
        return clients[-1]

    yield client_of
    for client in clients:
        client.close()


ClientOf = Callable[..., Any]


def written(pipe: Any, prompt: Any, **parameters: Any) -> str:
    """What the pipeline writes, without the prompt."""
    made = pipe(prompt, return_full_text=False, **{**GREEDY, **parameters})
    text: str = made[0]["generated_text"]
    return text


def texts_of(stream: Any) -> list[str]:
    """Return the texts of a streamed completion."""
    return [choice.text for part in stream for choice in part.choices]


# -- models ---------------------------------------------------------------------------------


def test_it_lists_what_it_serves(make: Make, client_of: ClientOf) -> None:
    """The model is listed and described; another one is 404."""
    client = client_of(make(pipeline("fill-mask"), name="default"))
    assert [model.id for model in client.models.list()] == ["default"]
    assert client.models.retrieve("default").object == "model"
    with pytest.raises(openai.NotFoundError, match="has no model 'other'"):
        client.models.retrieve("other")


# -- embeddings -----------------------------------------------------------------------------


def test_an_embedding_is_the_mean_of_a_texts_tokens(make: Make, client_of: ClientOf) -> None:
    """Embeddings are normalised, in order, and equal as numbers, in base64, alone and in a list."""
    pipe = pipeline("feature-extraction")
    server = make(pipe)
    client = client_of(server)
    inputs = small_models.inputs("feature-extraction", 12, seed=3)
    coded = client.embeddings.create(model="default", input=inputs)  # the client asks for base64
    plain = client.embeddings.create(model="default", input=inputs, encoding_format="float")
    for text, one, other in zip(inputs, coded.data, plain.data, strict=True):
        np.testing.assert_allclose(one.embedding, mean(pipe(text)), atol=1e-5)
        np.testing.assert_allclose(other.embedding, one.embedding, atol=1e-5)
    assert [item.index for item in coded.data] == list(range(12))
    counts = [len(pipe.tokenizer(text)["input_ids"]) for text in inputs]
    assert coded.usage.prompt_tokens == coded.usage.total_tokens == sum(counts)
    alone = client.embeddings.create(model="default", input=inputs[0])
    np.testing.assert_allclose(alone.data[0].embedding, plain.data[0].embedding, atol=1e-5)
    assert alone.usage.prompt_tokens == counts[0]
    assert len(server.records()) == 25


# -- text -----------------------------------------------------------------------------------


def test_a_completion_is_what_the_pipeline_writes(make: Make, client_of: ClientOf) -> None:
    """The completion has the pipeline's text, the token counts and the finish reason."""
    pipe = pipeline("text-generation")
    made = client_of(make(pipe)).completions.create(prompt="the queue", **PLAIN)
    (choice,) = made.choices
    assert (choice.text, choice.finish_reason) == (written(pipe, "the queue"), "length")
    count = len(pipe.tokenizer("the queue")["input_ids"])
    assert made.usage.prompt_tokens == count
    assert (made.usage.completion_tokens, made.usage.total_tokens) == (6, count + 6)
    assert made.model == "default"


def test_a_chat_is_answered_with_its_next_message(make: Make, client_of: ClientOf) -> None:
    """Content may be a text or parts of text; the template sees roles and texts."""
    pipe = pipeline("text-generation")
    client = client_of(make(pipe))
    parts = [{"type": "text", "text": "the queue "}, {"type": "text", "text": "waits"}]
    for messages in (CHATTING, [{"role": "user", "content": parts, "name": None}]):
        made = client.chat.completions.create(
            messages=messages, model="default", temperature=0, max_completion_tokens=6
        )
        (choice,) = made.choices
        assert (choice.message.role, choice.message.content) == (
            "assistant",
            written(pipe, CHATTING),
        )
        ids = pipe.tokenizer.apply_chat_template(
            CHATTING, add_generation_prompt=True, return_dict=True
        )["input_ids"]
        assert made.usage.prompt_tokens == len(ids)


def test_a_list_of_prompts_shares_batches(make: Make, client_of: ClientOf) -> None:
    """Each prompt is an entry of the queue, with the answer that it has alone."""
    pipe = pipeline("text-generation")
    server = make(pipe, policy=Greedy(16))
    prompts = small_models.inputs("text-generation", 16, seed=7, most=8)
    server.pause()
    answer: list[Any] = []

    async def ask() -> None:
        async with openai.AsyncOpenAI(
            base_url=server.url + "/v1", api_key="none", max_retries=0
        ) as client:
            asked = asyncio.ensure_future(client.completions.create(prompt=prompts, **PLAIN))
            while len(server.queue()) < 16:
                await asyncio.sleep(0.001)
            server.resume()
            answer.append(await asked)

    asyncio.run(ask())
    choices = answer[0].choices
    assert [choice.text for choice in choices] == [written(pipe, prompt) for prompt in prompts]
    assert [choice.index for choice in choices] == list(range(16))
    assert [batch.size for batch in server.batches()] == [16]
    tokens = sum(len(pipe.tokenizer(prompt)["input_ids"]) for prompt in prompts)
    assert answer[0].usage.prompt_tokens == tokens


def test_several_answers_to_one_prompt(make: Make, client_of: ClientOf) -> None:
    """`n` choices are sampled for each prompt, in the prompts' order."""
    server = make(pipeline("text-generation"))
    client = client_of(server)
    made = client.completions.create(
        model="default", prompt=["a", "the"], n=3, max_tokens=4, temperature=1.5
    )
    assert [choice.index for choice in made.choices] == list(range(6))
    assert 0 < made.usage.completion_tokens <= 24
    assert len(server.records()) == 2
    chat = client.chat.completions.create(model="default", messages=CHATTING, n=2, max_tokens=2)
    assert len(chat.choices) == 2


def test_it_ends_where_the_model_ends_it(make: Make, client_of: ClientOf) -> None:
    """The finish reason is ``stop``; the end token is counted but not shown."""
    pipe = pipeline("text-generation")
    client = client_of(make(pipe))
    ended = 0
    for prompt in small_models.inputs("text-generation", 12, seed=1, most=4):
        made = client.completions.create(prompt=prompt, **LONG)
        ids = pipe(prompt, return_tensors=True, do_sample=False, max_new_tokens=60)
        new = ids[0]["generated_token_ids"][made.usage.prompt_tokens :]
        assert made.usage.completion_tokens == len(new)
        at_end = new[-1] == pipe.tokenizer.sep_token_id
        ended += at_end
        assert made.choices[0].finish_reason == ("stop" if at_end else "length")
        assert made.choices[0].text == written(pipe, prompt, max_new_tokens=60)
    assert ended


@pytest.mark.parametrize("stream", [True, False])
def test_it_stops_before_a_text(make: Make, client_of: ClientOf, stream: bool) -> None:
    """The text ends before the first stop text, even if that spans several tokens."""
    pipe = pipeline("text-generation")
    whole = written(pipe, "the", max_new_tokens=60)
    stop = whole[9:15]
    server = make(pipe)
    made = client_of(server).completions.create(
        prompt="the", stop=["never", stop], stream=stream, **LONG
    )
    if stream:
        parts = list(made)
        text = "".join(texts_of(parts))
        reason = parts[-1].choices[0].finish_reason
    else:
        text, reason = made.choices[0].text, made.choices[0].finish_reason
        assert made.usage.completion_tokens < 20
    assert (text, reason) == (whole[: whole.index(stop)], "stop")
    assert server.predict("the", do_sample=False, max_new_tokens=2)


def test_a_stream_is_the_same_in_parts(make: Make, client_of: ClientOf) -> None:
    """A streamed completion or chat ends with a reason and, on request, the usage."""
    pipe = pipeline("text-generation")
    server = make(pipe)
    client = client_of(server)
    counted = {"stream": True, "stream_options": {"include_usage": True}}
    parts = list(client.completions.create(prompt="the", **PLAIN, **counted))
    assert "".join(texts_of(parts)) == written(pipe, "the")
    assert [p.choices[0].finish_reason for p in parts[:-1]] == [None] * (len(parts) - 2) + [
        "length"
    ]
    assert parts[-1].choices == []
    assert (parts[-1].usage.prompt_tokens, parts[-1].usage.completion_tokens) == (3, 6)

    parts = list(client.chat.completions.create(messages=CHATTING, stream=True, **PLAIN))
    assert parts[0].choices[0].delta.role == "assistant"
    content = "".join(part.choices[0].delta.content or "" for part in parts)
    assert content == written(pipe, CHATTING)
    assert parts[-1].choices[0].finish_reason == "length"
    assert len({part.id for part in parts}) == 1
    assert [record.outcome for record in server.records()] == ["ok"] * 2


def test_the_head_of_a_stream(make: Make) -> None:
    """The headers have the id and the time of the first token."""
    server = make(pipeline("text-generation"))
    body = {"prompt": "the", "stream": True, **PLAIN}
    with (
        server.httpx(headers={"x-request-id": "a-1"}) as client,
        client.stream("POST", "/v1/completions", json=body) as response,
    ):
        assert response.headers["content-type"].startswith("text/event-stream")
        assert (response.headers["x-request-id"], response.headers["x-batch-size"]) == ("a-1", "1")
        name, _, milliseconds = response.headers["server-timing"].partition(";dur=")
        lines = [line for line in response.iter_lines() if line]
    assert (name, lines[-1]) == ("first-token", "data: [DONE]")
    (record,) = server.records()
    assert 0 < float(milliseconds) / 1e3 <= record.latency + 1
    assert json.loads(lines[0].removeprefix("data: "))["id"] == "cmpl-a-1"


def test_it_can_be_awaited(make: Make) -> None:
    """The asynchronous client receives each part when it is generated."""
    pipe = pipeline("text-generation")
    server = make(pipe)

    async def ask() -> list[str]:
        base = {"base_url": server.url + "/v1", "api_key": "none", "max_retries": 0}
        async with openai.AsyncOpenAI(**base) as client:
            stream = await client.completions.create(prompt="the", stream=True, **PLAIN)
            return [part.choices[0].text async for part in stream]

    assert "".join(asyncio.run(ask())) == written(pipe, "the")


@web.every_variant
def test_who_leaves_in_the_middle_has_nothing_more_written(
    make: Make, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch, http: str, loop: str
) -> None:
    """Generation stops at the next token, the record says cancelled, and the next is answered."""
    web.use(monkeypatch, http, loop)
    pipe = pipeline("text-generation")
    steps = Steps(pipe, free=3)
    server = make(pipe)
    with closing(client_of(server).completions.create(prompt="the", stream=True, **LONG)) as parts:
        assert next(iter(parts)).choices[0].text
    eventually(lambda: server.stats().outcomes["cancelled"] == 1, "the client is gone")
    steps.opened.set()
    assert server.predict("the", **GREEDY)
    assert steps.count <= 4 + 6
    assert [record.outcome for record in server.records()] == ["cancelled", "ok"]


def test_a_disconnect_without_a_stream_stops_generation(make: Make) -> None:
    """Without a stream generation stops too, and another request of the batch is finished."""
    pipe = pipeline("text-generation")
    steps = Steps(pipe, free=3)
    server = make(pipe, policy=Greedy(16))
    server.pause()
    body = {"prompt": "the", "model": "default", "temperature": 0, "max_tokens": 60}
    sent = json.dumps(body).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
    with web.connected(server) as connection:
        connection.sendall(head % len(sent) + sent)
        eventually(lambda: len(server.queue()) == 1, "it waits")
        (mate,) = server._engine.submit(["the"], {"do_sample": False, "max_new_tokens": 60})
        eventually(lambda: len(server.queue()) == 2, "both wait")
        server.resume()
        assert steps.held.wait(30)
    eventually(lambda: server.stats().outcomes["cancelled"] == 1, "the client is gone")
    steps.opened.set()
    expected = pipe("the", do_sample=False, max_new_tokens=60)
    assert mate.result(30).value == expected
    assert [batch.size for batch in server.batches()] == [2]


def test_time_runs_out_in_the_middle(make: Make, client_of: ClientOf) -> None:
    """A stream ends with the error, which the client raises."""
    pipe = pipeline("text-generation")
    steps = Steps(pipe, free=3)
    server = make(pipe, timeout=1.0)
    parts = client_of(server).completions.create(prompt="the", stream=True, **LONG)
    with pytest.raises(openai.APIError, match="ran out while it ran"):
        list(parts)
    steps.opened.set()
    assert server.predict("the", **GREEDY)
    assert [record.outcome for record in server.records()] == ["expired", "ok"]


# -- what is refused ------------------------------------------------------------------------

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
VECTOR = "/v1/embeddings"
SAID = {"messages": CHATTING}
REFUSED: list[tuple[str, str, dict[str, Any], str]] = [
    ("feature-extraction", VECTOR, {"input": "a", "dimensions": 3}, "'dimensions'"),
    ("feature-extraction", VECTOR, {"input": "a", "user": "u"}, "'user'"),
    ("feature-extraction", VECTOR, {"input": [1, 2]}, "'input' must be"),
    ("feature-extraction", VECTOR, {"input": []}, "'input' must be"),
    ("feature-extraction", VECTOR, {"input": "a " * 99}, "the model takes at most 64"),
    ("feature-extraction", TEXT, {"prompt": "a"}, "feature-extraction, BertModel writes no text"),
    ("text-generation", VECTOR, {"input": "a"}, "this model is for text-generation"),
    ("text-generation", TEXT, {"prompt": "a", "seed": 1}, "'seed'"),
    ("text-generation", TEXT, {"prompt": "a", "echo": True}, "'echo' must be one of False"),
    ("text-generation", TEXT, {"prompt": "a", "logprobs": 1}, "'logprobs'"),
    ("text-generation", TEXT, {"prompt": "a", "suffix": "z"}, "'suffix'"),
    ("text-generation", TEXT, {"prompt": "a", "best_of": 2}, "'best_of'"),
    ("text-generation", TEXT, {"prompt": [1, 2]}, "'prompt' must be"),
    (
        "text-generation",
        TEXT,
        {"prompt": "a", "n": 2, "temperature": 0},
        "n must be 1 with temperature 0",
    ),
    ("text-generation", TEXT, {"prompt": "a", "n": 2, "stream": True}, "one sequence"),
    ("text-generation", TEXT, {"prompt": ["a", "b"], "stream": True}, "one prompt"),
    ("text-generation", TEXT, {"prompt": "a", "stream_options": {}}, "'stream_options' needs"),
    ("text-generation", CHAT, {**SAID, "tools": []}, "'tools'"),
    ("text-generation", CHAT, {**SAID, "response_format": {"type": "json_object"}}, "response_"),
    ("text-generation", CHAT, {**SAID, "logit_bias": {"5": 1}}, "'logit_bias'"),
    ("text-generation", CHAT, {**SAID, "presence_penalty": 1}, "'presence_penalty'"),
    ("text-generation", CHAT, {**SAID, "logprobs": True}, "'logprobs'"),
    ("text-generation", CHAT, {**SAID, "max_tokens": 1, "max_completion_tokens": 2}, "not both"),
    ("text-generation", CHAT, {"messages": []}, "'messages' must be"),
    ("text-generation", CHAT, {"messages": [{"role": "user"}]}, "a message must be"),
    ("text-generation", CHAT, {"messages": ["hello"]}, "a message must be"),
    (
        "text-generation",
        CHAT,
        {"messages": [{"role": "user", "content": "a", "name": "bob"}]},
        "role and content, not 'name'",
    ),
    (
        "text-generation",
        CHAT,
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "a part of the content must be",
    ),
]


@pytest.mark.parametrize(("task", "path", "body", "said"), REFUSED)
def test_options_without_effect_are_rejected_by_name(
    make: Make, task: str, path: str, body: dict[str, Any], said: str
) -> None:
    """The status is 422, in the form of this API, and nothing has run."""
    server = make(pipeline(task))
    with server.httpx() as client:
        response = client.post(path, json={"model": "default", **body})
    error = response.json()["error"]
    assert response.status_code == 422, response.text
    assert said in error["message"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "InvalidInput")
    assert server.batches() == []


def test_neutral_options_are_accepted(make: Make, client_of: ClientOf) -> None:
    """Options at their neutral value are accepted, because some clients always send them."""
    pipe = pipeline("text-generation")
    client = client_of(make(pipe))
    usual: dict[str, Any] = {"n": 1, "frequency_penalty": 0, "presence_penalty": 0.0}
    made = client.completions.create(
        prompt="the", top_p=0.5, stop=None, echo=False, best_of=1, logit_bias={}, **usual, **PLAIN
    )
    assert made.choices[0].text == written(pipe, "the")
    chat = client.chat.completions.create(
        messages=CHATTING, response_format={"type": "text"}, logprobs=False, **usual, **PLAIN
    )
    assert chat.choices[0].message.content == written(pipe, CHATTING)


def test_errors_are_in_the_form_of_this_api_on_its_paths_only(make: Make) -> None:
    """Every error below ``/v1`` has OpenAI's form, and no other path has it."""
    server = make(pipeline("fill-mask"), token="s3cret", max_body_size=1000)
    good = {"authorization": "Bearer s3cret"}
    asked: list[tuple[str, str, dict[str, str], bytes, int, str]] = [
        ("GET", "/v1/models", {}, b"", 401, "Unauthorized"),
        ("GET", "/v1/nothing", good, b"", 404, "NotFound"),
        ("GET", "/v1/models/other", good, b"", 404, "NoSuchModel"),
        ("GET", "/v1/completions", good, b"", 405, "MethodNotAllowed"),
        ("POST", "/v1/completions", good, b"{", 400, "BadRequest"),
        ("POST", "/v1/completions", good, b"[]", 422, "InvalidInput"),
        ("POST", "/v1/completions", good, b"x" * 1001, 413, "BodyTooLarge"),
    ]
    with server.httpx(headers={"authorization": ""}) as client:
        for method, path, headers, body, status, code in asked:
            response = client.request(method, path, headers=headers, content=body)
            error = response.json()["error"]
            assert (response.status_code, error["code"]) == (status, code)
            assert set(error) == {"message", "type", "code"}
            assert error["type"] == "invalid_request_error"
        flat = client.post("/models/default/v1/completions", headers=good, content=b"{")
        assert isinstance(flat.json()["error"], str)


def test_the_client_knows_the_errors(make: Make, client_of: ClientOf) -> None:
    """Each error becomes the client's exception for it, with the message."""
    pipe = pipeline("text-generation")
    steps = Steps(pipe, free=0)
    server = make(pipe, max_queue_size=1, token="s3cret")
    with pytest.raises(openai.AuthenticationError, match="needs a token"):
        client_of(server).completions.create(prompt="a", **PLAIN)
    client = client_of(server, api_key="s3cret")
    with pytest.raises(openai.NotFoundError, match="no model 'gpt'"):
        client.completions.create(prompt="a", model="gpt")
    with pytest.raises(openai.UnprocessableEntityError, match="'seed'"):
        client.completions.create(prompt="a", seed=1, **PLAIN)
    futures = server._engine.submit(["a"], dict(GREEDY))
    assert steps.held.wait(30)
    futures += server._engine.submit(["b"], dict(GREEDY))
    for stream in (True, False):
        with pytest.raises(openai.InternalServerError, match="the queue holds 1") as caught:
            client.completions.create(prompt="c", stream=stream, **PLAIN)
        assert caught.value.status_code == 503
        assert caught.value.type == "server_error"
    steps.opened.set()
    for future in futures:
        future.result(30)


# -- anything -------------------------------------------------------------------------------

KEYS = st.sampled_from(["model", "prompt", "messages", "input", "stream", "stop", "n", "top_p"])


@given(st.sampled_from([CHAT, TEXT, VECTOR]), st.dictionaries(KEYS, JSON_VALUES) | JSON_VALUES)
@settings(max_examples=150, deadline=None)
def test_no_json_breaks_it(path: str, body: Any) -> None:
    """Any JSON is answered, or rejected as the client's error."""
    if isinstance(body, dict) and len(body) % 2:
        body["model"] = "default"
    server = fuzzed()
    content = json.dumps(body).encode()
    response = httpx.post(server.url + path, content=content, timeout=60)
    assert response.status_code in (200, 400, 404, 422), response.text


def fuzzed() -> Server:
    """Return one server for all examples; the leak check at the test's end stops it."""
    running = [server for server in servers() if server.name == "fuzzed"]
    if running:
        return running[0]
    pipe = small_models.pipeline("text-generation", max_new_tokens=3)
    return serve(pipe, port=0, name="fuzzed")
