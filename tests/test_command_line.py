from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any

import httpx
import pytest

from notebook_serve.__main__ import main


def test_the_demo_shows_answers_and_a_comparison(capsys: pytest.CaptureFixture[str]) -> None:
    """The demo asks the model that ships, compares three policies, and exits 0."""
    assert main(["demo", "--requests", "40", "--clients", "8"]) == 0
    printed = capsys.readouterr().out
    assert 'curl -X POST -d "raise a [MASK] if the key is missing"' in printed
    rows = [
        line.split() for line in printed.splitlines() if "max_batch_size" in line or "NoB" in line
    ]
    table = [row for row in rows if "40" in row]
    assert [row[0].partition("(")[0] for row in table] == ["NoBatching", "Greedy", "LengthAware"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "demo", "--policy", "Lazy(3)"], "is no policy"),
        (["run", "demo", "--policy", "Greedy(0)"], "max_batch_size is a whole number"),
        ([], "COMMAND"),
        (["run"], "task"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be understood is named, with exit status 2."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_an_option_the_server_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    """A refusal of the server's own is one line, with exit status 1."""
    assert main(["run", "demo", "--host", "0.0.0.0"]) == 1
    assert "give token=" in capsys.readouterr().err


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-m", "notebook_serve", "run", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("how", "worker"), [(signal.SIGINT, "thread"), (signal.SIGTERM, "process")]
)
def test_run_serves_until_interrupted(how: signal.Signals, worker: str) -> None:
    """`run` says where it answers, answers there, and ends quietly on Ctrl+C or a terminate."""
    options = ("--port", "0", "--policy", "Greedy(4)", "--worker", worker)
    with start("demo", *options) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[-1]
            assert "ready" in process.stdout.readline()
            answer: Any = httpx.post(url, content="return the [MASK]", timeout=60).json()
            assert len(answer) == 5
            stats = httpx.get(url + "/stats").json()
            assert stats["policy"] == "Greedy(max_batch_size=4)"
            assert [each["kind"] for each in stats["workers"]] == [worker]
        finally:
            process.send_signal(how)
            _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "")


def test_run_ends_with_the_reason_when_the_model_cannot_be_loaded() -> None:
    """A model that is not there is one line on the error stream, and exit status 1."""
    with start("fill-mask", "--model", "no/such-model", "--port", "0") as process:
        _, said = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "notebook-serve: the loader raised" in said
