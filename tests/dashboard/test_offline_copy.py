"""Static dashboard: its HTML, and its copy in a notebook's file."""

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
from notebook_serve.dashboard.offline_copy import HEIGHT, ORANGE, WIDTH, OfflineCopy
from notebook_serve.dashboard.snapshot import EngineSnapshots
from notebook_serve.testing import Faulty

from ..generate.course import environment

Make = Callable[..., Server]
IMAGE = re.compile(r'src="data:image/svg\+xml;base64,([^"]*)"')


def echo(inputs: list[Any]) -> list[Any]:
    return inputs


def render_static(server: Server, **fields: Any) -> str:
    """Return the offline copy of a server as HTML, with some fields replaced."""
    snapshot = {**EngineSnapshots(server._engine).take(), **fields}
    return OfflineCopy(snapshot, "2026-01-02 11:27", "id-1", "text")._repr_html_()


def charts(html: str) -> list[ET.Element]:
    """Return its images."""
    return [ET.fromstring(base64.b64decode(found)) for found in IMAGE.findall(html)]


def test_head_and_figures(make: Make) -> None:
    """It has name, state, policy, time, and figures with their spans, all escaped."""
    server = make(echo, name="<mine>", policy=Greedy(8))
    html = render_static(
        server, tiles=[["arrivals", "31.2/s", "last 10 s"], ["busy", "87%", "now"]]
    )

    assert "<b>&lt;mine&gt;</b> ready" in html
    assert "<code>Greedy(max_batch_size=8)</code>" in html
    assert "as of 2026-01-02 11:27" in html
    for text in ("arrivals", "31.2/s", "last 10 s"):
        assert re.search(rf"<t[hd][^>]*>{re.escape(text)}</t[hd]>", html)
    assert "<script" not in html


def test_errors_and_warnings(make: Make) -> None:
    """The newest failure, the server's error and its warnings are escaped text."""
    failing = {"type": "ValueError", "message": "<b>no", "ago": 1.0, "times": 2, "next": "."}
    html = render_static(make(echo), failing=failing, error="a fault", warnings=["slow"])
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


def test_charts_are_images_within_their_frame(make: Make) -> None:
    """Each has a caption, and draws nothing outside."""
    server = make(Faulty(echo, fail_on="bad"), policy=Greedy(4))
    server.predict(["a"] * 9)
    html = render_static(server, changes=[{"ago": 9.0, "policy": "Greedy(8)", "reason": "set"}])
    found = charts(html)

    assert len(found) == 4
    assert "batches by size in the last minute; largest size 4" in html
    bars = found[2].findall("{*}rect")
    assert len(bars) == 2
    assert len(found[3].findall("{*}rect")) == 18
    for image in found:
        for rect in image.iter("{http://www.w3.org/2000/svg}rect"):
            assert -17 <= float(rect.attrib["x"]) <= WIDTH
            assert 0 <= float(rect.attrib["y"]) <= HEIGHT


def test_a_dashboard_of_an_idle_server(make: Make) -> None:
    """Without requests it has four empty charts."""
    assert len(charts(render_static(make(echo)))) == 4


CELLS = (
    "from notebook_serve import serve\nserver = serve(lambda texts: texts, port=0, name='kept')",
    "server.dashboard()",
    "server.predict(['x'] * 20)\nNone",
    "server.stop()",
)


def test_a_notebook_run_without_a_browser_has_the_last_version(tmp_path: Path) -> None:
    """It is updated at the end of a cell with requests, even after the cell that displayed it."""
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
