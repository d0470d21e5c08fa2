"""A dashboard that stands still: what is in it, in a browser and in a notebook's file."""

from __future__ import annotations

import asyncio
import base64
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

from notebook_serve import Greedy, Server
from notebook_serve.dashboard.snapshot import Live
from notebook_serve.dashboard.still_picture import HEIGHT, ORANGE, WIDTH, DashboardPicture
from notebook_serve.testing import Faulty

from ..generate.course import environment

Make = Callable[..., Server]
IMAGE = re.compile(r'src="data:image/svg\+xml;base64,([^"]*)"')


def echo(inputs: list[Any]) -> list[Any]:
    return inputs


def still(server: Server, **fields: Any) -> str:
    """The picture of a server as HTML, with other things in it."""
    picture = {**Live(server._engine).picture(), **fields}
    return DashboardPicture(picture, "2026-01-02 11:27", "id-1", "text")._repr_html_()


def charts(html: str) -> list[ET.Element]:
    """The images in it."""
    return [ET.fromstring(base64.b64decode(found)) for found in IMAGE.findall(html)]


def test_it_says_what_and_when(make: Make) -> None:
    """The name, the state, the policy, the figures and their scope, and the moment; escaped."""
    server = make(echo, name="<mine>", policy=Greedy(8))
    html = still(server, tiles=[["arrivals", "31.2/s", "last 10 s"], ["busy", "87%", "now"]])

    assert "<b>&lt;mine&gt;</b> ready" in html
    assert "<code>Greedy(max_batch_size=8)</code>" in html
    assert "as of 2026-01-02 11:27" in html
    for text in ("arrivals", "31.2/s", "last 10 s"):
        assert re.search(rf"<t[hd][^>]*>{re.escape(text)}</t[hd]>", html)
    assert "<script" not in html


def test_what_is_wrong_is_in_it(make: Make) -> None:
    """The last failure, the server's error and its warnings, as text."""
    failing = {"type": "ValueError", "message": "<b>no", "ago": 1.0, "times": 2, "next": "."}
    html = still(make(echo), failing=failing, error="a fault", warnings=["slow"])
    lines = re.findall(r'<p class="notebook-serve-(\w+)">(.*?)</p>', html)

    assert lines == [
        ("error", "Requests fail: ValueError: &lt;b&gt;no"),
        ("error", "a fault"),
        ("warning", "slow"),
    ]
    styles = dict(re.findall(r"\.notebook-serve-(error|warning) {(.*?)}", html))
    assert "error-color" in styles["error"]
    assert ORANGE in styles["warning"]
    assert "error" not in styles["warning"]


def test_the_charts_are_images_within_their_frame(make: Make) -> None:
    """Of requests that were answered, failed and wait; each says in words what it shows."""
    server = make(Faulty(echo, fail_on="bad"), policy=Greedy(4))
    server.predict(["a"] * 9)
    html = still(server, changes=[{"ago": 9.0, "policy": "Greedy(8)", "reason": "set"}])
    found = charts(html)

    assert len(found) == 4
    assert "batches by size in the last minute; the largest of 4" in html
    bars = found[2].findall("{*}rect")
    assert len(bars) == 2
    assert len(found[3].findall("{*}rect")) == 18
    for image in found:
        for rect in image.iter("{http://www.w3.org/2000/svg}rect"):
            assert -17 <= float(rect.attrib["x"]) <= WIDTH
            assert 0 <= float(rect.attrib["y"]) <= HEIGHT


def test_an_idle_server_has_one_too(make: Make) -> None:
    """Without requests there is nothing to draw, and nothing fails."""
    assert len(charts(still(make(echo)))) == 4


CELLS = (
    "from notebook_serve import serve\nserver = serve(lambda texts: texts, port=0, name='kept')",
    "server.dashboard()",
    "server.predict(['x'] * 20)\nNone",
    "server.stop()",
)


def test_a_notebook_that_was_run_at_once_has_the_last_picture(tmp_path: Path) -> None:
    """That of the cell during which requests came, though another showed the dashboard."""
    notebook = nbformat.v4.new_notebook()  # type: ignore[no-untyped-call]
    notebook.cells = [nbformat.v4.new_code_cell(text) for text in CELLS]  # type: ignore[no-untyped-call]
    client = NotebookClient(notebook, timeout=60, kernel_name="python3", store_widget_state=False)
    asyncio.run(client.async_execute(cwd=str(tmp_path), env=environment(fast=True)))
    first, second = notebook.cells[1].outputs

    assert "kept</b> ready" in first.data["text/html"]
    assert "ok: 20" in first.data["text/plain"]
    assert len(charts(first.data["text/html"])[3].findall("{*}rect")) == 40
    assert (second.data["text/plain"], second.data["text/html"]) == ("", "")
    assert not notebook.cells[3].outputs
