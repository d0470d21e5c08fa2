"""The routes of the Hugging Face Inference API, below ``/models/{name}``.

The values are those of ``pipe(x)``. Some requests and answers have another form than at ``POST /``.
Generated text comes without its prompt, unless ``return_full_text`` is true.
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
from ..models.generation import GeneratedSequence, Piece, Prompt
from ..models.parameters import FLAG, GENERATION, STOP, Parameters, one_of, text, texts
from .model_call import CallFactory, ModelCall, count_answers
from .pooling import cosine_similarities, mean_pool
from .request import parse_inputs, reject_unknown
from .responses import answer_headers, answer_response, json_response
from .sse import EventStreamResponse, encode_event
from .wav import encode_wav, is_sound

PublicMessage = Callable[[Request, ServeError], str]

#: parameters of this API that no pipeline has, with the only value that is accepted
NEUTRAL = {
    "best_of": 1,
    "decoder_input_details": False,
    "frequency_penalty": 0.0,
    "top_n_tokens": 0,
    "watermark": False,
}
#: parameters that imply sampling; without it they have no effect
SAMPLING = ("temperature", "top_k", "top_p", "typical_p")
#: fields of feature-extraction besides its inputs; `normalize` asks for mean pooling
POOLING = Parameters(
    "feature-extraction",
    {"normalize": FLAG, "truncate": FLAG, "encoding_format": one_of("float")},
)
STOPPING = Parameters("text-generation", {"stop": STOP})
SIMILARITY = Parameters(
    "sentence-similarity", {"source_sentence": text(), "sentences": texts(1000)}
)


class InferenceApi:
    """The handlers; `public_message` returns the message of an error for the client."""

    def __init__(self, calls: CallFactory, public_message: PublicMessage) -> None:
        self._calls = calls
        self._public_message = public_message
        self.routes = [
            Route("/info", self.info),
            Route("/models/{name}/info", self.info),
            Route("/models/{name}/health", self.health),
        ]

    async def info(self, request: Request) -> Response:
        """Describe the model."""
        name = request.path_params.get("name", FIRST)
        engine = self._calls.engine(request, name)
        model = engine.model
        facts = {
            "model_id": name,
            "model_pipeline_tag": None if model is None else model.task,
            "model": "not loaded" if model is None else model.name,
            "state": engine.state,
        }
        return json_response(facts)

    async def health(self, request: Request) -> Response:
        """Answer 200, or 503 if the model's worker has died."""
        engine = self._calls.engine(request, request.path_params["name"])
        if engine.state == "dead":
            raise WorkerDead(engine.error, 1)
        return json_response({"state": engine.state})

    @count_answers
    async def infer(self, request: Request) -> Response:
        """Call the model."""
        call = self._calls.begin(request, request.path_params["name"])
        body = await call.body()
        task = call.model.task
        inputs, parameters, others = parse_inputs(call.model, body, call.headers)
        if task == "text-generation":
            return await self._generate(call, inputs, parameters, others)
        if task == "feature-extraction":
            return await _extract_features(call, inputs, parameters, others)
        reject_unknown(others)
        answers, many = await call.answer(*translate(task, inputs, parameters))
        headers = _headers(call, answers)
        values = [shape_answer(task, answer.value) for answer in answers]
        if not many and is_sound(values[0]) and "json" not in call.headers.get("accept", ""):
            sound = await asyncio.to_thread(encode_wav, values[0])
            return Response(sound, headers=headers, media_type="audio/wav")
        listed = many or task == "text-classification"
        return await answer_response(request, values if listed else values[0], headers)

    async def _generate(
        self, call: ModelCall, inputs: Any, parameters: dict[str, Any], others: dict[str, Any]
    ) -> Response:
        streams = others.pop("stream", None) or False
        reject_unknown(others)
        details = parameters.pop("details", None) or False
        Parameters("text-generation", {"stream": FLAG, "details": FLAG}).check(
            {"stream": streams, "details": details}
        )
        translated, stops = translate_generation(parameters)
        if not (streams or details or stops):
            answers, many = await call.answer(inputs, translated)
            values = [answer.value for answer in answers]
            return json_response(values if many else values[0], headers=_headers(call, answers))
        parts = call.model.split(inputs, translated)
        prompts = [inputs] if parts is None else parts
        full = translated.pop("return_full_text", False)
        if full and (streams or not all(isinstance(prompt, str) for prompt in prompts)):
            raise InvalidInput("return_full_text needs prompts that are texts, and no streaming")
        if not (streams or details):
            call.check_writes()
            entries = [Prompt(prompt, stops) for prompt in prompts]
            answers = await call.answer_each(entries, translated, many=parts is not None)
            generated = [_texts(*each, full) for each in zip(prompts, answers, strict=True)]
            content = generated[0] if parts is None else generated
            return json_response(content, headers=_headers(call, answers))
        if parts is not None:
            raise InvalidInput("stream and details need one prompt, not a list of them")
        stream = await call.listen(inputs, stops, translated)
        if streams:
            events = self._events(call.request, stream)
            return EventStreamResponse(call.request, stream, events)
        tokens = [_token(piece) for piece in await call.read(stream)]
        more = {**_details(stream.answer.value[0]), "prefill": [], "tokens": tokens}
        (whole,) = _texts(inputs, stream.answer, full)
        content = [{**whole, "details": more}]
        return json_response(content, headers=_headers(call, [stream.answer]))

    async def _events(self, request: Request, stream: Stream) -> AsyncIterator[bytes]:
        """Yield an event for each token; the last one also has the whole text."""
        index, last = 0, None
        try:
            async for piece in stream:
                if last is not None:
                    yield encode_event({"index": index, "token": _token(last)})
                index, last = index + 1, piece
            (written,) = stream.answer.value
            if last is not None:
                details = _details(written)
                details["input_length"] = stream.answer.record.length
                token = _token(last, stream.rest)
                whole = {"generated_text": written.text, "details": details}
                yield encode_event({"index": index, "token": token, **whole})
        except ServeError as error:
            yield encode_event(
                {"error": self._public_message(request, error), "error_type": "generation"}
            )


# -- requests -------------------------------------------------------------------------------


def translate(task: str, inputs: Any, parameters: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return inputs and parameters in the form that the task's pipeline takes."""
    translated = {name: value for name, value in parameters.items() if value is not None}
    if (
        task == "document-question-answering"
        and isinstance(inputs, dict)
        and "word_boxes" in translated
    ):
        words = translated.pop("word_boxes")
        if isinstance(words, list) and words and isinstance(words[0], str):
            # The client's documentation alternates words and boxes; the pipeline takes pairs.
            words = [list(pair) for pair in zip(words[::2], words[1::2], strict=False)]
        return {**inputs, "word_boxes": words}, translated
    if task in ("text-to-audio", "automatic-speech-recognition"):
        kwargs = translated.pop("generation_parameters", None) or {}
        if task == "text-to-audio":
            kwargs = {
                **kwargs,
                **{name: translated.pop(name) for name in GENERATION if name in translated},
            }
        if kwargs:
            translated["generate_kwargs"] = {**kwargs, **translated.get("generate_kwargs", {})}
    if task == "table-question-answering":
        translated.pop("model", None)  # the client repeats the address here
    return inputs, translated


def translate_generation(parameters: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the parameters that text-generation takes, and the stop texts."""
    translated = {
        name: value
        for name, value in parameters.items()
        if value is not None and not (name in NEUTRAL and value == NEUTRAL[name])
    }
    stops = translated.pop("stop", [])
    STOPPING.check({"stop": stops} if stops else {})
    sampled = [name for name in SAMPLING if name in translated]
    if sampled and translated.setdefault("do_sample", True) is False:
        raise InvalidInput(f"the parameter {sampled[0]!r} has no effect if do_sample is false")
    if not {"return_text", "return_tensors"} & set(translated):
        translated.setdefault("return_full_text", False)
    return translated, [stops] if isinstance(stops, str) else stops


# -- answers --------------------------------------------------------------------------------


def shape_answer(task: str, value: Any) -> Any:
    """Return the answer to one input in the form that clients of this API expect."""
    if task == "text-classification" and not isinstance(value, list):
        return [value]
    if task == "zero-shot-classification":
        pairs = zip(value["labels"], value["scores"], strict=True)
        return [{"label": label, "score": score} for label, score in pairs]
    return value


async def _extract_features(
    call: ModelCall, inputs: Any, parameters: dict[str, Any], others: dict[str, Any]
) -> Response:
    """Return the features of each token, their mean, or similarities of sentences."""
    given = {name: value for name, value in others.items() if value is not None}
    POOLING.check(given)
    if "truncate" in given:
        parameters = {**parameters, "truncation": given["truncate"]}
    if isinstance(inputs, dict) and "source_sentence" in inputs:
        return await _compare_sentences(call, inputs, parameters)
    if "normalize" not in given:
        answers, many = await call.answer(inputs, parameters)
        content: Any = [answer.value for answer in answers] if many else answers[0].value
    else:
        answers, _ = await call.answer(inputs, {**parameters, "return_tensors": True})
        content = await asyncio.to_thread(_mean_pool_all, answers, given["normalize"])
    return json_response(content, headers=_headers(call, answers))


async def _compare_sentences(
    call: ModelCall, inputs: dict[str, Any], parameters: dict[str, Any]
) -> Response:
    SIMILARITY.check(inputs)
    if "sentences" not in inputs:
        raise InvalidInput('sentence-similarity needs "source_sentence" and "sentences"')
    sentences = [inputs["source_sentence"], *inputs["sentences"]]
    answers = await call.answer_each(sentences, {**parameters, "return_tensors": True})
    values = [answer.value for answer in answers]
    content = await asyncio.to_thread(cosine_similarities, values[0], values[1:])
    return json_response(content, headers=_headers(call, answers))


def _mean_pool_all(answers: Sequence[Answer], normalise: bool) -> list[list[float]]:
    return [mean_pool(answer.value, normalise=normalise)[0].tolist() for answer in answers]


def _token(piece: Piece, rest: str = "") -> dict[str, Any]:
    # The pipeline gives no log probabilities.
    return {
        "id": piece.token,
        "text": piece.text + rest,
        "logprob": None,
        "special": piece.special,
    }


def _texts(prompt: Any, answer: Answer, full: bool) -> list[dict[str, Any]]:
    return [{"generated_text": prompt * full + written.text} for written in answer.value]


def _details(written: GeneratedSequence) -> dict[str, Any]:
    reasons = {"end": "eos_token", "stop": "stop_sequence", "length": "length"}
    return {"finish_reason": reasons[written.reason], "generated_tokens": len(written.tokens)}


def _headers(call: ModelCall, answers: Sequence[Answer]) -> dict[str, str]:
    return answer_headers(call.request, [answer.record for answer in answers])
