"""Table of tasks in the page of ``models/``, each row made with a live server.

``python -m tests.generate.task_table`` writes it anew. A column is a function of a served task:
add one to `COLUMNS` to have it in the table.
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

#: seed of all inputs; with this one no answer is empty
SEED = 11
PAGE = Path(__file__).parents[2] / "notebook_serve" / "models" / "README.md"
BEGIN, END = "<!-- made by tests/generate/task_table.py -->\n", "<!-- end of what it made -->\n"
#: name of a kind of file, by its first bytes
KINDS = {b"\x89PNG": "an image", b"RIFF": "a recording"}
FIRST_BYTES = {"image/png": b"\x89PNG", "audio/wav": b"RIFF"}
#: content type that `curl` sends by default
FORM_TYPE = "application/x-www-form-urlencoded"
#: name of a kind of file in an answer, by the first characters of its base64
FILES = {"iVBORw0KGgo": "PNG", "UklGR": "WAV"}


@dataclass(frozen=True)
class ServedTask:
    """A task that is served, and one input for it."""

    example: Example
    server: Server
    client: httpx.Client
    #: a pipeline with the same weights, which is not served
    reference: Any
    given: Any

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters of the request."""
        return dict(self.example.parameters[0])

    def json(self, given: Any, accept: str = "*/*") -> httpx.Response:
        """Send an input as JSON, with parameters."""
        body = to_json({"inputs": given, "parameters": self.parameters})
        headers = {"content-type": "application/json", "accept": accept}
        return self.client.post("/", content=body, headers=headers)

    def expect(self, form: Form, given: Any, parameters: Mapping[str, Any]) -> Any:
        """Return the pipeline's own answer, by way of JSON."""
        return json.loads(to_json(answer(self.reference, form.called(given), parameters)))


@contextmanager
def serve_task(example: Example) -> Iterator[ServedTask]:
    """Serve a task's small model."""
    given = example.given(random.Random(SEED))
    with (
        serve(example.pipeline(), policy=Greedy(8), port=0, name=f"table: {example}") as server,
        httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client,
    ):
        yield ServedTask(example, server, client, example.pipeline(), given)


def task(served: ServedTask) -> str:
    """Return the task that the server names."""
    assert served.server.model.task == served.example.task
    return f"`{served.server.model.task}`"


def inputs(served: ServedTask) -> str:
    """Return the forms of input whose answer equals the pipeline's."""
    bodies: list[str] = []
    documents: list[str] = []
    for form in served.example.forms:
        given = form.given(random.Random(SEED))
        response = served.json(given)
        assert response.status_code == 200, (served.example.task, response.text)
        assert_same(served.expect(form, given, served.parameters), response.json())
        documents.append(write(outline(given)))
        if isinstance(given, (str, bytes)) and is_a_body(served, form, given):
            bodies.append(kind_of(given))
    needed = "candidate_labels" if "candidate_labels" in served.parameters else ""
    document = f"JSON: {' or '.join(documents)}" + (f", with `{needed}`" if needed else "")
    return "; ".join([*bodies, document])


def is_a_body(served: ServedTask, form: Form, given: str | bytes) -> bool:
    """Return True if an input can be the body itself, with the pipeline's own answer."""
    kind = "text/plain" if isinstance(given, str) else "application/octet-stream"
    responses = [
        served.client.post("/", content=given, headers=headers)
        for headers in ({"content-type": kind}, {"content-type": FORM_TYPE}, {})
    ]
    if "candidate_labels" in served.parameters:
        assert all("needs the parameter" in response.json()["error"] for response in responses)
        return False
    for response in responses:
        found = response.raise_for_status().json()
        if "max_new_tokens" in served.parameters:  # without it, the text is sampled
            assert found
        else:
            assert_same(served.expect(form, given, {}), found)
    return True


def answers(served: ServedTask) -> str:
    """Return the outline of the answer's JSON, and the types of file that it can be."""
    found = write(outline(served.json(served.given).json()))
    for kind in ("image/png", "audio/wav"):
        response = served.json(served.given, kind)
        if kind in served.example.files:
            assert response.raise_for_status().headers["content-type"] == kind
            assert response.content.startswith(FIRST_BYTES[kind])
            found += f"; or {kind}"
        else:
            assert response.status_code == 406
    return found


def batched(served: ServedTask) -> str:
    """Return "yes" if inputs were seen to share a batch, else "no", with the server's reason."""
    server, count = served.server, 4
    before = len(server.batches())
    server.pause()
    futures, _ = server._submit([served.given] * count, served.parameters, None)
    eventually(lambda: len(server.queue()) == count, "all are prepared")
    server.resume()
    for future in futures:
        future.result(60)
    sizes = [batch.size for batch in server.batches()[before:]]
    about = server.model
    assert sizes == ([count] if about.batched else [1] * count), about
    return f"{'yes' if about.batched else 'no'}: {about.why}"


def methods(served: ServedTask) -> str:
    """Return the methods of Hugging Face's client whose result equals the pipeline's."""
    from huggingface_hub import constants

    # With HF_HUB_OFFLINE the client refuses every request, including to localhost.
    offline, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, False
    try:
        tried = [method for method in METHODS if method.task == served.example.task]
        with served.server.client() as client:
            for method in tried:
                method.check(client, served.reference)
    finally:
        constants.HF_HUB_OFFLINE = offline
    return ", ".join(dict.fromkeys(f"`{method.name}`" for method in tried))


COLUMNS: dict[str, Callable[[ServedTask], str]] = {
    "task": task,
    "input": inputs,
    "answer": answers,
    "batched": batched,
    "methods of `InferenceClient`": methods,
}


def kind_of(given: str | bytes) -> str:
    """Return the name of an input's kind."""
    if isinstance(given, str):
        return "text"
    return next((name for head, name in KINDS.items() if given.startswith(head)), "a video")


def outline(value: Any) -> Any:
    """Replace the parts of a nested value by words, and leave out repeated ones."""
    if isinstance(value, bytes):
        return f"{kind_of(value)} as base64"
    if isinstance(value, str):
        return next((name for head, name in FILES.items() if value.startswith(head)), "text")
    if isinstance(value, dict):
        return {name: outline(item) for name, item in value.items()}
    if isinstance(value, list):
        parts = [outline(item) for item in value]
        if parts and all(part in ("number", ["number"]) for part in parts):
            return ["number"]
        different = len({json.dumps(part) for part in parts}) > 1
        return parts if different else parts[:1] * min(2, len(parts))
    return "nothing" if value is None else "number"


def write(outline: Any) -> str:
    """Write an outline as a cell of a table; the key of a plain value is enough."""
    if isinstance(outline, dict):
        plain = ("text", "number", "nothing")
        parts = [
            f"{name}" if item in plain else f"{name}: {write(item)}"
            for name, item in outline.items()
        ]
        return "{" + ", ".join(parts) + "}"
    if isinstance(outline, list):
        if outline == ["number"]:
            return "numbers"
        alike = len(outline) > 1 and len({json.dumps(item) for item in outline}) == 1
        return f"[{write(outline[0])}, …]" if alike else f"[{', '.join(map(write, outline))}]"
    return str(outline)


def row(example: Example) -> list[str]:
    """Make one row with a live server."""
    with serve_task(example) as served:
        return [column(served).replace("|", "\\|") for column in COLUMNS.values()]


def table() -> str:
    """Make the whole table, in Markdown."""
    rows = [list(COLUMNS), ["---"] * len(COLUMNS), *map(row, EXAMPLES)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def place() -> tuple[int, int]:
    """Return the positions of the table's begin and end in the page."""
    text = PAGE.read_text("utf-8")
    begin = text.index(BEGIN) + len(BEGIN)
    return begin, text.index(END, begin)


def main() -> None:
    """Write the table into the page."""
    text, (begin, end) = PAGE.read_text("utf-8"), place()
    PAGE.write_text(text[:begin] + table() + text[end:], "utf-8")


if __name__ == "__main__":
    main()
