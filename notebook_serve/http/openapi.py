"""The OpenAPI document of the HTTP interface, for ``GET /openapi.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .._version import __version__
from ..queueing.merged_stats import BREAKERS, URGENCY
from ..records import OUTCOMES

Json = dict[str, Any]

JSON = "application/json"
#: description of each status
ERRORS = {
    400: "The request is malformed.",
    401: "A token is set, and missing or wrong.",
    403: "The origin or the host of the request is not allowed.",
    404: "The model or the path does not exist.",
    406: "The answer is not a file of the type in `Accept`.",
    408: "The body took too long to arrive.",
    413: "The body is larger than the server accepts.",
    415: "The task does not accept this content type.",
    422: "The request is well formed, but its input or a parameter is invalid.",
    500: "The model failed on this input.",
    501: "The server lacks a package that this path needs.",
    503: "The queue is full, the model is loading, or the server is stopping; retry later.",
    504: "The request timed out.",
}
#: errors of every request
COMMON = (400, 401, 403)
#: errors of a request to a model
INFERENCE = (*COMMON, 406, 408, 413, 415, 422, 500, 503, 504)


def openapi_document(models: Sequence[str], *, token: bool) -> Json:
    """Return the document of a server with these `models`, which needs a token if `token`."""
    names = {"type": "string", "enum": list(models)}
    model_query = {
        **_parameter("model", "query", names),
        "description": "Name of a model; the first one if missing.",
    }
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
                "get": _get("Get the dashboard.", HTML, parameters=[model_query], more=[404]),
                "post": _infer("Call the first model.", INPUTS),
            },
            "/models": {"get": _get("List models.", _json(MODELS))},
            "/models/{name}": {
                "parameters": [by_name],
                "get": _get("Get a model and its current state.", _json(MODEL), more=[404]),
                "post": _infer(
                    "Call a model, as Hugging Face's client does.", HUB_INPUTS, more=[404]
                ),
            },
            "/info": {"get": _get("Get the first model.", _json(INFO))},
            "/models/{name}/info": {
                "parameters": [by_name],
                "get": _get("Get a model.", _json(INFO), more=[404]),
            },
            "/models/{name}/health": {
                "parameters": [by_name],
                "get": _get("Liveness probe of a model.", STATE, more=[404, 503]),
            },
            **{
                f"/models/{{name}}/v1/{path}": {
                    "parameters": [by_name],
                    "post": _generate(summary, body, ""),
                }
                for path, (summary, body) in V1.items()
            },
            "/v1/models": {"get": _get("List models.", _json(LISTED), form="v1-")},
            "/v1/models/{name}": {
                "parameters": [by_name],
                "get": _get("Get a model.", _json(ONE), more=[404], form="v1-"),
            },
            **{
                f"/v1/{path}": {"post": _generate(summary, body, "v1-")}
                for path, (summary, body) in V1.items()
            },
            "/stats": {
                "get": _get(
                    "Get statistics of all models or of one since the start, in seconds.",
                    _json({"$ref": "#/components/schemas/Stats"}),
                    parameters=[model_query],
                    more=[404],
                )
            },
            "/metrics": {"get": _get("Get the statistics for Prometheus.", METRICS, more=[501])},
            "/health": {"get": {**_get("Liveness probe.", STATE, more=[503]), "security": []}},
            "/ready": {"get": _get("Readiness probe.", _json(READY), more=[503])},
            "/live": {
                "get": _get("Get the dashboard's data.", LIVE, parameters=[model_query], more=[404])
            },
            "/control": {"post": _control(model_query)},
            "/static/{name}": {
                "parameters": [
                    {**_parameter("name", "path", {"type": "string"}), "required": True}
                ],
                "get": _get("Get a script or a style sheet of the dashboard.", PARTS, more=[404]),
            },
            "/openapi.json": {"get": _get("Get this document.", _json({"type": "object"}))},
        },
        "components": {
            "schemas": {"Error": ERROR, "V1Error": V1_ERROR, "Stats": STATS},
            "responses": {
                f"{form}{status}": _error(description, schema)
                for form, schema in (("", "Error"), ("v1-", "V1Error"))
                for status, description in ERRORS.items()
            },
            **({"securitySchemes": {"token": TOKEN}} if token else {}),
        },
        "security": [{"token": []}] if token else [],
    }


# -- operations -----------------------------------------------------------------------------------


def _infer(summary: str, inputs: Json, more: Sequence[int] = ()) -> Json:
    raw: Json = {"schema": {}}
    return {
        "summary": summary,
        "parameters": [
            {
                **_parameter("X-Request-Timeout", "header", SECONDS),
                "description": "Seconds after which the request times out.",
            },
            {
                **_parameter("X-Request-ID", "header", {"type": "string"}),
                "description": "An id that the response repeats.",
            },
        ],
        "requestBody": {
            "required": True,
            "content": {
                **_json(inputs),
                "text/plain": {"schema": {"type": "string"}},
                "application/octet-stream": raw,
                "image/*": raw,
                "audio/*": raw,
                "video/*": raw,
            },
        },
        "responses": {
            "200": {
                "description": "The pipeline's output for this input; for a list, a list. "
                "An image or a sound is a file if `Accept` asks for one.",
                "headers": ANSWERED,
                "content": {**_json({}), "image/png": raw, "audio/wav": raw},
            },
            **_errors(*INFERENCE, *more),
        },
    }


def _generate(summary: str, body: Json, form: str) -> Json:
    events = {"text/event-stream": {"schema": TEXT}}
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": _json(body)},
        "responses": {
            "200": {
                "description": "The answer in OpenAI's form; with `stream`, server-sent events.",
                "content": {**_json({"type": "object"}), **events},
            },
            **_errors(*INFERENCE, 404, form=form),
        },
    }


def _get(
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
            **_errors(*COMMON, *more, form=form),
        },
    }


def _control(model_query: Json) -> Json:
    operation = _get(
        "Pause, resume or set a policy; from this machine or with the token only.",
        LIVE,
        parameters=[model_query],
        more=[404, 408, 413, 422],
    )
    return {**operation, "requestBody": {"required": True, "content": _json(CONTROL)}}


def _errors(*statuses: int, form: str = "") -> Json:
    return {
        str(status): {"$ref": f"#/components/responses/{form}{status}"}
        for status in sorted(statuses)
    }


def _error(description: str, schema: str) -> Json:
    return {
        "description": description,
        "content": _json({"$ref": f"#/components/schemas/{schema}"}),
    }


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
#: an empty header is ignored
SECONDS: Json = {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"const": ""}]}
COUNT: Json = {"type": "integer", "minimum": 0}
#: null before the first value
FIGURE: Json = {"type": ["number", "null"]}
COUNTS: Json = {"type": "object", "additionalProperties": COUNT}
STATES: Json = {"type": "string", "enum": list(URGENCY)}
TIMES = _object(dict.fromkeys(("p50", "p90", "p95", "p99", "mean"), FIGURE))

ERROR = _object(
    {"error": {"type": "string", "minLength": 1}, "type": TEXT},
    description="The message and the type of an error; for a list, also the index of the input.",
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
#: errors of failing models, by the model's name
FAILING: Json = {"type": "object", "additionalProperties": LAST_ERROR}
ERROR["properties"]["failing"] = FAILING
#: an error in the form of OpenAI's clients
V1_ERROR = _object({"error": _object(dict.fromkeys(("message", "type", "code"), TEXT))})
INPUTS: Json = {
    "type": "object",
    "properties": {
        "inputs": {"description": "One input, or a list of them."},
        "parameters": {"type": ["object", "null"]},
    },
    "required": ["inputs"],
    "additionalProperties": False,
}
#: some tasks also take parameters beside the inputs
HUB_INPUTS: Json = {**INPUTS, "additionalProperties": True}
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
#: summary and required body of OpenAI's paths
V1: dict[str, tuple[str, Json]] = {
    "chat/completions": (
        "Generate the next message of a chat.",
        _object({"model": NAME, "messages": {"type": "array", "minItems": 1}}),
    ),
    "completions": (
        "Generate the continuation of a text.",
        _object({"model": NAME, "prompt": TEXTS}),
    ),
    "embeddings": ("Embed texts as vectors.", _object({"model": NAME, "input": TEXTS})),
}
MODELS = _object({"models": {"type": "array", "items": MODEL, "minItems": 1}})
STATE = _json(_object({"state": STATES}))
READY = _object({"state": STATES}, description="A failing server also accepts requests.")
READY["properties"]["failing"] = FAILING
NULL: Json = {"type": "null"}
FAILURE: Json = {"type": TEXT, "message": TEXT, "ago": FIGURE, "times": COUNT}
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
            "failing": {"anyOf": [_object({**FAILURE, "next": TEXT}), NULL]},
            "errors": {"type": "array", "items": _object({**FAILURE, "request": TEXT})},
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
#: headers of an answer
ANSWERED: Json = {
    "Server-Timing": {
        "description": "Milliseconds in the queue and in the model.",
        "required": True,
        "schema": TEXT,
    },
    "X-Batch-Size": {
        "description": "Number of requests in the batch.",
        "required": True,
        "schema": COUNT,
    },
    "X-Request-ID": {
        "description": "The client's id, or a new one.",
        "required": True,
        "schema": TEXT,
    },
}
