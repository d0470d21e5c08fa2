"""``/models/{name}``: the shapes of the Hugging Face Inference API, as its clients speak them.

The numbers are those of ``pipe(x)``. What differs from ``POST /`` is the form of some requests and
answers, and that generated text comes without its prompt unless ``return_full_text`` asks for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..engine.registry import FIRST
from ..engine.requests import Answer
from ..engine.text_stream import Stream
from ..errors import InvalidInput, ServeError, WorkerDead
from ..models.base import Model
from ..models.generation import Piece, Prompt, Written
from ..models.parameters import FLAG, GENERATION, STOP, Parameters, one_of, text, texts
from .headers import header
from .model_call import Call, Calls, counting_answers, inputs_of
from .pooling import pooled, similarities
from .request import FORM, content_type_of, fields_of, json_value
from .responses import answer_response, headers_of, json_response
from .sse import Events, event
from .wav import is_sound, wav

Told = Callable[[Request, ServeError], str]

#: parameters of this API that no pipeline knows, each by the value that asks for nothing
NEUTRAL = {
    "best_of": 1,
    "decoder_input_details": False,
    "frequency_penalty": 0.0,
    "top_n_tokens": 0,
    "watermark": False,
}
#: parameters that ask for sampling; without it they would do nothing
SAMPLING = ("temperature", "top_k", "top_p", "typical_p")
#: what feature-extraction takes beside its inputs; without `normalize` it gives no mean
POOLING = Parameters(
    "feature-extraction",
    {"normalize": FLAG, "truncate": FLAG, "encoding_format": one_of("float")},
)
STOPPING = Parameters("text-generation", {"stop": STOP})
SIMILARITY = Parameters(
    "sentence-similarity", {"source_sentence": text(), "sentences": texts(1000)}
)


class InferenceApi:
    """The endpoints; `told` says what a client may read of an error."""

    def __init__(self, calls: Calls, told: Told) -> None:
        self._calls = calls
        self._told = told
        self.routes = [
            Route("/info", self.info),
            Route("/models/{name}/info", self.info),
            Route("/models/{name}/health", self.health),
        ]

    async def info(self, request: Request) -> Response:
        """What the model is."""
        name = request.path_params.get("name", FIRST)
        engine = self._calls.engine(request, name)
        model = engine.model
        about = {
            "model_id": name,
            "model_pipeline_tag": None if model is None else model.task,
            "model": "not loaded" if model is None else model.name,
            "state": engine.state,
        }
        return json_response(about)

    async def health(self, request: Request) -> Response:
        """Whether the model's worker lives."""
        engine = self._calls.engine(request, request.path_params["name"])
        if engine.state == "dead":
            raise WorkerDead(str(engine.cause), 1)
        return json_response({"state": engine.state})

    @counting_answers
    async def ask(self, request: Request) -> Response:
        """Ask the model."""
        call = self._calls.begin(request, request.path_params["name"])
        body = await call.body()
        inputs, parameters, others = _read(call.model, body, *content_type_of(request))
        if call.model.task == "text-generation":
            return await self._generate(call, inputs, parameters, others)
        if call.model.task == "feature-extraction":
            return await _extract(call, inputs, parameters, others)
        _refuse(others)
        answers, many = await _answers(call, *translated(call.model.task, inputs, parameters))
        headers = _headers(call, answers)
        values = [shaped(call.model.task, answer.value) for answer in answers]
        if not many and is_sound(values[0]) and "json" not in header(request.scope, b"accept"):
            sound = await asyncio.to_thread(wav, values[0])
            return Response(sound, headers=headers, media_type="audio/wav")
        listed = many or call.model.task == "text-classification"
        return await answer_response(request, values if listed else values[0], headers)

    async def _generate(
        self, call: Call, inputs: Any, parameters: dict[str, Any], others: dict[str, Any]
    ) -> Response:
        streams = others.pop("stream", None) or False
        _refuse(others)
        details = parameters.pop("details", None) or False
        Parameters("text-generation", {"stream": FLAG, "details": FLAG}).check(
            {"stream": streams, "details": details}
        )
        made, stops = generation(parameters)
        if not (streams or details or stops):
            answers, many = await _answers(call, inputs, made)
            values = [answer.value for answer in answers]
            return json_response(values if many else values[0], headers=_headers(call, answers))
        parts = call.model.split(inputs, made)
        prompts = [inputs] if parts is None else parts
        full = made.pop("return_full_text", False)
        if full and (streams or not all(isinstance(prompt, str) for prompt in prompts)):
            raise InvalidInput("return_full_text is for prompts that are texts, and not streamed")
        if not (streams or details):
            call.check_writes()
            asked = [Prompt(prompt, stops) for prompt in prompts]
            answers = await call.ask(asked, made, many=parts is not None)
            told = [_texts(*each, full) for each in zip(prompts, answers, strict=True)]
            return json_response(
                told[0] if parts is None else told, headers=_headers(call, answers)
            )
        if parts is not None:
            raise InvalidInput("tokens are told of one prompt at a time, not of a list")
        stream = await call.listen(inputs, stops, made)
        if streams:
            return Events(call.request, stream, self._events(call.request, stream))
        tokens = [_token(piece) for piece in await call.read(stream)]
        more = {**_details(stream.answer.value[0]), "prefill": [], "tokens": tokens}
        (said,) = _texts(inputs, stream.answer, full)
        return json_response([{**said, "details": more}], headers=_headers(call, [stream.answer]))

    async def _events(self, request: Request, stream: Stream) -> AsyncIterator[bytes]:
        """Each token, and with the last one the whole text."""
        index, last = 0, None
        try:
            async for piece in stream:
                if last is not None:
                    yield event({"index": index, "token": _token(last)})
                index, last = index + 1, piece
            (written,) = stream.answer.value
            if last is not None:
                details = _details(written)
                details["input_length"] = stream.answer.record.length
                token = _token(last, stream.rest)
                whole = {"generated_text": written.text, "details": details}
                yield event({"index": index, "token": token, **whole})
        except ServeError as error:
            yield event({"error": self._told(request, error), "error_type": "generation"})


# -- requests -------------------------------------------------------------------------------


def _read(
    model: Model, body: bytes, kind: str, charset: str
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The inputs, the parameters and what else there is in a body."""
    if kind == "application/json" or kind.endswith("+json"):
        return fields_of(json_value(body))
    return *inputs_of(model, body, kind, charset), {}


def _refuse(others: Mapping[str, Any]) -> None:
    if others:
        raise InvalidInput(f"the body has an unknown key {min(others)!r}; send {FORM}")


async def _answers(
    call: Call, inputs: Any, parameters: Mapping[str, Any]
) -> tuple[list[Answer], bool]:
    """The answers to one input or to the many of a list, and whether it was a list."""
    parts = call.model.split(inputs, parameters)
    many = parts is not None
    return await call.ask([inputs] if parts is None else parts, parameters, many=many), many


def translated(task: str, inputs: Any, parameters: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Inputs and parameters as the task's pipeline has them."""
    made = {name: value for name, value in parameters.items() if value is not None}
    if task == "document-question-answering" and isinstance(inputs, dict) and "word_boxes" in made:
        words = made.pop("word_boxes")
        if isinstance(words, list) and words and isinstance(words[0], str):
            # The client's documentation has words and boxes in turn, the pipeline has pairs.
            words = [list(pair) for pair in zip(words[::2], words[1::2], strict=False)]
        return {**inputs, "word_boxes": words}, made
    if task in ("text-to-audio", "automatic-speech-recognition"):
        asked = made.pop("generation_parameters", None) or {}
        if task == "text-to-audio":
            asked = {**asked, **{name: made.pop(name) for name in GENERATION if name in made}}
        if asked:
            made["generate_kwargs"] = {**asked, **made.get("generate_kwargs", {})}
    if task == "table-question-answering":
        made.pop("model", None)  # the client repeats the address here
    return inputs, made


def generation(parameters: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Parameters of this API as text-generation has them, and the texts to stop at."""
    made = {
        name: value
        for name, value in parameters.items()
        if value is not None and not (name in NEUTRAL and value == NEUTRAL[name])
    }
    stops = made.pop("stop", [])
    STOPPING.check({"stop": stops} if stops else {})
    sampled = [name for name in SAMPLING if name in made]
    if sampled and made.setdefault("do_sample", True) is False:
        raise InvalidInput(f"the parameter {sampled[0]!r} does nothing where do_sample is false")
    if not {"return_text", "return_tensors"} & set(made):
        made.setdefault("return_full_text", False)
    return made, [stops] if isinstance(stops, str) else stops


# -- answers --------------------------------------------------------------------------------


def shaped(task: str, value: Any) -> Any:
    """The answer to one input, as clients of this API expect it."""
    if task == "text-classification" and not isinstance(value, list):
        return [value]
    if task == "zero-shot-classification":
        pairs = zip(value["labels"], value["scores"], strict=True)
        return [{"label": label, "score": score} for label, score in pairs]
    return value


async def _extract(
    call: Call, inputs: Any, parameters: dict[str, Any], others: dict[str, Any]
) -> Response:
    """Features of each token; or, where it is asked for, their mean, or how alike texts are."""
    given = {name: value for name, value in others.items() if value is not None}
    POOLING.check(given)
    if "truncate" in given:
        parameters = {**parameters, "truncation": given["truncate"]}
    if isinstance(inputs, dict) and "source_sentence" in inputs:
        return await _compare(call, inputs, parameters)
    if "normalize" not in given:
        answers, many = await _answers(call, inputs, parameters)
        made: Any = [answer.value for answer in answers]
        made = made if many else made[0]
    else:
        answers, _ = await _answers(call, inputs, {**parameters, "return_tensors": True})
        made = await asyncio.to_thread(_means, answers, given["normalize"])
    return json_response(made, headers=_headers(call, answers))


async def _compare(call: Call, inputs: dict[str, Any], parameters: dict[str, Any]) -> Response:
    SIMILARITY.check(inputs)
    if "sentences" not in inputs:
        raise InvalidInput('sentence-similarity needs "source_sentence" and "sentences"')
    wanted = [inputs["source_sentence"], *inputs["sentences"]]
    answers = await call.ask(wanted, {**parameters, "return_tensors": True})
    values = [answer.value for answer in answers]
    made = await asyncio.to_thread(similarities, values[0], values[1:])
    return json_response(made, headers=_headers(call, answers))


def _means(answers: Sequence[Answer], normalise: bool) -> list[list[float]]:
    return [pooled(answer.value, normalise=normalise)[0].tolist() for answer in answers]


def _token(piece: Piece, more: str = "") -> dict[str, Any]:
    # The pipeline does not tell how likely it found a token.
    return {
        "id": piece.token,
        "text": piece.text + more,
        "logprob": None,
        "special": piece.special,
    }


def _texts(prompt: Any, answer: Answer, full: bool) -> list[dict[str, Any]]:
    return [{"generated_text": prompt * full + written.text} for written in answer.value]


def _details(written: Written) -> dict[str, Any]:
    reasons = {"end": "eos_token", "stop": "stop_sequence", "length": "length"}
    return {"finish_reason": reasons[written.reason], "generated_tokens": len(written.tokens)}


def _headers(call: Call, answers: Sequence[Answer]) -> dict[str, str]:
    return headers_of(call.request, [answer.record for answer in answers])
