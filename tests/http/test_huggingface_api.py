from __future__ import annotations

import asyncio
import io
import json
import re
import threading
import wave
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import GenerationError, HfHubHTTPError
from hypothesis import given, settings
from hypothesis import strategies as st

from notebook_serve import NoSuchModel, Server, serve, servers

from ..helpers import raw_clients as web
from ..helpers import small_models
from ..helpers.blocking_model import Steps, eventually
from ..helpers.compare_answers import assert_same
from ..helpers.hf_client_cases import CHATTING, GREEDY, METHODS, Method, pipeline, plain
from .test_app import JSON_VALUES

Make = Callable[..., Server]
LONG = {"do_sample": False, "max_new_tokens": 60}


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset the hub's offline mode, in which the client rejects even localhost."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


def written(pipe: Any, prompt: Any, **parameters: Any) -> str:
    """What the pipeline writes, without the prompt."""
    text: str = pipe(prompt, return_full_text=False, **parameters)[0]["generated_text"]
    return text


@pytest.fixture
def post() -> Iterator[Callable[..., httpx.Response]]:
    """Return a function that posts to a path of a server."""
    clients: list[httpx.Client] = []

    def post(server: Server, path: str = "/models/default", **what: Any) -> httpx.Response:
        clients.append(server.httpx())
        return clients[-1].post(path, **what)

    yield post
    for client in clients:
        client.close()


Post = Callable[..., httpx.Response]


# -- every method ---------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_each_method_gives_what_the_pipeline_gives(make: Make, method: Method) -> None:
    """Each method of huggingface_hub's client returns the pipeline's own answer."""
    pipe = pipeline(method.task)
    server = make(pipe)
    with server.client() as client:
        method.check(client, pipe)
    assert server.stats().outcomes["ok"] == len(server.records()) >= 1


def test_methods_can_be_awaited(make: Make) -> None:
    """The asynchronous client has the same answers, whole and streamed."""
    pipe = pipeline("text-generation")
    server = make(pipe)

    async def ask() -> tuple[Any, Any, Any]:
        async with server.aclient() as client:
            whole = await client.text_generation("the queue", **GREEDY)
            parts = [x async for x in await client.text_generation("a", stream=True, **GREEDY)]
            chat = await client.chat_completion(CHATTING, max_tokens=6, temperature=0, stream=True)
            return whole, parts, [part.choices[0].delta.content async for part in chat]

    whole, parts, chat = asyncio.run(ask())
    assert whole == written(pipe, "the queue", **GREEDY)
    assert "".join(parts) == written(pipe, "a", **GREEDY)
    assert "".join(part or "" for part in chat) == written(pipe, CHATTING, **GREEDY)


def test_a_chat_needs_the_servers_address_only(make: Make) -> None:
    """A chat without a model's name is answered by the first model."""
    pipe = pipeline("text-generation")
    server = make(pipe)
    with server.client(model=server.url) as client:
        made = client.chat.completions.create(CHATTING, max_tokens=6, temperature=0)
    assert made.choices[0].message.content == written(pipe, CHATTING, **GREEDY)


def test_the_page_names_each_method(make: Make) -> None:
    """The table of methods in the page of ``http/`` has the methods that are tested here."""
    text = (Path(__file__).parents[2] / "notebook_serve" / "http" / "README.md").read_text("utf-8")
    rows = re.search(r"\| task \| methods of `InferenceClient`.*?\n\n", text, re.DOTALL)
    assert rows is not None
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", rows[0]))
    assert named == {method.name for method in METHODS}


def test_the_helpers_of_the_client_work(make: Make, post: Post) -> None:
    """The client's model info and health check work, until the worker is dead."""
    server = make(pipeline("fill-mask"))
    client = server.client()
    assert client.get_endpoint_info() == {
        "model_id": "default",
        "model_pipeline_tag": "fill-mask",
        "model": "fill-mask, BertForMaskedLM",
        "state": "ready",
    }
    assert client.health_check() is True

    def deadly(inputs: list[Any]) -> list[Any]:
        raise SystemExit

    dead = make(deadly)
    assert post(dead, "/", content="x").status_code == 503
    assert dead.client().health_check() is False


def test_a_client_has_the_token_and_sends_no_other(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client sends the server's token, and never the user's token of the hub."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server = make(pipeline("fill-mask"), token="s3cret")
    assert len(server.client().fill_mask("a [MASK]")) == 5
    assert server.client().health_check()
    with pytest.raises(HfHubHTTPError, match="this server needs a token"):
        server.client(token="wrong").fill_mask("a [MASK]")

    open_to_all = make(pipeline("fill-mask"))
    seen: list[Any] = []

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        seen.extend(value for name, value in scope["headers"] if name == b"authorization")
        await app(scope, receive, send)

    app = web.uvicorn_of(open_to_all).config.loaded_app
    web.uvicorn_of(open_to_all).config.loaded_app = watched
    open_to_all.client().fill_mask("a [MASK]")
    assert seen == [b"Bearer none"]


# -- forms ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "inputs", "parameters", "read"),
    [
        ("text-classification", ["a", "the queue"], {}, lambda pipe, x: pipe(x)),
        (
            "zero-shot-classification",
            ["a", "the queue"],
            {"candidate_labels": ["red"]},
            lambda pipe, x: [{"label": "red", "score": pipe(x, ["red"])["scores"][0]}],
        ),
        ("fill-mask", ["a [MASK]", "[MASK]"], {}, lambda pipe, x: pipe(x)),
        (
            "text-generation",
            ["a", "the queue"],
            GREEDY,
            lambda pipe, x: [{"generated_text": written(pipe, x, **GREEDY)}],
        ),
    ],
)
def test_a_list_is_answered_by_a_list(
    make: Make, post: Post, task: str, inputs: list[str], parameters: dict[str, Any], read: Any
) -> None:
    """Each input of a list has the answer that it has alone."""
    pipe = pipeline(task)
    server = make(pipe)
    body = {"inputs": inputs, "parameters": parameters}
    answers = post(server, json=body).json()
    assert_same(plain([read(pipe, text) for text in inputs]), answers)
    assert len(server.records()) == len(inputs)


def test_a_plain_text_is_an_input_too(make: Make, post: Post) -> None:
    """A body of ``curl -d`` is answered in the form of this route."""
    server = make(pipeline("text-classification"))
    kind = {"content-type": "application/x-www-form-urlencoded"}
    answer = post(server, content="the queue", headers=kind).json()
    assert [set(item) for item in answer[0]] == [{"label", "score"}]


def test_a_function_is_answered_as_it_answers(make: Make, post: Post) -> None:
    """The answer of a function is not reshaped."""
    server = make(lambda inputs: [[item] for item in inputs])
    assert post(server, json={"inputs": 1}).json() == [1]
    assert post(server, json={"inputs": [1, 2]}).json() == [[1], [2]]
    refused = post(server, json={"inputs": 1, "stream": True})
    assert (refused.status_code, "'stream'" in refused.json()["error"]) == (422, True)


def test_sound_is_a_file_unless_json_is_asked_for(make: Make, post: Post) -> None:
    """The client's method gets the bytes of a WAV file; `Accept` can ask for JSON."""
    server = make(pipeline("text-to-audio"))
    sound = post(server, json={"inputs": "the queue"})
    assert sound.headers["content-type"] == "audio/wav"
    with wave.open(io.BytesIO(sound.content)) as file:
        assert (file.getframerate(), file.getsampwidth()) == (8000, 2)
        assert file.getnframes() > 0
    told = post(server, json={"inputs": "a"}, headers={"accept": "application/json"})
    assert told.json()["sampling_rate"] == 8000


def test_features_are_cut_where_it_is_asked(make: Make) -> None:
    """A too long text is rejected, or cut with `truncate`; the mean is normalised on request."""
    pipe = pipeline("feature-extraction")
    client = make(pipe).client()
    text = "the queue waits " * 40
    with pytest.raises(HfHubHTTPError, match="the model takes at most 64"):
        client.feature_extraction(text)
    assert client.feature_extraction(text, truncate=True).shape == (1, 64, 32)
    raw = client.feature_extraction("a", normalize=False)
    unit = client.feature_extraction("a", normalize=True)
    assert np.linalg.norm(raw) == pytest.approx(np.linalg.norm(np.mean(pipe("a")[0], axis=0)))
    np.testing.assert_allclose(unit, raw / np.linalg.norm(raw), rtol=1e-5)


# -- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "ask", "said"),
    [
        ("fill-mask", lambda c: c.fill_mask("none"), "No mask_token"),
        ("fill-mask", lambda c: c.fill_mask("[MASK]", top_k=0), "'top_k' must be"),
        ("text-generation", lambda c: c.text_generation("a", seed=1), "parameter 'seed'"),
        ("text-generation", lambda c: c.text_generation("a", truncate=1), "parameter 'truncate'"),
        ("text-generation", lambda c: c.text_generation("a", best_of=2), "parameter 'best_of'"),
        ("text-generation", lambda c: c.text_generation("a", watermark=True), "'watermark'"),
        ("text-generation", lambda c: c.text_generation("a", adapter_id="x"), "'adapter_id'"),
        ("text-generation", lambda c: c.text_generation("a", top_n_tokens=2), "'top_n_tokens'"),
        (
            "text-generation",
            lambda c: c.text_generation("a", do_sample=False, temperature=0.5),
            "'temperature' has no effect",
        ),
        (
            "text-generation",
            lambda c: c.text_generation("a", grammar={"type": "json", "value": {}}),
            "parameter 'grammar'",
        ),
        (
            "text-generation",
            lambda c: c.text_generation("a", stream=True, return_full_text=True),
            "return_full_text",
        ),
        (
            "text-generation",
            lambda c: c.text_generation("a", details=True, decoder_input_details=True),
            "'decoder_input_details'",
        ),
        (
            "text-generation",
            lambda c: c.chat_completion(CHATTING, tools=[{"type": "function", "function": {}}]),
            "parameter 'tools'",
        ),
        ("feature-extraction", lambda c: c.feature_extraction("a", dimensions=3), "'dimensions'"),
        ("feature-extraction", lambda c: c.feature_extraction("a", prompt_name="q"), "prompt_name"),
        (
            "feature-extraction",
            lambda c: c.feature_extraction("a", encoding_format="base64"),
            "'encoding_format' must be",
        ),
        (
            "feature-extraction",
            lambda c: c.feature_extraction("a", truncation_direction="left"),
            "'truncation_direction'",
        ),
        ("feature-extraction", lambda c: c.sentence_similarity("a", []), "'sentences' must be"),
        ("feature-extraction", lambda c: c.chat_completion(CHATTING), "feature-extraction, Bert"),
    ],
)
def test_options_without_effect_are_rejected_by_name(
    make: Make, task: str, ask: Any, said: str
) -> None:
    """The client shows the message, which names the option."""
    with pytest.raises(HfHubHTTPError) as caught:
        ask(make(pipeline(task)).client())
    assert caught.value.response.status_code == 422
    assert said in str(caught.value)


def test_neutral_options_are_accepted(make: Make) -> None:
    """Options at their neutral value change nothing, and sampling may be implied."""
    pipe = pipeline("text-generation")
    server = make(pipe)
    client = server.client()
    usual = client.text_generation(
        "a", best_of=1, watermark=False, frequency_penalty=0.0, stop=[], **GREEDY
    )
    assert usual == written(pipe, "a", **GREEDY)
    client.text_generation("a", temperature=0.5, top_k=3, max_new_tokens=2)
    assert json.loads(server.records()[-1].group.partition(" [")[0])["do_sample"] is True


def test_a_model_of_another_name_is_not_there(make: Make) -> None:
    """The error names the models of the server."""
    server = make(pipeline("fill-mask"))
    with pytest.raises(NoSuchModel, match="has no model 'other'; it has"):
        server.client("other")
    elsewhere = InferenceClient(
        model=f"{server.url}/models/other", provider="hf-inference", token="none"
    )
    with pytest.raises(HfHubHTTPError, match="has no model 'other'; it has") as caught:
        elsewhere.fill_mask("a [MASK]")
    assert caught.value.response.status_code == 404
    with server.httpx() as ask:
        for path in ("info", "health"):
            assert ask.get(f"/models/other/{path}").status_code == 404


def test_a_full_queue_rejects_a_stream_with_its_status(make: Make) -> None:
    """A stream that is rejected at once gets its status, not an event."""
    pipe = pipeline("text-generation")
    steps = Steps(pipe, free=0)
    server = make(pipe, max_queue_size=1)
    futures = server._engine.submit(["a"], dict(GREEDY))
    assert steps.held.wait(30)
    futures += server._engine.submit(["b"], dict(GREEDY))
    with pytest.raises(HfHubHTTPError, match="the queue holds 1") as caught:
        server.client().text_generation("c", stream=True)
    assert caught.value.response.status_code == 503
    assert int(caught.value.response.headers["retry-after"]) >= 1
    steps.opened.set()
    for future in futures:
        future.result(30)


# -- as it is written -----------------------------------------------------------------------


def test_a_stream_has_each_token(make: Make) -> None:
    """Ids, texts and order are the pipeline's; the last event has the text and the reason."""
    pipe = pipeline("text-generation")
    server = make(pipe)
    with server.client() as client:
        parts = list(client.text_generation("the", stream=True, details=True, **GREEDY))
    tokens = pipe("the", return_tensors=True, **GREEDY)[0]["generated_token_ids"][3:]
    assert [part.token.id for part in parts] == tokens
    assert [part.index for part in parts] == list(range(1, 7))
    text = written(pipe, "the", **GREEDY)
    assert "".join(part.token.text for part in parts) == text
    assert [part.generated_text for part in parts] == [None] * 5 + [text]
    (record,) = server.records()
    details = parts[-1].details
    assert (details.finish_reason, details.generated_tokens) == ("length", 6)
    assert details.input_length == record.length == 3
    assert (record.outcome, record.batch_size) == ("ok", 1)
    (batch,) = server.batches()
    assert (batch.size, batch.lengths) == (1, (3,))


def test_details_of_a_whole(make: Make) -> None:
    """Without a stream the details come with the answer, and the prompt on request."""
    pipe = pipeline("text-generation")
    client = make(pipe).client()
    made = client.text_generation("the", details=True, return_full_text=True, **GREEDY)
    assert made.generated_text == "the" + written(pipe, "the", **GREEDY)
    assert (made.details.finish_reason, made.details.generated_tokens) == ("length", 6)
    assert "".join(token.text for token in made.details.tokens) == made.generated_text[3:]


def test_what_is_written_arrives_before_the_rest_is(make: Make) -> None:
    """The first tokens arrive while the model still generates."""
    pipe = pipeline("text-generation")
    steps = Steps(pipe, free=3)
    server = make(pipe)
    with server.client() as client:
        parts = client.text_generation("the", stream=True, **LONG)
        first = [next(parts), next(parts)]
        assert steps.held.wait(30)
        assert server.records() == []
        steps.opened.set()
        text = "".join([*first, *parts])
    assert text == written(pipe, "the", **LONG)


def test_it_stops_at_a_text(make: Make, post: Post) -> None:
    """Generation ends with a stop text, whole or in parts, alone or in a list."""
    pipe = pipeline("text-generation")
    whole = written(pipe, "the", **LONG)
    words = whole.split(" ")
    stop = " " + words[5]
    until = whole[: whole.index(stop) + len(stop)]
    server = make(pipe)
    client = server.client()
    made = client.text_generation("the", stop=[stop, "never"], details=True, **LONG)
    assert made.generated_text == until
    assert made.details.finish_reason == "stop_sequence"
    assert client.text_generation("the", stop=[stop], **LONG) == until
    assert "".join(client.text_generation("the", stop=[stop], stream=True, **LONG)) == until
    body = {"inputs": ["the", "the"], "parameters": {**LONG, "stop": [stop]}}
    answers = post(server, json=body).json()
    assert answers == [[{"generated_text": until}]] * 2


@web.every_variant
def test_who_leaves_in_the_middle_has_nothing_more_written(
    make: Make, monkeypatch: pytest.MonkeyPatch, http: str, loop: str
) -> None:
    """Generation stops at the next token, the record says cancelled, and the next is answered."""
    web.use(monkeypatch, http, loop)
    pipe = pipeline("text-generation")
    steps = Steps(pipe, free=3)
    server = make(pipe)
    with server.client() as client:
        assert next(client.text_generation("the", stream=True, **LONG))
    eventually(lambda: server.stats().outcomes["cancelled"] == 1, "the client is gone")
    steps.opened.set()
    assert server.predict("the", **GREEDY)
    assert steps.count <= 4 + 6
    left, stayed = server.records()
    assert (left.outcome, stayed.outcome) == ("cancelled", "ok")
    assert left.started is not None


def test_a_disconnect_before_the_first_token_leaves_the_queue(make: Make) -> None:
    """A queued stream leaves the queue when its client disconnects."""
    pipe = pipeline("text-generation")
    steps = Steps(pipe, free=0)
    server = make(pipe)
    (running,) = server._engine.submit(["a"], dict(GREEDY))
    assert steps.held.wait(30)
    body = json.dumps({"inputs": "the", "stream": True, "parameters": LONG}).encode()
    head = b"POST /models/default HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with web.connected(server) as connection:
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        eventually(lambda: len(server.queue()) == 1, "it waits")
    eventually(lambda: len(server.queue()) == 0, "it has left")
    steps.opened.set()
    running.result(30)
    assert [record.outcome for record in server.records()] == ["cancelled", "ok"]
    assert len(server.batches()) == 1


@pytest.mark.parametrize("stream", [True, False])
def test_time_runs_out_in_the_middle(make: Make, stream: bool) -> None:
    """A stream ends with the error, and generation stops."""
    pipe = pipeline("text-generation")
    steps = Steps(pipe, free=3)
    server = make(pipe, timeout=1.0)
    client = server.client()
    if stream:
        parts = client.text_generation("the", stream=True, **LONG)
        with pytest.raises(GenerationError, match="ran out while it ran"):
            list(parts)
    else:
        with pytest.raises(HfHubHTTPError, match="ran out while it ran"):
            client.text_generation("the", details=True, **LONG)
    assert steps.held.is_set()
    steps.opened.set()
    assert server.predict("a", **GREEDY)
    assert steps.count <= 4 + 6
    assert [record.outcome for record in server.records()] == ["expired", "ok"]


@pytest.mark.parametrize("exposed", [True, False])
def test_a_model_that_fails_in_the_middle_is_told_of(make: Make, exposed: bool) -> None:
    """The stream ends with the error, in full or hidden."""
    pipe = pipeline("text-generation")
    Steps(pipe, fails_at=4)
    server = make(pipe, expose_errors=exposed)
    with server.client() as client, pytest.raises(GenerationError) as caught:
        list(client.text_generation("the", stream=True, **LONG))
    assert ("a failing step" in str(caught.value)) is exposed
    assert server.records()[0].outcome == "failed"
    assert server.predict("a", **GREEDY)


def test_a_chat_that_fails_in_the_middle_ends_with_the_error(make: Make) -> None:
    """A chat ends with the same kind of error as a text."""
    pipe = pipeline("text-generation")
    Steps(pipe, fails_at=4)
    with make(pipe).client() as client, pytest.raises(GenerationError, match="a failing step"):
        list(client.chat_completion(CHATTING, max_tokens=60, temperature=0, stream=True))


@pytest.mark.parametrize("drain", [True, False])
def test_a_stop_in_the_middle(make: Make, drain: bool) -> None:
    """A running stream is finished when the server drains, or else ends with the error."""
    pipe = pipeline("text-generation")
    steps = Steps(pipe, free=3)
    server = make(pipe)
    client = server.client()
    parts = client.text_generation("the", stream=True, **LONG)
    made = [next(parts)]
    assert steps.held.wait(30)
    stopping = threading.Thread(target=server.stop, args=(drain,))
    stopping.start()
    if drain:
        eventually(lambda: server.state == "stopping", "it stops")
        steps.opened.set()
        made += parts
        assert "".join(made) == written(pipe, "the", **LONG)
    else:
        with pytest.raises(GenerationError, match="the server stopped"):
            list(parts)
        steps.opened.set()
    client.close()
    stopping.join(30)
    assert not stopping.is_alive()
    assert server.records()[0].outcome == ("ok" if drain else "rejected")


def test_many_at_once_each_have_their_own(make: Make) -> None:
    """Concurrent streams and whole answers stay apart, and each leaves one record."""
    pipe = pipeline("text-generation")
    server = make(pipe)
    prompts = small_models.inputs("text-generation", 24, seed=5, most=6)

    def ask(index: int) -> str:
        with server.client() as client:
            if index % 2:
                return "".join(client.text_generation(prompts[index], stream=True, **GREEDY))
            return str(client.text_generation(prompts[index], **GREEDY))

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(24)))
    assert answers == [written(pipe, prompt, **GREEDY) for prompt in prompts]
    assert server.stats().outcomes["ok"] == len(server.records()) == 24


# -- anything -------------------------------------------------------------------------------

KEYS = st.sampled_from(["inputs", "parameters", "stream", "normalize", "sentences", "details"])


@given(st.sampled_from(["text-generation", "feature-extraction"]), st.data())
@settings(max_examples=100, deadline=None)
def test_no_json_breaks_it(task: str, data: st.DataObject) -> None:
    """Any JSON is answered, or rejected as the client's error."""
    body = data.draw(st.dictionaries(KEYS, JSON_VALUES) | JSON_VALUES)
    server = fuzzed(task)
    response = httpx.post(
        server.url + "/models/default",
        content=json.dumps(body).encode(),
        headers={"content-type": "application/json"},
        timeout=60,
    )
    assert response.status_code in (200, 400, 422), response.text


def fuzzed(task: str) -> Server:
    """Return one server for all examples of a task; the leak check at the test's end stops it."""
    running = [server for server in servers() if server.name == task]
    return running[0] if running else serve(small(task), port=0, name=task)


def small(task: str) -> Any:
    """Return a pipeline that generates few tokens."""
    return small_models.pipeline(task, **({"max_new_tokens": 3} if "gen" in task else {}))
