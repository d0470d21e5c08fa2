"""A server in the foreground: its messages, its interrupts, and the outcome of its requests."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from notebook_serve import Server
from notebook_serve.cli.run import Interrupts, describe_drain, example_command, open_page

from ..helpers import small_models, task_cases
from ..helpers.blocking_model import eventually
from ..helpers.command import Start

Make = Callable[..., Server]


# -- in this process --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ({}, "0 requests drained, 0 rejected"),
        ({"ok": 1}, "1 request drained, 0 rejected"),
        ({"ok": 7, "rejected": 2}, "7 requests drained, 2 rejected"),
        ({"expired": 1, "failed": 3}, "0 requests drained, 3 failed, 1 timed out"),
        ({"cancelled": 2, "invalid": 1}, "0 requests drained, 2 cancelled, 1 invalid"),
    ],
)
def test_a_drain_is_described_by_its_outcomes(outcomes: dict[str, int], expected: str) -> None:
    """Outcomes without a request are left out, except rejections."""
    names = ("ok", "rejected", "failed", "expired", "cancelled", "invalid")
    assert describe_drain({name: outcomes.get(name, 0) for name in names}) == expected


def test_the_example_suits_the_model(make: Make) -> None:
    """A text goes as it is, a list of labels as JSON, and a picture as a file."""
    text = make(small_models.pipeline("text-classification"))
    labels = make(small_models.pipeline("zero-shot-classification"))
    picture = make(task_cases.image_classification())
    login = '-H "Authorization: Bearer TOKEN"'

    command = example_command(text, None)
    assert command.startswith("curl -X POST -d '")
    assert command.endswith(f"' {text.url}")
    assert f"POST {login} -d" in example_command(text, "secret")
    assert '{"inputs": "' in example_command(labels, None)
    assert "--data-binary @FILE" in example_command(picture, None)


def test_a_request_to_stop_ends_the_wait() -> None:
    """From any thread; without one the wait ends after its seconds."""
    with Interrupts() as interrupts:
        assert not interrupts.wait(0.001)
        thread = threading.Thread(target=interrupts.request_stop)
        thread.start()
        assert interrupts.wait(60)
        thread.join()


def test_an_interrupt_is_a_request_to_stop() -> None:
    """While entered; then the handlers of before are back."""
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupts.wait(60)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_without_a_browser_the_address_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The token is not."""
    monkeypatch.setattr("webbrowser.open", lambda url: False)
    lines: list[str] = []
    open_page("http://localhost:1", None, lines.append)
    open_page("http://localhost:1", "secret", lines.append)
    assert lines == [
        "no browser can be opened here; open http://localhost:1",
        "no browser can be opened here; open http://localhost:1/?token=...",
    ]


# -- in a process of its own ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "worker"), [(signal.SIGINT, "thread"), (signal.SIGTERM, "process")]
)
def test_run_serves_until_interrupted(start: Start, how: signal.Signals, worker: str) -> None:
    """It prints its address, answers there, and on Ctrl+C or SIGTERM prints a summary."""
    options = ("--port", "0", "--policy", "Greedy(4)", "--worker", worker, "--workers", "2")
    command = start("run", "demo", *options)
    url = command.url()
    asked = "'Paris is the [MASK] of France.'"
    assert command.line("ready") == f"ready: curl -X POST -d {asked} {url}   (Ctrl+C stops)"
    assert command.line("page") == f"page: {url}"
    answer: Any = httpx.post(url, content="return the [MASK]", timeout=60).json()
    assert len(answer) == 5
    stats = httpx.get(url + "/stats").json()
    assert stats["policy"] == "Greedy(max_batch_size=4)"
    assert [each["kind"] for each in stats["workers"]] == [worker] * 2
    status, printed, errors = command.end(how)
    assert (status, errors) == (0, "")
    port = url.rpartition(":")[2]
    assert printed.endswith(
        f"stopped: 0 requests drained, 0 rejected; port {port} is free; 1 answered since the "
        "start\n"
    )


def test_an_interrupt_drains_what_was_accepted(start: Start) -> None:
    """Requests that wait at Ctrl+C are answered, and their number is printed."""
    command = start("run", "demo", "--port", "0", "--policy", "NoBatching")
    url = command.url()
    command.line("ready")
    httpx.post(url + "/control", json={"do": "pause"}).raise_for_status()
    with ThreadPoolExecutor(5) as pool:
        asked = [pool.submit(httpx.post, url, content="a [MASK]", timeout=60) for _ in range(5)]
        eventually(lambda: httpx.get(url + "/stats").json()["queue_depth"] == 5, "all are queued")
        status, printed, errors = command.end(signal.SIGINT)
        assert [future.result().status_code for future in asked] == [200] * 5
    assert (status, errors) == (0, "")
    assert "stopped: 5 requests drained, 0 rejected" in printed


def test_a_second_interrupt_ends_at_once(start: Start) -> None:
    """A stop waits for long requests; a second interrupt does not."""
    command = start("run", "demo", "--port", "0", "--policy", "NoBatching", "--timeout", "600")
    url = command.url()
    command.line("ready")
    address = ("127.0.0.1", int(url.rpartition(":")[2]))
    with contextlib.suppress(ConnectionError), socket.create_connection(address) as held:
        # Half a body: stop() waits for the rest of it.
        held.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhalf")
        texts = ["return the [MASK] " * 60] * 900
        body = json.dumps({"inputs": texts}).encode()
        thread = threading.Thread(target=_post_and_forget, args=(url, body))
        thread.start()
        eventually(lambda: httpx.get(url + "/stats").json()["queue_depth"] > 0, "the queue is long")
        command.process.send_signal(signal.SIGINT)
        command.line("stopping")
        status, printed, errors = command.end(signal.SIGINT)
    thread.join()
    assert (status, printed) == (130, "")
    assert errors == "interrupted again: exiting at once\n"


def _post_and_forget(url: str, body: bytes) -> None:
    with contextlib.suppress(httpx.HTTPError):
        httpx.post(url, content=body, headers={"Content-Type": "application/json"}, timeout=100)


@pytest.mark.parametrize("token", ["", "s/e&cret"])
def test_open_opens_the_page(start: Start, tmp_path: Path, token: str) -> None:
    """When the model is ready, the browser gets the address, with the token if there is one."""
    opened = tmp_path / "opened"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}.part\nmv {opened}.part {opened}\n')
    browser.chmod(0o755)
    options = ("--token", token) if token else ()
    command = start(
        *("run", "demo", "--port", "0", "--open", *options),
        environment={"BROWSER": f"{browser} %s"},
    )
    url = command.url()
    command.line("ready")
    eventually(opened.exists, "the browser was called")
    assert opened.read_text().strip() == url + ("/?token=s%2Fe%26cret" if token else "")
    if token:
        page = httpx.get(opened.read_text().strip(), follow_redirects=True)
        assert page.status_code == 200
    assert command.end(signal.SIGINT)[0] == 0


def test_run_exits_with_the_error_of_a_model_that_cannot_be_loaded(start: Start) -> None:
    """The error goes to the error stream, and the exit status is 1."""
    command = start("run", "fill-mask", "--model", "no/such-model", "--port", "0")
    status, _, errors = command.end()
    assert status == 1
    assert errors.startswith("notebook-serve: the model cannot be loaded: OSError: ")
