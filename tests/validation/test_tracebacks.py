"""A wrong call shows the caller's own line and one message, in a cell and in a script."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import start_new_kernel

from notebook_serve import LoaderFailed, ModelFailed, OptionError, Server, WrongCall
from notebook_serve.errors import PACKAGE, callers_frames
from notebook_serve.validation.tracebacks import entry_point

Make = Callable[..., Server]

pytestmark = [
    # Warnings of the client library, which is not tested here.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:zmq"),
    pytest.mark.timeout(300),
]

PREPARED = """
from notebook_serve import *
from notebook_serve import traffic
from notebook_serve.traffic import Poisson
def echo(inputs): return inputs
def broken(inputs): return [1 / int(x) for x in inputs]
def loader(): raise FileNotFoundError("weights.bin")
server = serve(echo, port=0, name="traceback")
failing = serve(broken, port=0, name="broken")
endpoint = server.add("more", echo)
cost = CostModel(fixed=0.01)
server.predict([1, 2, 3])
"""

#: wrong cells, and a part of the message of each
CELLS = {
    "serve(3)": "neither a transformers pipeline nor a callable",
    "serve(echo, batch_size=8)": "write policy=Greedy(max_batch_size=8)",
    "serve(echo, Greedy(8))": "pass options by name",
    "serve(echo, host=8000)": "write port=8000",
    "serve('text-classification')": "which model for text-classification",
    "serve(loader=loader, port=0).wait_ready()": "weights.bin",
    "Server(echo, port=-1)": "port must be a whole number",
    "server.predict(1, timeout=0)": "timeout must be a positive number",
    "server.predict(1, power=2)": "does not take the parameter 'power'",
    "await server.apredict(1, power=2)": "does not take the parameter 'power'",
    "endpoint.predict(1, power=2)": "does not take the parameter 'power'",
    "server['other']": "other",
    "server.add('a/b', echo)": "a model's name",
    "server.remove('nothing')": "nothing",
    "server.policy = 3": "a policy must be an object",
    "server.policy = 'Gredy'": "did you mean `Greedy`",
    "server.polcy = Greedy()": "did you mean `policy`",
    "endpoint.max_batch_size = 4": "endpoint.policy = Greedy(max_batch_size=4)",
    "server.what_if()": "missing 1 required positional argument",
    "server.what_if(Greedy(), cost=cost, workers=2)": "replicas=2",
    "Greedy(max_wait=1)": "Window",
    "Window(max_batch_size=0)": "max_batch_size must be a whole number",
    "Greedy(8).max_batch_size = 9": "server.policy = Greedy(max_batch_size=9)",
    "parse_policy('Greedy(')": "is not a policy",
    "simulate(Greedy(), Poisson(10), cost, workers=3)": "replicas=3",
    "simulate(print, Poisson(10), cost)": "a policy must be an object",
    "compare(Greedy(), cost=cost)": "policies must be a list",
    "capacity(Greedy(), cost, -1)": "objective must be a positive number",
    "plan(Greedy(), cost, 10, -1)": "objective must be a positive number",
    "load_test(server, ['a'], users=3)": "write concurrency=3",
    "load_test(server, [], concurrency=1)": "inputs",
    "each(3)": "each takes a function",
    "CostModel.from_json('3')": "a saved cost model must be a JSON object",
    "CostModel.from_json('x')": "a saved cost model must be valid JSON",
    "Report.from_json('{}')": "a saved report must be the JSON of report.to_json",
    "Greedy('8')": "max_batch_size must be a whole number",
    "CoDel(5)": "a policy must be an object",
    "Window(max_wait=-1)": "max_wait must be a number",
    "CostModel(fixed=-1)": "fixed must be a number",
    "Poisson(-1)": "rate must be a positive number",
    "traffic.ClosedLoop(0)": "clients must be a whole number",
    "traffic.LogNormal(0, -1)": "median must be a number",
    "Decision(take=5)": "`take` must be a tuple of jobs",
    "server.policy = Policy": "is the protocol of all policies",
    "server.httpx(foo=3)": "`Client` has no option `foo`",
    "server.trace(5)": "provider must be a TracerProvider",
}


class Kernel:
    """A kernel that runs cells which raise."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def run(self, cell: str) -> str:
        """Return the traceback that a cell shows, without colours; empty if there is none."""
        reply = self._client.execute_interactive(cell, output_hook=lambda message: None)["content"]
        return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(reply.get("traceback", [])))


@contextmanager
def kernel(errors: Path) -> Iterator[Kernel]:
    """Yield a kernel, and end it afterwards."""
    with errors.open("w") as file:
        manager, client = start_new_kernel(startup_timeout=120, stderr=file)
        try:
            yield Kernel(client)
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
            manager.cleanup_resources()


def frames(shown: str) -> int:
    """Return the number of frames in a traceback: each has an arrow at its line."""
    return len(re.findall(r"^-+> ", shown, re.MULTILINE))


def test_a_wrong_cell_shows_its_own_line_and_the_sentence(tmp_path: Path) -> None:
    """No frame of this package is shown or mentioned as hidden; the exception keeps them."""
    with kernel(tmp_path / "errors") as notebook:
        assert notebook.run(PREPARED) == ""
        for cell, said in CELLS.items():
            shown = notebook.run(cell)
            assert said in shown.splitlines()[-1] + shown, f"{cell}\n{shown}"
            assert PACKAGE not in shown, f"{cell}\n{shown}"
            assert "hidden" not in shown, f"{cell}\n{shown}"
            ours = 2 if "loader" in cell else 1
            assert frames(shown) == ours, f"{cell}\n{shown}"


def test_what_a_model_raised_is_shown_with_the_lines_of_the_model(tmp_path: Path) -> None:
    """The cause is the model's own exception, with the lines of the model only."""
    with kernel(tmp_path / "errors") as notebook:
        assert notebook.run(PREPARED) == ""
        for cell in ("failing.predict('0')", "await failing.apredict('0')"):
            shown = notebook.run(cell)
            assert "return [1 / int(x) for x in inputs]" in shown
            assert "ModelFailed: ZeroDivisionError: division by zero" in shown
            assert PACKAGE not in shown


# -- in a script ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    ["serve(echo, batch_size=8)", "serve(3)", "server.predict(1, power=2)", "server.policy = 3"],
)
def test_a_script_shows_one_frame_of_this_package(line: str, tmp_path: Path) -> None:
    """Python shows the frame that raises, the caller's above it, and no cause."""
    script = tmp_path / "script.py"
    script.write_text(f"{PREPARED}\n{line}\n")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=100)

    assert done.returncode == 1
    assert done.stderr.count("\n  File ") == 2, done.stderr
    assert done.stderr.count("Traceback") == 1
    assert line in done.stderr


# -- what is kept -----------------------------------------------------------------------------


def test_the_log_keeps_every_frame(caplog: pytest.LogCaptureFixture, make: Make) -> None:
    """At level DEBUG the log has the frames that the traceback leaves out."""
    server = make(lambda inputs: inputs)
    with caplog.at_level("DEBUG", "notebook_serve"), pytest.raises(OptionError) as caught:
        server.policy = 3  # type: ignore[assignment]

    (record,) = [item for item in caplog.records if "a policy must be an object" in item.message][
        :1
    ]
    assert "policy_registry.py" in str(record.exc_text)
    assert callers_frames(caught.value.__traceback__) is not None


def test_a_cause_of_the_model_is_kept_and_one_of_ours_is_not(make: Make) -> None:
    """The exception of a model or loader is useful to its author; that inside a check is not."""

    def broken(inputs: list[Any]) -> list[Any]:
        raise KeyError("mine")

    with pytest.raises(ModelFailed) as failed:
        make(broken).predict(1)
    cause = failed.value.__cause__
    assert isinstance(cause, KeyError)
    assert cause.__traceback__ is not None
    assert cause.__traceback__.tb_frame.f_code.co_name == "broken"

    def load() -> Any:
        raise KeyError("mine")

    with pytest.raises(LoaderFailed) as unloaded:
        make(loader=load).wait_ready(30)
    assert isinstance(unloaded.value.__cause__, KeyError)

    with pytest.raises(OptionError) as refused:
        make(broken).policy = "Greedy("
    assert refused.value.__cause__ is None


def divided(inputs: list[Any]) -> list[Any]:
    """Divide by each input."""
    return [1 / int(item) for item in inputs]


def test_the_lines_of_a_model_in_a_process_are_kept(make: Make) -> None:
    """They come as text, with the lines of the model only."""
    with pytest.raises(ModelFailed) as failed:
        make(divided, worker="process").predict("0")
    cause = failed.value.__cause__
    assert isinstance(cause, ZeroDivisionError)
    assert "in divided" in str(cause.__cause__)
    assert PACKAGE not in str(cause.__cause__)


def test_an_exception_that_was_being_handled_stays_the_context(make: Make) -> None:
    """A wrong call inside an `except` block is chained to the handled exception."""

    def handle() -> None:
        try:
            raise KeyError("theirs")
        except KeyError:
            make(3)

    with pytest.raises(OptionError) as caught:
        handle()
    assert isinstance(caught.value.__context__, KeyError)
    assert not caught.value.__suppress_context__


def test_an_exception_of_another_kind_goes_through_as_it_is() -> None:
    """A `TypeError` or `ValueError` from inside a function is not one of its call."""

    @entry_point
    def raising(error: Exception) -> None:
        raise error

    for error in (TypeError("inside"), ValueError("inside"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught:
            raising(error)  # type: ignore[arg-type]
        assert caught.value is error
    with pytest.raises(WrongCall, match="missing 1 required positional argument"):
        raising()  # type: ignore[call-arg]
