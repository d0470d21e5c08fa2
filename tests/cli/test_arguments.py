"""The command line: its arguments, its help, and its options in a running server."""

from __future__ import annotations

import re
import signal
import socket
from pathlib import Path

import httpx
import pytest

from notebook_serve.cli.arguments import _parser, _serve_options, main, replace_names

from ..helpers import small_models
from ..helpers.command import Start


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small model for text classification."""
    path = tmp_path_factory.mktemp("models") / "small"
    small_models.pipeline("text-classification").save_pretrained(path)
    return path


def usage_error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the error of wrong arguments; the exit status must be 2, as with argparse."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    usage, _, error = capsys.readouterr().err.partition("error: ")
    assert usage.startswith("usage: notebook-serve")
    return error


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
        (["run", "demo", "--model", "x"], "--model must be left out for demo"),
        (["run", "demo", "--devices", ","], "such as cuda:0,cuda:1"),
        (["run", "fill-mask", "--model", "./nothing"], "--model must be a folder that exists"),
        (["run", "fill-mask", "--model", "/no/such/folder"], "'/no/such/folder'"),
        (["run", "fill-mask", "--model", str(Path(__file__).parent)], "config.json"),
        (["demo", "--seconds", "soon"], "--seconds"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names the argument, before the server listens."""
    assert message in usage_error(capsys, *arguments)


def test_no_default_model_is_downloaded(capsys: pytest.CaptureFixture[str]) -> None:
    """Without --model the error has transformers' default, as an argument to paste."""
    error = usage_error(capsys, "run", "fill-mask")
    assert "fill-mask needs a --model" in error
    assert "--model distilbert/distilroberta-base" in error
    assert "download" in error


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
def test_an_option_that_serve_rejects_is_named_by_its_flag(
    flag: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error is that of `serve`, with flags in place of options."""
    error = usage_error(capsys, "run", "demo", flag, value)
    wanted = "give --token TOKEN" if flag == "--host" else flag
    assert wanted in error
    assert not re.search(r"\b(token|timeout|max_queue_size|workers|port)=", error)


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
def test_flags_replace_names(message: str, expected: str) -> None:
    """Replace only names of options; other words of a sentence stay."""
    parser = _parser().parse_args(["run", "demo"]).parser
    assert replace_names(message, parser) == expected


def test_options_that_are_not_given_are_left_to_serve() -> None:
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
def test_the_examples_in_the_help_can_be_parsed(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The help of `demo` has no examples."""
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
    """An error that is not about arguments is one line, with exit status 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["run", "demo", "--port", port]) == 1
    error = capsys.readouterr().err
    assert f"port {port} on 127.0.0.1 is in use" in error
    assert error.count("\n") == 1


# -- run ------------------------------------------------------------------------------------


def test_run_passes_its_options_to_the_server(start: Start, folder: Path) -> None:
    """A dtype, a name, a token, a limit and an access log take effect."""
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
    status, _, log = command.end(signal.SIGINT)
    assert status == 0
    assert "POST /models/mine 200" in log
    assert "POST / 401" in log


def test_dtype_is_that_of_the_weights(folder: Path) -> None:
    """The weights of the loaded pipeline have the dtype of the option."""
    from notebook_serve.cli.arguments import _make_loader

    arguments = ["run", "text-classification", "--model", str(folder), "--dtype", "bfloat16"]
    loaded = _make_loader(_parser().parse_args(arguments))()
    assert {str(weight.dtype) for weight in loaded.model.parameters()} == {"torch.bfloat16"}


def test_threads_are_those_of_serve() -> None:
    """The option --threads N is serve(threads=N)."""
    options = _parser().parse_args(["run", "demo", "--threads", "2"])
    assert _serve_options(options)["threads"] == 2
