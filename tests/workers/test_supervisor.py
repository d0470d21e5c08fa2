"""A worker process that is supervised: it is loaded, replaced when it dies, and stopped."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from notebook_serve import (
    CircuitOpen,
    DeadlineExceeded,
    Greedy,
    LoaderFailed,
    ModelFailed,
    Server,
    StartError,
    servers,
)
from notebook_serve.testing import Faulty
from notebook_serve.workers.supervisor import (
    FIRST_DELAY,
    LONGEST_DELAY,
    ModelSource,
    restart_delay,
)

from ..helpers.blocking_model import eventually
from ..helpers.process_models import block, children, double

Make = Callable[..., Server]


def test_delays_grow() -> None:
    """Start again at once after a useful process; then wait twice as long each time."""
    expected = [0, *(FIRST_DELAY * factor for factor in (1, 2, 4, 8))]
    assert [restart_delay(useless) for useless in range(5)] == expected
    assert restart_delay(1000) == LONGEST_DELAY


def test_a_model_is_packed_once_for_all_processes() -> None:
    """Until it is released; the next start packs it again."""
    shown: list[int] = []
    source = ModelSource(double, False, lambda done, size: shown.append(done))
    first = source.pack()
    assert source.pack() is first
    steps = len(shown)
    source.release()
    source.release()

    assert source.pack() is not first
    assert len(shown) == 2 * steps
    source.release()


def test_a_loader_that_cannot_be_sent_has_no_hint_to_use_a_loader() -> None:
    """The hint is for models only."""
    source = ModelSource(threading.Lock(), True, lambda done, size: None)
    with pytest.raises(StartError, match=r"^the loader cannot be sent to a process \(.*\)$"):
        source.pack()


# -- loading --------------------------------------------------------------------------------


def test_a_model_that_cannot_be_sent_raises_in_the_cell(make: Make) -> None:
    """No server is left."""
    lock = threading.Lock()
    with pytest.raises(StartError, match=r"the model cannot be sent .*; give loader=\.\.\."):
        make(lambda inputs: [lock for _ in inputs], worker="process")
    assert servers() == []


def fail_to_load() -> Any:
    raise ValueError("weights are missing")


def test_wait_ready_raises_the_error_of_a_loader_in_a_process(make: Make) -> None:
    server = make(loader=fail_to_load, worker="process")
    with pytest.raises(LoaderFailed, match="ValueError: weights are missing") as caught:
        server.wait_ready(60)
    assert type(caught.value.__cause__) is ValueError
    assert server.state == "failed"


def test_a_process_that_dies_while_it_loads_is_reported(make: Make) -> None:
    server = make(loader=partial(os._exit, 7), worker="process")
    with pytest.raises(LoaderFailed, match="died while it loaded the model: exit status 7"):
        server.wait_ready(60)


# -- death ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "end"), [("exit", "exit status 3"), ("segfault", "SIGSEGV"), ("kill", "SIGKILL")]
)
def test_only_the_request_that_kills_the_process_fails(make: Make, word: str, end: str) -> None:
    """Bisection finds it; all other requests are answered, also later ones."""
    server = make(double, worker="process", policy=Greedy(4))
    inputs: list[Any] = [1, 2, word, 3, 4, 5]
    server.pause()
    futures, _ = server._submit(inputs, {}, None)
    server.resume()

    for value, future in zip(inputs, futures, strict=True):
        if value == word:
            with pytest.raises(ModelFailed, match=f"ProcessDied: .*{end}"):
                future.result(60)
        else:
            assert future.result(60).value == value * 2
    assert server.predict("after") == "afterafter"
    stats = server.stats()
    assert stats.outcomes["failed"] == 1
    assert sum(stats.restarts.values()) == 3
    assert end in str(stats)
    assert stats.breaker == "closed"


def block_once(folder: Path, inputs: list[str]) -> list[int]:
    """Answer with the process id, but block for ever at the first run of an input."""
    (folder / "pid").write_text(str(os.getpid()))
    try:
        (folder / inputs[0]).touch(exist_ok=False)
    except FileExistsError:
        return [os.getpid()] * len(inputs)
    (folder / "runs").touch()
    threading.Event().wait()
    return []


def test_a_process_that_is_killed_from_outside_costs_nobody_his_answer(
    make: Make, tmp_path: Path
) -> None:
    """Run a single input once more; replace an idle process before the next request."""
    server = make(partial(block_once, tmp_path), worker="process")
    (future,), _ = server._submit("x", {}, None)
    eventually((tmp_path / "runs").exists, "it runs")
    before = int((tmp_path / "pid").read_text())
    os.kill(before, signal.SIGKILL)
    after = future.result(60).value
    assert after != before
    assert server.batches()[0].retries == 1

    os.kill(after, signal.SIGKILL)
    eventually(lambda: server.stats().workers[0].pid not in (after, None), "it is replaced")
    assert server.predict("x") not in (before, after)
    assert sum(server.stats().restarts.values()) == 2
    assert server.stats().outcomes["failed"] == 0


def load_once(path: Path) -> Any:
    """Load if the file does not exist, and create it."""
    path.touch(exist_ok=False)
    return double


def test_a_process_that_cannot_be_started_again_opens_the_breaker(
    make: Make, tmp_path: Path
) -> None:
    """Requests fail instead of waiting for ever, until the process can be started."""
    path = tmp_path / "loaded"
    server = make(loader=partial(load_once, path), worker="process")
    server.wait_ready(60)
    server._engine.admission.breaker.threshold = 2
    with pytest.raises(ModelFailed, match="CannotStart: .*cannot be started again"):
        server.predict("kill")
    with pytest.raises(ModelFailed, match="cannot be started again"):
        server.predict(1)
    with pytest.raises(CircuitOpen):
        server.predict(1)
    path.unlink()

    def answers() -> bool:
        with suppress(ModelFailed, CircuitOpen):
            return bool(server.predict(2) == 4)
        return False

    eventually(answers, "it is started again")
    assert server.stats().breaker == "closed"
    assert any("could not load: FileExistsError" in end for end in server.stats().restarts)


def test_a_forward_far_beyond_its_time_is_ended(make: Make) -> None:
    """The request times out on time, the process is replaced, and no batch is repeated."""
    server = make(Faulty(double, slow_on="slow", seconds=600), worker="process", overtime=2.0)
    with pytest.raises(DeadlineExceeded, match="while it ran"):
        server.predict("slow", timeout=0.1)
    assert server.predict("next") == "nextnext"
    assert server.stats().restarts == {"a forward took 2 times as long as it had": 1}
    assert len(server.batches()) == 2


def test_a_stop_does_not_wait_for_a_forward(make: Make) -> None:
    """End the process in the middle of it; the server can start again."""
    server = make(block, worker="process")
    (future,), _ = server._submit("x", {}, None)
    eventually(lambda: server.stats().queue_depth == 0, "it runs")
    server.stop(drain=False)
    assert future.done()
    assert children() == []
    server.start()
    assert server.state == "ready"


def test_a_stop_while_it_loads(make: Make) -> None:
    server = make(loader=partial(block, []), worker="process")
    eventually(lambda: server.stats().workers[0].pid is not None, "it loads")
    server.stop()
    assert server.state == "stopped"
