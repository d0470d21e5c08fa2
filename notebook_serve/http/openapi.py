"""The HTTP interface as an OpenAPI document: what ``GET /openapi.json`` answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .._version import __version__
from ..queueing.merged_stats import BREAKERS, URGENCY
from ..records import OUTCOMES

Json = dict[str, Any]

JSON = "application/json"
#: what each status means; the README's table has more words
ERRORS = {
    400: "The request is malformed.",
    401: "A token is set, and missing or wrong.",
    403: "The request comes from a page that may not ask, or calls the server by a wrong name.",
    404: "There is no such model, or no such path.",
    406: "The answer is no file of the type that `Accept` asks for.",
    408: "The body took too long to arrive.",
    413: "The body has more bytes than the server takes.",
    415: "The task cannot take a body of this content type.",
    422: "The request is well formed, but it is rejected: its input or a parameter.",
    500: "The model failed on this input.",
    501: "What answers this is not installed on the server.",
    503: "Not now: the queue is full, the model is loading, or the server is stopping.",
    504: "The request's time ran out.",
}
#: what every request may meet
AT_THE_DOOR = (400, 401, 403)
#: what may become of a question to a model
ASKING = (*AT_THE_DOOR, 406, 408, 413, 415, 422, 500, 503, 504)


def document(models: Sequence[str], *, token: bool) -> Json:
    """The document of a server that has these `models`; `token` is whether it wants one."""
    names = {"type": "string", "enum": list(models)}
    of_one = {**_parameter("model", "query", names), "description": "The first one if not given."}
    by_name = {**_parameter("name", "path", names), "required": True}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "notebook_serve",
            "version": __version__,
            "description": "A model behind a queue with dynamic batching.",
        },
        "paths": {
            "/": {
                "get": _looking("The dashboard, as a page.", HTML, parameters=[of_one], more=[404]),
                "post": _asking("Ask the first model.", QUESTION),
            },
            "/models": {"get": _looking("What models there are.", _json(MODELS))},
            "/models/{name}": {
                "parameters": [by_name],
                "get": _looking("What a model is and does just now.", _json(MODEL), more=[404]),
                "post": _asking("Ask a model as Hugging Face's client does.", ASKED, more=[404]),
            },
            "/info": {"get": _looking("What the first model is.", _json(INFO))},
            "/models/{name}/info": {
                "parameters": [by_name],
                "get": _looking("What a model is.", _json(INFO), more=[404]),
            },
            "/models/{name}/health": {
                "parameters": [by_name],
                "get": _looking("Whether a model's worker lives.", STATE, more=[404, 503]),
            },
            **{
                f"/models/{{name}}/v1/{path}": {
                    "parameters": [by_name],
                    "post": _writing(summary, body, ""),
                }
                for path, (summary, body) in V1.items()
            },
            "/v1/models": {"get": _looking("What there is to ask.", _json(LISTED), form="v1-")},
            "/v1/models/{name}": {
                "parameters": [by_name],
                "get": _looking("One of them.", _json(ONE), more=[404], form="v1-"),
            },
            **{
                f"/v1/{path}": {"post": _writing(summary, body, "v1-")}
                for path, (summary, body) in V1.items()
            },
            "/stats": {
                "get": _looking(
                    "Statistics since the start, of all models or of one; times are in seconds.",
                    _json({"$ref": "#/components/schemas/Stats"}),
                    parameters=[of_one],
                    more=[404],
                )
            },
            "/metrics": {"get": _looking("The same for Prometheus.", METRICS, more=[501])},
            "/health": {
                "get": {**_looking("Whether it lives.", STATE, more=[503]), "security": []}
            },
            "/ready": {"get": _looking("Whether requests are taken.", _json(READY), more=[503])},
            "/live": {
                "get": _looking("What the dashboard shows.", LIVE, parameters=[of_one], more=[404])
            },
            "/control": {"post": _control(of_one)},
            "/static/{name}": {
                "parameters": [
                    {**_parameter("name", "path", {"type": "string"}), "required": True}
                ],
                "get": _looking("A part of the dashboard's page.", PARTS, more=[404]),
            },
            "/openapi.json": {"get": _looking("This document.", _json({"type": "object"}))},
        },
        "components": {
            "schemas": {"Error": ERROR, "V1Error": V1_ERROR, "Stats": STATS},
            "responses": {
                f"{form}{status}": _error(said, schema)
                for form, schema in (("", "Error"), ("v1-", "V1Error"))
                for status, said in ERRORS.items()
            },
            **({"securitySchemes": {"token": TOKEN}} if token else {}),
        },
        "security": [{"token": []}] if token else [],
    }


# -- operations -----------------------------------------------------------------------------------


def _asking(summary: str, question: Json, more: Sequence[int] = ()) -> Json:
    raw: Json = {"schema": {}}
    return {
        "summary": summary,
        "parameters": [
            {
                **_parameter("X-Request-Timeout", "header", SECONDS),
                "description": "Seconds after which the answer is not wanted any more.",
            },
            {
                **_parameter("X-Request-ID", "header", {"type": "string"}),
                "description": "Comes back with the answer.",
            },
        ],
        "requestBody": {
            "required": True,
            "content": {
                **_json(question),
                "text/plain": {"schema": {"type": "string"}},
                "application/octet-stream": raw,
                "image/*": raw,
                "audio/*": raw,
                "video/*": raw,
            },
        },
        "responses": {
            "200": {
                "description": "What the pipeline returns for this input; for a list, a list. "
                "A picture or a sound is a file where `Accept` asks for one.",
                "headers": ANSWERED,
                "content": {**_json({}), "image/png": raw, "audio/wav": raw},
            },
            **_errors(*ASKING, *more),
        },
    }


def _writing(summary: str, body: Json, form: str) -> Json:
    events = {"text/event-stream": {"schema": TEXT}}
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": _json(body)},
        "responses": {
            "200": {
                "description": "The answer in OpenAI's form; with `stream`, as events.",
                "content": {**_json({"type": "object"}), **events},
            },
            **_errors(*ASKING, 404, form=form),
        },
    }


def _looking(
    summary: str,
    content: Json,
    *,
    parameters: Sequence[Json] = (),
    more: Sequence[int] = (),
    form: str = "",
) -> Json:
    return {
        "summary": summary,
        **({"parameters": list(parameters)} if parameters else {}),
        "responses": {
            "200": {"description": summary, "content": content},
            **_errors(*AT_THE_DOOR, *more, form=form),
        },
    }


def _control(of_one: Json) -> Json:
    looks = _looking(
        "Pause, resume, or set a policy, from this machine or with the token.",
        LIVE,
        parameters=[of_one],
        more=[404, 408, 413, 422],
    )
    return {**looks, "requestBody": {"required": True, "content": _json(CONTROL)}}


def _errors(*statuses: int, form: str = "") -> Json:
    return {
        str(status): {"$ref": f"#/components/responses/{form}{status}"}
        for status in sorted(statuses)
    }


def _error(said: str, schema: str) -> Json:
    return {"description": said, "content": _json({"$ref": f"#/components/schemas/{schema}"})}


def _parameter(name: str, place: str, schema: Json) -> Json:
    return {"name": name, "in": place, "schema": schema}


# -- values ---------------------------------------------------------------------------------------


def _json(schema: Json) -> Json:
    return {JSON: {"schema": schema}}


def _object(properties: Mapping[str, Json], **more: Any) -> Json:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        **more,
    }


TEXT: Json = {"type": "string"}
#: empty is as if it were not there
SECONDS: Json = {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"const": ""}]}
COUNT: Json = {"type": "integer", "minimum": 0}
#: null before there is anything to say
FIGURE: Json = {"type": ["number", "null"]}
COUNTS: Json = {"type": "object", "additionalProperties": COUNT}
STATES: Json = {"type": "string", "enum": list(URGENCY)}
TIMES = _object(dict.fromkeys(("p50", "p90", "p95", "p99", "mean"), FIGURE))

ERROR = _object(
    {"error": {"type": "string", "minLength": 1}, "type": TEXT},
    description="What is wrong, in a sentence and in a word; of a list, with which item.",
)
ERROR["properties"]["index"] = COUNT
LAST_ERROR = _object(
    {
        "model": TEXT,
        "type": TEXT,
        "message": TEXT,
        "ago": {"type": "number", "minimum": 0},
        "times": COUNT,
        "request": TEXT,
        "next": TEXT,
    },
    additionalProperties=False,
)
#: the models that are failing, by name
FAILING: Json = {"type": "object", "additionalProperties": LAST_ERROR}
ERROR["properties"]["failing"] = FAILING
#: the same as OpenAI's clients read it
V1_ERROR = _object({"error": _object(dict.fromkeys(("message", "type", "code"), TEXT))})
QUESTION: Json = {
    "type": "object",
    "properties": {
        "inputs": {"description": "One input, or a list of them."},
        "parameters": {"type": ["object", "null"]},
    },
    "required": ["inputs"],
    "additionalProperties": False,
}
#: some tasks take parameters beside the input as well
ASKED: Json = {**QUESTION, "additionalProperties": True}
CONTROL: Json = {
    "oneOf": [
        _object({"do": {"enum": ["pause", "resume"]}}),
        _object({"do": {"const": "policy"}, "policy": {**TEXT, "examples": ["Greedy(8)"]}}),
    ]
}
WORKER = _object(
    {
        "number": COUNT,
        "kind": {"enum": ["thread", "process"]},
        "device": TEXT,
        "pid": {"type": ["integer", "null"]},
        "batches": COUNT,
        "requests": COUNT,
        "utilisation": {"type": "number", "minimum": 0, "maximum": 1},
        "restarts": COUNTS,
        "busy": {"type": "number", "minimum": 0},
    },
    additionalProperties=False,
)
MAY_FAIL: Json = {"anyOf": [LAST_ERROR, {"type": "null"}]}
STATS = _object(
    {
        "state": STATES,
        "model": TEXT,
        "policy": TEXT,
        "uptime": {"type": "number"},
        "outcomes": _object(dict.fromkeys(OUTCOMES, COUNT)),
        "throughput": {"type": "number"},
        "latency": TIMES,
        "queue_time": TIMES,
        "inference_time": TIMES,
        "queue_depth": COUNT,
        "queue_peak": COUNT,
        "batch_sizes": COUNTS,
        "reasons": COUNTS,
        "mean_batch_size": FIGURE,
        "padding": FIGURE,
        "utilisation": {"type": "number", "minimum": 0, "maximum": 1},
        "breaker": {"enum": list(BREAKERS)},
        "memory_ceiling": {"type": ["integer", "null"]},
        "workers": {"type": "array", "items": WORKER},
        "restarts": COUNTS,
        "error": TEXT,
        "models": {
            "type": "object",
            "additionalProperties": {"$ref": "#/components/schemas/Stats"},
        },
        "queue_limit": {"type": ["integer", "null"]},
        "active": FIGURE,
        "active_throughput": FIGURE,
        "active_utilisation": FIGURE,
        "failing": MAY_FAIL,
        "last_error": MAY_FAIL,
        "warnings": {"type": "array", "items": TEXT},
    },
    additionalProperties=False,
)
MODEL = _object(
    {
        "name": TEXT,
        "state": STATES,
        "task": {"type": ["string", "null"]},
        "model": {"type": ["string", "null"]},
        "policy": TEXT,
        "waiting": COUNT,
    }
)
INFO = _object(
    {
        "model_id": TEXT,
        "model_pipeline_tag": {"type": ["string", "null"]},
        "model": TEXT,
        "state": STATES,
    }
)
ONE = _object({"id": TEXT, "object": TEXT, "created": COUNT, "owned_by": TEXT})
LISTED = _object({"object": TEXT, "data": {"type": "array", "items": ONE, "minItems": 1}})
NAME: Json = {"type": "string", "maxLength": 1000}
TEXTS: Json = {"anyOf": [TEXT, {"type": "array", "items": TEXT, "minItems": 1}]}
#: OpenAI's paths: what each does, and what it must be given
V1: dict[str, tuple[str, Json]] = {
    "chat/completions": (
        "The next message of a chat.",
        _object({"model": NAME, "messages": {"type": "array", "minItems": 1}}),
    ),
    "completions": ("How a text goes on.", _object({"model": NAME, "prompt": TEXTS})),
    "embeddings": ("A vector for each text.", _object({"model": NAME, "input": TEXTS})),
}
MODELS = _object({"models": {"type": "array", "items": MODEL, "minItems": 1}})
STATE = _json(_object({"state": STATES}))
READY = _object({"state": STATES}, description="A server that is failing takes requests too.")
READY["properties"]["failing"] = FAILING
NULL: Json = {"type": "null"}
TROUBLE: Json = {"type": TEXT, "message": TEXT, "ago": FIGURE, "times": COUNT}
CHANGE = _object({"ago": FIGURE, "policy": TEXT, "reason": TEXT})
LIVE = _json(
    _object(
        {
            "name": TEXT,
            "state": STATES,
            "steers": {"type": "boolean"},
            "task": TEXT,
            "accepts": {"type": "array", "items": {"enum": ["bytes", "json", "text"]}},
            "tiles": {"type": "array", "items": {"type": "array", "items": TEXT}},
            "failing": {"anyOf": [_object({**TROUBLE, "next": TEXT}), NULL]},
            "errors": {"type": "array", "items": _object({**TROUBLE, "request": TEXT})},
            "changes": {"type": "array", "items": CHANGE},
            "warnings": {"type": "array", "items": TEXT},
        }
    )
)
HTML: Json = {"text/html": {"schema": TEXT}}
METRICS: Json = {
    "text/plain": {"schema": TEXT},
    "application/openmetrics-text": {"schema": TEXT},
}
PARTS: Json = {"text/javascript": {"schema": TEXT}, "text/css": {"schema": TEXT}}
PART_NAMES: Json = {
    "type": "string",
    "enum": ["dashboard.js", "dashboard.css", "page.js", "page.css", "tryit.js"],
}
TOKEN: Json = {"type": "http", "scheme": "bearer"}
#: the headers of an answer
ANSWERED: Json = {
    "Server-Timing": {
        "description": "Milliseconds of the wait and of the run.",
        "required": True,
        "schema": TEXT,
    },
    "X-Batch-Size": {
        "description": "How many requests shared the batch.",
        "required": True,
        "schema": COUNT,
    },
    "X-Request-ID": {
        "description": "The client's, or a new one.",
        "required": True,
        "schema": TEXT,
    },
}
