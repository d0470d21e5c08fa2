"""The routes of OpenAI's API below ``/v1``: embeddings, completions and chats.

An option that would have no effect is rejected by name, with 422. Embeddings are the mean-pooled,
L2-normalised features of feature-extraction.
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
from ..models.generation import GeneratedSequence, Prompt, StopFilter
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
from .model_call import CallFactory, ModelCall, count_answers
from .pooling import mean_pool
from .request import parse_json, read_body
from .responses import answer_headers, error_content, json_response, request_id
from .sse import DONE, EventStreamResponse, encode_event

if TYPE_CHECKING:
    import numpy as np

PublicMessage = Callable[[Request, ServeError], str]

#: model name that huggingface_hub's client sends if it only knows the server's address
NO_NAME = "dummy"


def check_strings(value: Any) -> str:
    """Check for a string, or a list of at least one; return the expected type if it fails."""
    fits = isinstance(value, list) and value and all(isinstance(item, str) for item in value)
    return "" if fits or isinstance(value, str) else "a string or a list of strings"


#: options of completions and chats; those with only one value have no effect
GENERATION: dict[str, Check] = {
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
        **GENERATION,
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
        **GENERATION,
        "prompt": check_strings,
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
        "input": check_strings,
        "encoding_format": one_of("float", "base64"),
    },
    ("model", "input"),
)


class OpenAIApi:
    """The handlers; `public_message` returns the message of an error for the client."""

    def __init__(self, calls: CallFactory, public_message: PublicMessage) -> None:
        self._calls = calls
        self._public_message = public_message
        self._created = int(time.time())
        posts = {
            "chat/completions": self.chat,
            "completions": self.complete,
            "embeddings": self.embed,
        }
        self.routes = [
            Route("/v1/models", self.models),
            Route("/v1/models/{name}", self.model),
            *(Route(f"/v1/{path}", post, methods=["POST"]) for path, post in posts.items()),
            # The Inference API's client sends chats below the address of its model.
            *(
                Route(f"/models/{{name}}/v1/{path}", post, methods=["POST"])
                for path, post in posts.items()
            ),
        ]

    # -- models ---------------------------------------------------------------------------

    async def models(self, request: Request) -> Response:
        """List the models."""
        return json_response(
            {"object": "list", "data": [self._describe(n) for n in self._calls.names]}
        )

    async def model(self, request: Request) -> Response:
        """Describe a model."""
        name = request.path_params["name"]
        self._calls.engine(request, name)
        return json_response(self._describe(name))

    def _describe(self, name: str) -> dict[str, Any]:
        owner = "notebook_serve"
        return {"id": name, "object": "model", "created": self._created, "owned_by": owner}

    async def _begin(self, request: Request, takes: Parameters) -> tuple[ModelCall, dict[str, Any]]:
        """Return the call of the model that a request names, and the request's options."""
        name = request.path_params.get("name")
        if name is not None:
            call = self._calls.begin(request, name)
            body = await call.body()
        else:
            # The model's name is in the body, so until then the first model's timeout applies.
            timeout = self._calls.engine(request, FIRST).timeout
            body = await read_body(request, self._calls.limit, timeout)
        given = parse_json(body)
        if not isinstance(given, dict):
            raise InvalidInput(f"{takes.task} takes a JSON object")
        given = {key: value for key, value in given.items() if value is not None}
        if name is not None:
            given["model"] = name  # the address wins over the body
        takes.check(given)
        if name is not None:
            return call, given
        named = FIRST if given["model"] == NO_NAME else given["model"]
        return self._calls.begin(request, named), given

    # -- embeddings -----------------------------------------------------------------------

    @count_answers
    async def embed(self, request: Request) -> Response:
        """Embed each text as a vector."""
        call, given = await self._begin(request, EMBEDDING)
        if call.model.task not in ("feature-extraction", EncoderModel.task):
            raise InvalidInput(
                "/v1/embeddings needs a feature-extraction pipeline or a SentenceTransformer; "
                f"this model is for {call.model.task}"
            )
        features = call.model.task == "feature-extraction"
        inputs = [given["input"]] if isinstance(given["input"], str) else given["input"]
        parameters = {"return_tensors": True} if features else {}
        answers = await call.answer_each(inputs, parameters, many=len(inputs) > 1)
        encode = _to_base64 if given.get("encoding_format") == "base64" else _to_list
        data, tokens = await asyncio.to_thread(_embeddings, answers, encode)
        content = {
            "object": "list",
            "data": data,
            "model": given["model"],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
        return json_response(content, headers=_headers(request, answers))

    # -- text -----------------------------------------------------------------------------

    @count_answers
    async def chat(self, request: Request) -> Response:
        """Generate the next message of a chat."""
        call, given = await self._begin(request, CHAT)
        call.check_writes()
        if "max_completion_tokens" in given:
            if "max_tokens" in given:
                raise InvalidInput("send max_completion_tokens or max_tokens, not both")
            given["max_tokens"] = given.pop("max_completion_tokens")
        return await self._generate(
            call, [parse_messages(given["messages"])], given, "chat.completion"
        )

    @count_answers
    async def complete(self, request: Request) -> Response:
        """Generate the continuation of a prompt."""
        call, given = await self._begin(request, COMPLETION)
        call.check_writes()
        prompts = [given["prompt"]] if isinstance(given["prompt"], str) else given["prompt"]
        return await self._generate(call, prompts, given, "text_completion")

    async def _generate(
        self, call: ModelCall, prompts: Sequence[Any], given: Mapping[str, Any], kind: str
    ) -> Response:
        form = AnswerForm(kind, request_id(call.request), int(time.time()), given["model"])
        parameters, stops = translate_options(given)
        if given.get("stream"):
            if len(prompts) > 1:
                raise InvalidInput("one prompt can be streamed at a time, not a list of them")
            stream = await call.listen(prompts[0], stops, parameters)
            counts = given.get("stream_options", {}).get("include_usage", False)
            events = self._events(call.request, stream, form, counts)
            return EventStreamResponse(call.request, stream, events)
        if "stream_options" in given:
            raise InvalidInput("the parameter 'stream_options' needs stream: true")
        entries = [Prompt(prompt, stops) for prompt in prompts]
        answers = await call.answer_each(entries, parameters, many=len(entries) > 1)
        written = [one for answer in answers for one in answer.value]
        content = form.whole(written, stops, count_usage(answers))
        return json_response(content, headers=_headers(call.request, answers))

    async def _events(
        self, request: Request, stream: Stream, form: AnswerForm, counts: bool
    ) -> AsyncIterator[bytes]:
        """Yield an event for each part of the text, up to the first stop text."""
        try:
            if form.is_chat:
                yield encode_event(form.part({"role": "assistant", "content": ""}))
            async for text in stream.texts():
                yield encode_event(form.part(form.text(text)))
            (written,) = stream.answer.value
            yield encode_event(form.part(form.text(""), finish_reason(written)))
            if counts:
                yield encode_event({**form.part(None), "usage": count_usage([stream.answer])})
        except ServeError as error:
            kind, message = type(error).__name__, self._public_message(request, error)
            content = error_content(request, error.status, kind, message)
            if isinstance(content["error"], str):
                content["error_type"] = "generation"  # huggingface_hub's client reads this
            yield encode_event(content)
        yield DONE


@dataclass(frozen=True)
class AnswerForm:
    """The form of generated text: ``chat.completion`` or ``text_completion``."""

    kind: str
    request_id: str
    created: int
    model: str

    @property
    def is_chat(self) -> bool:
        """Return True for a message of a chat."""
        return self.kind == "chat.completion"

    def _head(self, suffix: str = "") -> dict[str, Any]:
        kind = self.kind + suffix
        prefix = "chatcmpl" if self.is_chat else "cmpl"
        facts = {"object": kind, "created": self.created, "model": self.model}
        return {"id": f"{prefix}-{self.request_id}", **facts}

    def text(self, text: str) -> dict[str, Any]:
        """Return a part of the text of a stream."""
        if self.is_chat:
            return {"content": text} if text else {}
        return {"text": text}

    def part(self, content: dict[str, Any] | None, reason: str | None = None) -> dict[str, Any]:
        """Return one event of a stream; without `content` it has no choices."""
        if content is None:
            choices = []
        else:
            body = {"delta": content} if self.is_chat else content
            choices = [{"index": 0, **body, "logprobs": None, "finish_reason": reason}]
        return {**self._head(".chunk" if self.is_chat else ""), "choices": choices}

    def whole(
        self, written: Sequence[GeneratedSequence], stops: Sequence[str], usage: dict[str, int]
    ) -> dict[str, Any]:
        """Return the whole answer."""
        choices = []
        for index, one in enumerate(written):
            cut = StopFilter(stops)
            text = cut.add(one.text) + cut.end()
            message = {"role": "assistant", "content": text}
            body = {"message": message} if self.is_chat else {"text": text}
            reason = finish_reason(one)
            choices.append({"index": index, **body, "logprobs": None, "finish_reason": reason})
        return {**self._head(), "choices": choices, "usage": usage}


# -- requests -------------------------------------------------------------------------------


def parse_messages(messages: Sequence[Any]) -> list[dict[str, str]]:
    """Return the messages of a chat as chat templates take them: a role and a text."""
    parsed = []
    for message in messages:
        given = message if isinstance(message, dict) else {}
        given = {key: value for key, value in given.items() if value is not None}
        unknown = set(given) - {"role", "content"}
        if unknown:
            raise InvalidInput(f"a message takes role and content, not {min(unknown)!r}")
        role, content = given.get("role"), given.get("content")
        if isinstance(content, list):
            content = "".join(map(_part_text, content))
        if not isinstance(role, str) or not isinstance(content, str):
            raise InvalidInput('a message must be {"role": "...", "content": "..."}')
        parsed.append({"role": role, "content": content})
    return parsed


def _part_text(part: Any) -> str:
    if isinstance(part, dict) and set(part) == {"type", "text"} and part["type"] == "text":
        text = part["text"]
        if isinstance(text, str):
            return text
    raise InvalidInput('a part of the content must be {"type": "text", "text": "..."}')


def translate_options(given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the parameters of text-generation for a request's options, and the stop texts."""
    stops = given.get("stop", [])
    stops = [stops] if isinstance(stops, str) else stops
    translated: dict[str, Any] = {}
    if "max_tokens" in given:
        translated["max_new_tokens"] = given["max_tokens"]
    if given.get("temperature") == 0:
        translated["do_sample"] = False  # greedy decoding, whatever top_p is
    else:
        translated |= {name: given[name] for name in ("temperature", "top_p") if name in given}
        translated |= {"do_sample": True} if translated.keys() & {"temperature", "top_p"} else {}
    if given.get("n", 1) > 1:
        if translated.get("do_sample") is False:
            raise InvalidInput(
                "n must be 1 with temperature 0, because all answers would be the same"
            )
        translated |= {"num_return_sequences": given["n"], "do_sample": True}
    return translated, stops


# -- answers --------------------------------------------------------------------------------


def finish_reason(written: GeneratedSequence) -> str:
    """Return the finish reason in this API's words."""
    return "length" if written.reason == "length" else "stop"


def count_usage(answers: Sequence[Answer]) -> dict[str, int]:
    """Count the tokens of the prompts and of the generated texts."""
    prompt = sum(answer.record.length for answer in answers)
    completion = sum(len(written.tokens) for answer in answers for written in answer.value)
    total = prompt + completion
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}


def _headers(request: Request, answers: Sequence[Answer]) -> dict[str, str]:
    return answer_headers(request, [answer.record for answer in answers])


def _embeddings(
    answers: Sequence[Answer], encode: Callable[[np.ndarray], Any]
) -> tuple[list[dict[str, Any]], int]:
    items, count = [], 0
    for index, answer in enumerate(answers):
        vector, tokens = mean_pool(answer.value)
        count += tokens if len(answer.value.shape) > 1 else answer.record.length
        items.append({"object": "embedding", "index": index, "embedding": encode(vector)})
    return items, count


def _to_list(vector: np.ndarray) -> list[float]:
    numbers: list[float] = vector.tolist()
    return numbers


def _to_base64(vector: np.ndarray) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
