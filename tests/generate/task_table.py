"""The README's table of tasks, each row made by asking a live server.

``python -m tests.generate.task_table`` writes it anew. A column is a function of a task that is
being served: add one to `COLUMNS`, and the table has it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from notebook_serve import Greedy, Server, serve
from notebook_serve.http.json_encoding import to_json

from ..helpers.blocking_model import eventually
from ..helpers.compare_answers import assert_same
from ..helpers.hf_client_cases import METHODS
from ..helpers.task_cases import EXAMPLES, Example, Form, answer

#: of all inputs; with this one there is something in each answer
SEED = 11
README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- made by tests/generate/task_table.py -->\n", "<!-- end of what it made -->\n"
#: how a client calls a kind of file, by how the file begins
KINDS = {b"\x89PNG": "a picture", b"RIFF": "a recording"}
BEGINNINGS = {"image/png": b"\x89PNG", "audio/wav": b"RIFF"}
#: what `curl` calls any body, unless told
FORM_TYPE = "application/x-www-form-urlencoded"
#: how base64 of a file begins in an answer
FILES = {"iVBORw0KGgo": "PNG", "UklGR": "WAV"}


@dataclass(frozen=True)
class Asked:
    """A task that is being served, and one question to it."""

    example: Example
    server: Server
    client: httpx.Client
    #: a pipeline with the same weights that nobody serves
    reference: Any
    given: Any

    @property
    def parameters(self) -> dict[str, Any]:
        """What is asked for besides."""
        return dict(self.example.parameters[0])

    def json(self, given: Any, accept: str = "*/*") -> httpx.Response:
        """The answer to a question that is sent as JSON, with parameters."""
        body = to_json({"inputs": given, "parameters": self.parameters})
        headers = {"content-type": "application/json", "accept": accept}
        return self.client.post("/", content=body, headers=headers)

    def by_itself(self, form: Form, given: Any, parameters: Mapping[str, Any]) -> Any:
        """What the pipeline answers, as JSON has it."""
        return json.loads(to_json(answer(self.reference, form.called(given), parameters)))


@contextmanager
def asked(example: Example) -> Iterator[Asked]:
    """Serve a task's small model."""
    given = example.given(random.Random(SEED))
    with (
        serve(example.pipeline(), policy=Greedy(8), port=0, name=f"table: {example}") as server,
        httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client,
    ):
        yield Asked(example, server, client, example.pipeline(), given)


def task(asked: Asked) -> str:
    """What the server says that it serves."""
    assert asked.server.model.task == asked.example.task
    return f"`{asked.server.model.task}`"


def inputs(asked: Asked) -> str:
    """The bodies that were answered as the pipeline answers."""
    bodies: list[str] = []
    documents: list[str] = []
    for form in asked.example.forms:
        given = form.given(random.Random(SEED))
        response = asked.json(given)
        assert response.status_code == 200, (asked.example.task, response.text)
        assert_same(asked.by_itself(form, given, asked.parameters), response.json())
        documents.append(written(outlined(given)))
        if isinstance(given, (str, bytes)) and as_a_body(asked, form, given):
            bodies.append(kind_of(given))
    needed = "candidate_labels" if "candidate_labels" in asked.parameters else ""
    document = f"JSON: {' or '.join(documents)}" + (f", with `{needed}`" if needed else "")
    return "; ".join([*bodies, document])


def as_a_body(asked: Asked, form: Form, given: str | bytes) -> bool:
    """Whether an input can be the body itself; if so, it is answered as the pipeline answers."""
    kind = "text/plain" if isinstance(given, str) else "application/octet-stream"
    responses = [
        asked.client.post("/", content=given, headers=headers)
        for headers in ({"content-type": kind}, {"content-type": FORM_TYPE}, {})
    ]
    if "candidate_labels" in asked.parameters:
        assert all("needs the parameter" in response.json()["error"] for response in responses)
        return False
    for response in responses:
        found = response.raise_for_status().json()
        if "max_new_tokens" in asked.parameters:  # without any, text is written at random
            assert found
        else:
            assert_same(asked.by_itself(form, given, {}), found)
    return True


def answers(asked: Asked) -> str:
    """What the JSON of the answer holds, and the file that it can be had as."""
    found = written(outlined(asked.json(asked.given).json()))
    for kind in ("image/png", "audio/wav"):
        response = asked.json(asked.given, kind)
        if kind in asked.example.files:
            assert response.raise_for_status().headers["content-type"] == kind
            assert response.content.startswith(BEGINNINGS[kind])
            found += f"; or {kind}"
        else:
            assert response.status_code == 406
    return found


def batched(asked: Asked) -> str:
    """Whether inputs were seen to share a batch, and why they may or may not."""
    server, count = asked.server, 4
    before = len(server.batches())
    server.pause()
    futures, _ = server._submit([asked.given] * count, asked.parameters, None)
    eventually(lambda: len(server.queue()) == count, "all are prepared")
    server.resume()
    for future in futures:
        future.result(60)
    sizes = [batch.size for batch in server.batches()[before:]]
    about = server.model
    assert sizes == ([count] if about.batched else [1] * count), about
    return f"{'yes' if about.batched else 'no'}: {about.why}"


def methods(asked: Asked) -> str:
    """The methods of Hugging Face's client that gave what the pipeline gives."""
    from huggingface_hub import constants

    # The client refuses even this machine's own address where the hub is said to be offline.
    offline, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, False
    try:
        tried = [method for method in METHODS if method.task == asked.example.task]
        with asked.server.client() as client:
            for method in tried:
                method.check(client, asked.reference)
    finally:
        constants.HF_HUB_OFFLINE = offline
    return ", ".join(dict.fromkeys(f"`{method.name}`" for method in tried))


COLUMNS: dict[str, Callable[[Asked], str]] = {
    "task": task,
    "input": inputs,
    "answer": answers,
    "batched": batched,
    "methods of `InferenceClient`": methods,
}


def kind_of(given: str | bytes) -> str:
    """How a client calls what it sends."""
    if isinstance(given, str):
        return "text"
    return next((name for head, name in KINDS.items() if given.startswith(head)), "a video")


def outlined(value: Any) -> Any:
    """What a value is made of, in words: nested as it is, and without what repeats."""
    if isinstance(value, bytes):
        return f"{kind_of(value)} as base64"
    if isinstance(value, str):
        return next((name for head, name in FILES.items() if value.startswith(head)), "text")
    if isinstance(value, dict):
        return {name: outlined(item) for name, item in value.items()}
    if isinstance(value, list):
        made = [outlined(item) for item in value]
        if made and all(item in ("number", ["number"]) for item in made):
            return ["number"]
        return (
            made if len({json.dumps(item) for item in made}) > 1 else made[:1] * min(2, len(made))
        )
    return "nothing" if value is None else "number"


def written(outline: Any) -> str:
    """An outline as a cell of a table; what a key says need not be said again."""
    if isinstance(outline, dict):
        plain = ("text", "number", "nothing")
        parts = [
            f"{name}" if item in plain else f"{name}: {written(item)}"
            for name, item in outline.items()
        ]
        return "{" + ", ".join(parts) + "}"
    if isinstance(outline, list):
        if outline == ["number"]:
            return "numbers"
        alike = len(outline) > 1 and len({json.dumps(item) for item in outline}) == 1
        return f"[{written(outline[0])}, …]" if alike else f"[{', '.join(map(written, outline))}]"
    return str(outline)


def row(example: Example) -> list[str]:
    """One row, from a live server."""
    with asked(example) as live:
        return [column(live).replace("|", "\\|") for column in COLUMNS.values()]


def table() -> str:
    """The whole table, in Markdown."""
    rows = [list(COLUMNS), ["---"] * len(COLUMNS), *map(row, EXAMPLES)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def in_readme() -> tuple[int, int]:
    """Where the table begins and ends there."""
    text = README.read_text("utf-8")
    begin = text.index(BEGIN) + len(BEGIN)
    return begin, text.index(END, begin)


def main() -> None:
    """Write the table into the README."""
    text, (begin, end) = README.read_text("utf-8"), in_readme()
    README.write_text(text[:begin] + table() + text[end:], "utf-8")


if __name__ == "__main__":
    main()
