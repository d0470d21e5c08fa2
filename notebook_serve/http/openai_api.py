"""``/v1``: the shapes of OpenAI's API, for embeddings, completions and chats.

An option that would change nothing is refused by name, with 422. Embeddings are the mean over the
tokens of what feature-extraction gives, divided by its length.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..engine.registry import FIRST
from ..engine.requests import Answer
from ..engine.text_stream import Stream
from ..errors import InvalidInput, ServeError
from ..models.encoder import EncoderModel
from ..models.generation import Cut, Prompt, Written
from ..models.parameters import (
    FLAG,
    MOST_NEW_TOKENS,
    MOST_SEQUENCES,
    STOP,
    Check,
    Parameters,
    mapping,
    number,
    one_of,
    text,
    whole,
)
from .model_call import Call, Calls, counting_answers
from .pooling import pooled
from .request import body_of, json_value
from .responses import error_content, headers_of, json_response, request_id
from .sse import DONE, Events, event

if TYPE_CHECKING:
    import numpy as np

Told = Callable[[Request, ServeError], str]


#: what huggingface_hub's client calls a model of which it knows the server's address only
NO_NAME = "dummy"


def strings(value: Any) -> str:
    """A check for a string, or a list of at least one."""
    fits = isinstance(value, list) and value and all(isinstance(item, str) for item in value)
    return "" if fits or isinstance(value, str) else "a string or a list of strings"


#: what both ways of writing text take; where only one value is named, it asks for nothing
WRITING: dict[str, Check] = {
    "model": text(1000),
    "max_tokens": whole(1, MOST_NEW_TOKENS),
    "temperature": number(0, 100),
    "top_p": number(0, 1),
    "n": whole(1, MOST_SEQUENCES),
    "stop": STOP,
    "stream": FLAG,
    "stream_options": mapping({"include_usage": FLAG}),
    "frequency_penalty": one_of(0, 0.0),
    "presence_penalty": one_of(0, 0.0),
    "logit_bias": one_of({}),
}
CHAT = Parameters(
    "chat/completions",
    {
        **WRITING,
        "messages": lambda value: "" if isinstance(value, list) and value else "a list of messages",
        "max_completion_tokens": whole(1, MOST_NEW_TOKENS),
        "logprobs": one_of(False),
        "response_format": one_of({"type": "text"}),
        "tool_choice": one_of("none"),
    },
    ("model", "messages"),
)
COMPLETION = Parameters(
    "completions",
    {
        **WRITING,
        "prompt": strings,
        "best_of": one_of(1),
        "echo": one_of(False),
        "suffix": one_of(""),
    },
    ("model", "prompt"),
)
EMBEDDING = Parameters(
    "embeddings",
    {
        "model": text(1000),
        "input": strings,
        "encoding_format": one_of("float", "base64"),
    },
    ("model", "input"),
)


class OpenAIApi:
    """The endpoints; `told` says what a client may read of an error."""

    def __init__(self, calls: Calls, told: Told) -> None:
        self._calls = calls
        self._told = told
        self._since = int(time.time())
        posts = {
            "chat/completions": self.chat,
            "completions": self.complete,
            "embeddings": self.embed,
        }
        self.routes = [
            Route("/v1/models", self.models),
            Route("/v1/models/{name}", self.model),
            *(Route(f"/v1/{path}", post, methods=["POST"]) for path, post in posts.items()),
            # The Inference API's client asks for chats below the address of its model.
            *(
                Route(f"/models/{{name}}/v1/{path}", post, methods=["POST"])
                for path, post in posts.items()
            ),
        ]

    # -- models ---------------------------------------------------------------------------

    async def models(self, request: Request) -> Response:
        """What there is to ask."""
        return json_response(
            {"object": "list", "data": [self._about(n) for n in self._calls.names]}
        )

    async def model(self, request: Request) -> Response:
        """One of them."""
        name = request.path_params["name"]
        self._calls.engine(request, name)
        return json_response(self._about(name))

    def _about(self, name: str) -> dict[str, Any]:
        owner = "notebook_serve"
        return {"id": name, "object": "model", "created": self._since, "owned_by": owner}

    async def _asked(self, request: Request, takes: Parameters) -> tuple[Call, dict[str, Any]]:
        """The call of the model that a request names, and what it says."""
        name = request.path_params.get("name")
        if name is not None:
            call = self._calls.begin(request, name)
            body = await call.body()
        else:
            # Who is asked is known from the body only.
            body = await body_of(
                request, self._calls.limit, self._calls.engine(request, FIRST).timeout
            )
        given = json_value(body)
        if not isinstance(given, dict):
            raise InvalidInput(f"{takes.task} takes a JSON object")
        given = {key: value for key, value in given.items() if value is not None}
        if name is not None:
            given["model"] = name  # whatever a client has to say, it was sent to this one
        takes.check(given)
        if name is not None:
            return call, given
        named = FIRST if given["model"] == NO_NAME else given["model"]
        return self._calls.begin(request, named), given

    # -- embeddings -----------------------------------------------------------------------

    @counting_answers
    async def embed(self, request: Request) -> Response:
        """A vector for each text."""
        call, given = await self._asked(request, EMBEDDING)
        if call.model.task not in ("feature-extraction", EncoderModel.task):
            raise InvalidInput(
                "/v1/embeddings needs a feature-extraction pipeline or a SentenceTransformer; "
                f"this model is for {call.model.task}"
            )
        features = call.model.task == "feature-extraction"
        inputs = [given["input"]] if isinstance(given["input"], str) else given["input"]
        parameters = {"return_tensors": True} if features else {}
        answers = await call.ask(inputs, parameters, many=len(inputs) > 1)
        encode = _as_base64 if given.get("encoding_format") == "base64" else _as_numbers
        data, tokens = await asyncio.to_thread(_embeddings, answers, encode)
        content = {
            "object": "list",
            "data": data,
            "model": given["model"],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
        return json_response(content, headers=_headers(request, answers))

    # -- text -----------------------------------------------------------------------------

    @counting_answers
    async def chat(self, request: Request) -> Response:
        """The next message of a chat."""
        call, given = await self._asked(request, CHAT)
        call.check_writes()
        if "max_completion_tokens" in given:
            if "max_tokens" in given:
                raise InvalidInput("send max_completion_tokens or max_tokens, not both")
            given["max_tokens"] = given.pop("max_completion_tokens")
        return await self._write(call, [messages_of(given["messages"])], given, "chat.completion")

    @counting_answers
    async def complete(self, request: Request) -> Response:
        """How a prompt goes on."""
        call, given = await self._asked(request, COMPLETION)
        call.check_writes()
        prompts = [given["prompt"]] if isinstance(given["prompt"], str) else given["prompt"]
        return await self._write(call, prompts, given, "text_completion")

    async def _write(
        self, call: Call, prompts: Sequence[Any], given: Mapping[str, Any], kind: str
    ) -> Response:
        form = Form(kind, request_id(call.request), int(time.time()), given["model"])
        parameters, stops = asked_for(given)
        if given.get("stream"):
            if len(prompts) > 1:
                raise InvalidInput("one prompt can be streamed at a time, not a list of them")
            stream = await call.listen(prompts[0], stops, parameters)
            counts = given.get("stream_options", {}).get("include_usage", False)
            events = self._events(call.request, stream, form, counts)
            return Events(call.request, stream, events)
        if "stream_options" in given:
            raise InvalidInput("the parameter 'stream_options' needs stream: true")
        asked = [Prompt(prompt, stops) for prompt in prompts]
        answers = await call.ask(asked, parameters, many=len(asked) > 1)
        written = [one for answer in answers for one in answer.value]
        content = form.whole(written, stops, usage_of(answers))
        return json_response(content, headers=_headers(call.request, answers))

    async def _events(
        self, request: Request, stream: Stream, form: Form, counts: bool
    ) -> AsyncIterator[bytes]:
        """What is written, part by part, as far as no text to stop at begins in it."""
        try:
            if form.is_chat:
                yield event(form.part({"role": "assistant", "content": ""}))
            async for shown in stream.texts():
                yield event(form.part(form.text(shown)))
            (written,) = stream.answer.value
            yield event(form.part(form.text(""), reason_of(written)))
            if counts:
                yield event({**form.part(None), "usage": usage_of([stream.answer])})
        except ServeError as error:
            kind, said = type(error).__name__, self._told(request, error)
            content = error_content(request, error.status, kind, said)
            if isinstance(content["error"], str):
                content["error_type"] = "generation"  # what huggingface_hub's client goes by
            yield event(content)
        yield DONE


@dataclass(frozen=True)
class Form:
    """How what was written is told: ``chat.completion`` or ``text_completion``."""

    kind: str
    known_as: str
    created: int
    model: str

    @property
    def is_chat(self) -> bool:
        """Whether it is a chat's next message."""
        return self.kind == "chat.completion"

    def _head(self, suffix: str = "") -> dict[str, Any]:
        kind = self.kind + suffix
        about = {"object": kind, "created": self.created, "model": self.model}
        return {"id": f"{'chatcmpl' if self.is_chat else 'cmpl'}-{self.known_as}", **about}

    def text(self, text: str) -> dict[str, Any]:
        """Some text of a stream."""
        if self.is_chat:
            return {"content": text} if text else {}
        return {"text": text}

    def part(self, said: dict[str, Any] | None, reason: str | None = None) -> dict[str, Any]:
        """One event of a stream; without anything `said` it has no choices."""
        if said is None:
            choices = []
        else:
            body = {"delta": said} if self.is_chat else said
            choices = [{"index": 0, **body, "logprobs": None, "finish_reason": reason}]
        return {**self._head(".chunk" if self.is_chat else ""), "choices": choices}

    def whole(
        self, written: Sequence[Written], stops: Sequence[str], usage: dict[str, int]
    ) -> dict[str, Any]:
        """The answer as one."""
        choices = []
        for index, one in enumerate(written):
            cut = Cut(stops)
            text = cut.add(one.text) + cut.end()
            message = {"role": "assistant", "content": text}
            body = {"message": message} if self.is_chat else {"text": text}
            reason = reason_of(one)
            choices.append({"index": index, **body, "logprobs": None, "finish_reason": reason})
        return {**self._head(), "choices": choices, "usage": usage}


# -- requests -------------------------------------------------------------------------------


def messages_of(messages: Sequence[Any]) -> list[dict[str, str]]:
    """The messages of a chat, as chat templates have them: a role and a text."""
    made = []
    for message in messages:
        given = message if isinstance(message, dict) else {}
        given = {key: value for key, value in given.items() if value is not None}
        unknown = set(given) - {"role", "content"}
        if unknown:
            raise InvalidInput(f"a message has a role and a content; {min(unknown)!r} is not used")
        role, content = given.get("role"), given.get("content")
        if isinstance(content, list):
            content = "".join(map(_text_of, content))
        if not isinstance(role, str) or not isinstance(content, str):
            raise InvalidInput('a message must be {"role": "...", "content": "..."}')
        made.append({"role": role, "content": content})
    return made


def _text_of(part: Any) -> str:
    if isinstance(part, dict) and set(part) == {"type", "text"} and part["type"] == "text":
        text = part["text"]
        if isinstance(text, str):
            return text
    raise InvalidInput('a part of a content must be {"type": "text", "text": "..."}')


def asked_for(given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The parameters of text-generation that a request asks for, and the texts to stop at."""
    stops = given.get("stop", [])
    stops = [stops] if isinstance(stops, str) else stops
    made: dict[str, Any] = {}
    if "max_tokens" in given:
        made["max_new_tokens"] = given["max_tokens"]
    if given.get("temperature") == 0:
        made["do_sample"] = False  # the likeliest token is within any top_p
    else:
        made |= {name: given[name] for name in ("temperature", "top_p") if name in given}
        made |= {"do_sample": True} if made.keys() & {"temperature", "top_p"} else {}
    if given.get("n", 1) > 1:
        if made.get("do_sample") is False:
            raise InvalidInput("with temperature 0 all of n answers would be the same; send n: 1")
        made |= {"num_return_sequences": given["n"], "do_sample": True}
    return made, stops


# -- answers --------------------------------------------------------------------------------


def reason_of(written: Written) -> str:
    """Why it ended, in this API's words."""
    return "length" if written.reason == "length" else "stop"


def usage_of(answers: Sequence[Answer]) -> dict[str, int]:
    """The tokens of the prompts, as the model had them, and those that it wrote."""
    read = sum(answer.record.length for answer in answers)
    wrote = sum(len(written.tokens) for answer in answers for written in answer.value)
    return {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote}


def _headers(request: Request, answers: Sequence[Answer]) -> dict[str, str]:
    return headers_of(request, [answer.record for answer in answers])


def _embeddings(
    answers: Sequence[Answer], encode: Callable[[np.ndarray], Any]
) -> tuple[list[dict[str, Any]], int]:
    made, count = [], 0
    for index, answer in enumerate(answers):
        vector, tokens = pooled(answer.value)
        count += tokens if len(answer.value.shape) > 1 else answer.record.length
        made.append({"object": "embedding", "index": index, "embedding": encode(vector)})
    return made, count


def _as_numbers(vector: np.ndarray) -> list[float]:
    numbers: list[float] = vector.tolist()
    return numbers


def _as_base64(vector: np.ndarray) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
