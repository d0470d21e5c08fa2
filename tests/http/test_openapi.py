"""The OpenAPI document: it is valid and complete, and the server conforms to it."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from openapi_spec_validator import validate
from starlette.routing import Route

from notebook_serve import Server, errors
from notebook_serve.engine.circuit_breaker import CircuitBreaker
from notebook_serve.errors import OptionError, ServeError, StartError
from notebook_serve.extras import MissingExtra
from notebook_serve.http.dashboard_page import PARTS
from notebook_serve.http.openapi import ERRORS, PART_NAMES

from ..helpers import small_models

Make = Callable[..., Server]

#: what a fuzzer may meet that is no fault: times that run out, and what a task rejects
SETTINGS = """
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "503", "504"]
positive_data_acceptance.expected-statuses = ["2xx", "404", "415", "422", "503", "504"]
"""


def echo(inputs: list[Any]) -> list[Any]:
    return inputs


def document_of(server: Server, **headers: str) -> dict[str, Any]:
    """Return the document of a server."""
    answer = httpx.get(server.url + "/openapi.json", headers=headers)
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize("token", [None, "s3cret"])
def test_the_document_is_valid(make: Make, token: str | None) -> None:
    """The document fits OpenAPI's own schema, and names the models and the token."""
    server = make(echo, name="mine", token=token)
    server.add("other", echo)
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    document = document_of(server, **headers)
    validate(document)

    (name,) = document["paths"]["/models/{name}"]["parameters"]
    assert name["schema"]["enum"] == ["mine", "other", "default"]
    assert document["security"] == ([] if token is None else [{"token": []}])
    assert document["paths"]["/health"]["get"]["security"] == []


def test_every_route_is_in_it_and_no_other(make: Make) -> None:
    """The document has every route with its methods, and no others."""
    server = make(echo)
    routes = {
        route.path: (route.methods or set()) - {"HEAD"}
        for route in server.app.routes
        if isinstance(route, Route)
    }
    documented = {
        path: {method.upper() for method in operations} - {"PARAMETERS"}
        for path, operations in document_of(server)["paths"].items()
    }

    assert documented == routes
    assert PART_NAMES["enum"] == list(PARTS)


def test_every_status_of_an_error_is_in_it() -> None:
    """The document has every status of an error that HTTP clients can get."""
    kinds = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, ServeError)
    }
    over_http = {kind for kind in kinds if not issubclass(kind, (OptionError, StartError))}

    assert {kind.status for kind in over_http} | {MissingExtra.status} == set(ERRORS)


def test_a_failing_server_is_as_the_document_says(make: Make) -> None:
    """/ready, /stats and /live conform, with an error and with an open circuit breaker."""

    def broken(inputs: list[Any]) -> list[Any]:
        raise KeyError("no weights")

    server = make(broken)
    server._engine.admission.breaker = CircuitBreaker(threshold=2, cool_off=60.0)
    document = document_of(server)
    for _ in range(2):
        assert httpx.post(server.url, content="x").status_code == 500
        for path in ("/ready", "/stats", "/live"):
            answer = httpx.get(server.url + path)
            described = document["paths"][path]["get"]["responses"][str(answer.status_code)]
            if "$ref" in described:
                name = described["$ref"].rpartition("/")[2]
                described = document["components"]["responses"][name]
            schema = described["content"]["application/json"]["schema"]
            rooted = {**schema, "components": document["components"]}
            Draft202012Validator(rooted).validate(answer.json())
            assert answer.json()["failing"]


@pytest.mark.parametrize(("which", "examples"), [("--exclude-path", 25), ("--include-path", 50)])
def test_a_fuzzer_finds_nothing(make: Make, tmp_path: Path, which: str, examples: int) -> None:
    """Whatever is sent, by the document or against it: statuses, types and bodies are as it says.

    The controls come apart: while they pause the server nobody else would be answered.
    """
    seed = random.randrange(2**32)
    server = make(echo)
    server.add("mask", small_models.pipeline("fill-mask"))
    (tmp_path / "settings.toml").write_text(SETTINGS)
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", "settings.toml", "run"),
        *(server.url + "/openapi.json", which, "/control", "--seed", str(seed)),
        *("--max-examples", str(examples), "--phases", "examples,coverage,fuzzing"),
        *("--request-timeout", "60", "--no-color"),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=110)
    server.resume()

    assert done.returncode == 0, f"seed {seed}\n{done.stdout}\n{done.stderr}"
    assert server.predict("x") == "x"
    assert server.state == "ready"
