"""The command line, in real processes wherever a process is what matters."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from notebook_serve.__main__ import _parser, _serve_options, main, replace_names

from ..helpers import small_models
from ..helpers.blocking_model import eventually

COMMAND = (sys.executable, "-W", "error", "-m", "notebook_serve")


class Command:
    """A command that runs, and the lines that it has printed."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str] | None) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self.printed: list[str] = []

    def line(self, start: str) -> str:
        """Read until a line that begins so, and return it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.printed.append(line.rstrip("\n"))
            if line.startswith(start):
                return self.printed[-1]
        assert self.process.stderr is not None
        raise AssertionError(f"no {start!r} in {self.printed}: {self.process.stderr.read()}")

    def url(self) -> str:
        """The address that it says first."""
        return self.line("loading").split()[-1]

    def end(self, *how: signal.Signals) -> tuple[int, str, str]:
        """Send the signals; the exit status, and what was still said on both streams."""
        for each in how:
            self.process.send_signal(each)
        printed, said = self.process.communicate(timeout=100)
        return self.process.returncode, printed, said


Start = Callable[..., Command]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts ``notebook-serve`` with arguments; what still runs at the end is killed."""
    made: list[Command] = []

    def start(*arguments: str, environment: Mapping[str, str] | None = None) -> Command:
        made.append(Command(arguments, environment))
        return made[-1]

    yield start
    for command in made:
        command.process.kill()
        command.process.communicate()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small model for text classification."""
    path = tmp_path_factory.mktemp("models") / "small"
    small_models.pipeline("text-classification").save_pretrained(path)
    return path


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the error of wrong arguments, which end with exit status 2 as argparse has it."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    usage, _, said = capsys.readouterr().err.partition("error: ")
    assert usage.startswith("usage: notebook-serve")
    return said


# -- arguments --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["run"], "TASK"),
        (["run", "fill-msk"], "did you mean fill-mask"),
        (["run", "qqqq"], "tasks are "),
        (["run", "demo", "--policy", "Lazy(3)"], "--policy: 'Lazy(3)'"),
        (["run", "demo", "--policy", "Greedy(0)"], "max_batch_size"),
        (["run", "demo", "--dtype", "float8"], "--dtype"),
        (["run", "demo", "--dtype", "float16"], "--dtype cannot be set for demo"),
        (["run", "demo", "--model", "x"], "--model is not for demo"),
        (["run", "demo", "--devices", ","], "such as cuda:0,cuda:1"),
        (["run", "fill-mask", "--model", "./nothing"], "--model is no folder that exists"),
        (["run", "fill-mask", "--model", "/no/such/folder"], "'/no/such/folder'"),
        (["run", "fill-mask", "--model", str(Path(__file__).parent)], "config.json"),
        (["demo", "--seconds", "soon"], "--seconds"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The argument at fault is named, before anything listens."""
    assert message in refusal(capsys, *arguments)


def test_no_model_is_downloaded_by_surprise(capsys: pytest.CaptureFixture[str]) -> None:
    """Without --model the one that transformers would take is named, with what to write."""
    said = refusal(capsys, "run", "fill-mask")
    assert "fill-mask needs a --model" in said
    assert "--model distilbert/distilroberta-base" in said
    assert "download" in said


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--host", "0.0.0.0"),
        ("--timeout", "-1"),
        ("--timeout", "nan"),
        ("--max-queue-size", "0"),
        ("--workers", "0"),
        ("--workers", "65"),
        ("--port", "99999"),
        ("--token", ""),
    ],
)
def test_an_option_that_the_server_refuses_is_named_by_its_flag(
    flag: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error is Python's own, with what one writes on a command line in it."""
    said = refusal(capsys, "run", "demo", flag, value)
    wanted = "give --token TOKEN" if flag == "--host" else flag
    assert wanted in said
    assert not re.search(r"\b(token|timeout|max_queue_size|workers|port)=", said)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("`timeout` must be > 0, got -1", "--timeout must be > 0, got -1"),
        ("give token='...', and send it", "give --token TOKEN, and send it"),
        ("overtime goes with worker='process'", "overtime goes with --worker process"),
        ("max_queue_size is a number", "--max-queue-size is a number"),
        ("with workers=2 the max_queue_size", "with --workers 2 the --max-queue-size"),
        ("the host of a port, by name", "the host of a port, by name"),
        ("write model='a/b'; or none", "write --model a/b; or none"),
        ("unknown_port=3 and remodel='x'", "unknown_port=3 and remodel='x'"),
    ],
)
def test_flags_take_the_place_of_names(message: str, expected: str) -> None:
    """Only where an option is meant; words of a sentence stay."""
    parser = _parser().parse_args(["run", "demo"]).parser
    assert replace_names(message, parser) == expected


def test_what_is_not_given_is_left_to_serve() -> None:
    """Each flag is the option of the same name, and the defaults are those of `serve`."""
    assert _serve_options(_parser().parse_args(["run", "demo"])) == {"worker": "thread"}
    flags = ["--workers", "2", "--timeout", "3", "--max-queue-size", "4", "--name", "five"]
    more = ["--devices", "cpu, cpu", "--host", "::1", "--port", "0", "--token", "six"]
    made = _serve_options(
        _parser().parse_args(["run", "demo", *flags, *more, "--worker", "process"])
    )
    assert made == {
        "workers": 2,
        "timeout": 3.0,
        "max_queue_size": 4,
        "name": "five",
        "worker": "process",
        "devices": ["cpu", "cpu"],
        "host": "::1",
        "port": 0,
        "token": "six",
    }


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["demo", "--help"]])
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Help has examples, each of which can be parsed."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    if "demo" not in arguments:
        examples = re.findall(r"^  notebook-serve (.+)$", printed, re.MULTILINE)
        assert len(examples) >= 4
        for example in examples:
            words = re.findall(r'"[^"]*"|\S+', re.split(r"  +", example)[0])
            _parser().parse_args([word.strip('"') for word in words])


def test_a_taken_port_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A failure that is not of the arguments is one line, with exit status 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["run", "demo", "--port", port]) == 1
    said = capsys.readouterr().err
    assert f"port {port} on 127.0.0.1 is in use" in said
    assert said.count("\n") == 1


# -- run ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "worker"), [(signal.SIGINT, "thread"), (signal.SIGTERM, "process")]
)
def test_run_serves_until_interrupted(start: Start, how: signal.Signals, worker: str) -> None:
    """It says where it answers, answers there, and on Ctrl+C or a terminate what it did."""
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
    status, printed, said = command.end(how)
    assert (status, said) == (0, "")
    port = url.rpartition(":")[2]
    assert printed.endswith(
        f"stopped: 0 requests drained, 0 rejected; port {port} is free; 1 answered since the "
        "start\n"
    )


def test_an_interrupt_drains_what_was_accepted(start: Start) -> None:
    """Requests that wait at Ctrl+C have their answers, and it says how many there were."""
    command = start("run", "demo", "--port", "0", "--policy", "NoBatching")
    url = command.url()
    command.line("ready")
    httpx.post(url + "/control", json={"do": "pause"}).raise_for_status()
    with ThreadPoolExecutor(5) as pool:
        asked = [pool.submit(httpx.post, url, content="a [MASK]", timeout=60) for _ in range(5)]
        eventually(lambda: httpx.get(url + "/stats").json()["queue_depth"] == 5, "all wait")
        status, printed, said = command.end(signal.SIGINT)
        assert [future.result().status_code for future in asked] == [200] * 5
    assert (status, said) == (0, "")
    assert "stopped: 5 requests drained, 0 rejected" in printed


def test_a_second_interrupt_ends_at_once(start: Start) -> None:
    """A stop that waits for a request that takes long need not be waited for."""
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
        eventually(lambda: httpx.get(url + "/stats").json()["queue_depth"] > 0, "it has much to do")
        command.process.send_signal(signal.SIGINT)
        command.line("stopping")
        status, printed, said = command.end(signal.SIGINT)
    thread.join()
    assert (status, printed) == (130, "")
    assert said == "interrupted again: exiting at once\n"


def _post_and_forget(url: str, body: bytes) -> None:
    with contextlib.suppress(httpx.HTTPError):
        httpx.post(url, content=body, headers={"Content-Type": "application/json"}, timeout=100)


def test_run_serves_a_folder_as_it_is_told(start: Start, folder: Path) -> None:
    """Weights in another dtype, a name, a token, a limit, an access log: all take effect."""
    command = start(
        *("run", "text-classification", "--model", str(folder), "--dtype", "bfloat16"),
        *("--port", "0", "--name", "mine", "--token", "secret", "--timeout", "7"),
        *("--max-queue-size", "3", "--devices", "cpu", "--access-log"),
    )
    url = command.url()
    ready = command.line("ready")
    assert "secret" not in ready
    assert '-H "Authorization: Bearer TOKEN"' in ready
    with httpx.Client(headers={"Authorization": "Bearer secret"}, timeout=60) as client:
        ((answer,),) = client.post(url + "/models/mine", content="the queue").json()
        assert set(answer) == {"label", "score"}
        many = client.post(url, json={"inputs": ["a"] * 4})
        assert (many.status_code, "queue of 3" in many.text) == (422, True)
        workers = client.get(url + "/stats").json()["workers"]
        assert [worker["device"] for worker in workers] == ["cpu"]
    assert httpx.post(url, content="x").status_code == 401
    status, _, said = command.end(signal.SIGINT)
    assert status == 0
    assert "POST /models/mine 200" in said
    assert "POST / 401" in said


def test_dtype_is_that_of_the_weights(folder: Path) -> None:
    """The loaded pipeline computes in the dtype that was asked for."""
    from notebook_serve.__main__ import _make_loader

    arguments = ["run", "text-classification", "--model", str(folder), "--dtype", "bfloat16"]
    loaded = _make_loader(_parser().parse_args(arguments))()
    assert {str(weight.dtype) for weight in loaded.model.parameters()} == {"torch.bfloat16"}


@pytest.mark.parametrize("token", ["", "s/e&cret"])
def test_open_opens_the_page(start: Start, tmp_path: Path, token: str) -> None:
    """The browser gets the address once the model is ready, with the token if there is one."""
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


def test_run_ends_with_the_reason_when_the_model_cannot_be_loaded(start: Start) -> None:
    """A model that is not there is said on the error stream, with exit status 1."""
    command = start("run", "fill-mask", "--model", "no/such-model", "--port", "0")
    status, _, said = command.end()
    assert status == 1
    assert said.startswith("notebook-serve: the model cannot be loaded: OSError: ")


def test_threads_are_those_of_serve() -> None:
    """--threads N is serve(threads=N)."""
    options = _parser().parse_args(["run", "demo", "--threads", "2"])
    assert _serve_options(options)["threads"] == 2
