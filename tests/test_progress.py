"""Progress bars: where they are shown, of what, and where not."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable
from contextlib import redirect_stderr

import pytest

from notebook_serve import (
    CostModel,
    Greedy,
    LoaderFailed,
    NoBatching,
    Server,
    capacity,
    compare,
    plan,
    progress,
)
from notebook_serve.extras import MissingExtra
from notebook_serve.progress import work_bar

COST = CostModel(fixed=0.008, per_token=0.0002)
POLICIES = NoBatching(), Greedy(8)


class Terminal(io.TextIOBase):
    """An error output to redirect to, which keeps what is drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.begun = threading.Event()

    def write(self, text: str) -> int:
        """Take `text`."""
        self.text += text
        if text.strip():
            self.begun.set()
        return len(text)

    def isatty(self) -> bool:
        """So it is."""
        return True

    def lines(self) -> list[str]:
        """Each state of the one line that is drawn over and over; the last is empty again."""
        *lines, blank, end = self.text.split("\r")
        assert not blank.strip()
        assert end == ""
        return lines


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal, where all work takes too long to show nothing."""
    monkeypatch.setattr(progress, "LONG", -1.0)
    return Terminal()


@pytest.fixture
def no_tqdm(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not installed."""

    class Absent:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "tqdm":
                raise ModuleNotFoundError("No module named 'tqdm'", name="tqdm")

    for name in [name for name in sys.modules if name.partition(".")[0] == "tqdm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("sys.meta_path", [Absent(), *sys.meta_path])


# -- each kind of work ------------------------------------------------------------------------


def compares(wanted: bool | None) -> object:
    """Simulate two policies at two loads."""
    return compare(POLICIES, cost=COST, rates=[10, 20], duration=1.0, progress=wanted)


def recommends(wanted: bool | None) -> object:
    """Find the limits of two policies."""
    comparison = compare(POLICIES, cost=COST, rates=[10], duration=1.0, progress=False)
    return comparison.recommendation(progress=wanted)


def searches(wanted: bool | None) -> object:
    """Find the limit of one policy."""
    return capacity(Greedy(8), COST, 0.1, requests=200, progress=wanted)


def plans(wanted: bool | None) -> object:
    """Find how many replicas a load needs."""
    return plan(Greedy(8), COST, 300.0, 0.1, requests=200, progress=wanted)


#: each with what its bar says in the end, at least
WORK = [
    (compares, ["simulating", "3/4 runs", "Greedy(max_batch_size=8) at 20/s"]),
    (recommends, ["finding limits", "1/2 policies", "Greedy(max_batch_size=8)"]),
    (searches, ["searching for the capacity", "00:0", "Greedy(max_batch_size=8) at "]),
    (plans, ["planning", "00:0", " x Greedy(max_batch_size=8)"]),
]
each = pytest.mark.parametrize(("work", "said"), WORK)


@each
def test_long_work_shows_a_bar(
    work: Callable[..., object], said: list[str], terminal: Terminal
) -> None:
    """By itself on a terminal: how far it is, of how much, and what it does now; then it goes."""
    with redirect_stderr(terminal):
        work(None)

    last = terminal.lines()[-1]
    assert all(word in last for word in said), last


@each
def test_work_shows_a_bar_if_it_is_wanted(
    work: Callable[..., object], said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever the error output goes, and however short it is."""
    work(True)

    assert said[0] in capsys.readouterr().err


@each
def test_work_shows_none_where_no_person_sees_it(
    work: Callable[..., object],
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Not on an error output that is no terminal."""
    monkeypatch.setattr(progress, "LONG", -1.0)
    work(None)

    assert capsys.readouterr().err == ""


@each
def test_work_shows_none_if_it_is_not_wanted(
    work: Callable[..., object], said: list[str], terminal: Terminal
) -> None:
    """Not on a terminal either."""
    with redirect_stderr(terminal):
        work(False)

    assert terminal.text == ""


def test_short_work_shows_none(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal too, nothing is drawn before it has taken long."""
    monkeypatch.setattr(progress, "LONG", 1e9)
    with redirect_stderr(terminal), work_bar(None, "work", 3) as show:
        for done in range(3):
            show(done)

    assert terminal.text == ""


def test_work_without_tqdm(no_tqdm: None, terminal: Terminal) -> None:
    """A bar that is wanted says what to install before the work; others are left out."""
    with redirect_stderr(terminal):
        assert capacity(Greedy(8), COST, 0.1, requests=200) > 0
    assert terminal.text == ""
    with pytest.raises(MissingExtra, match=r"pip install 'notebook-serve\[notebook\]'"):
        capacity(Greedy(8), COST, 0.1, requests=10**9, progress=True)


def test_a_bar_goes_with_work_that_fails(terminal: Terminal) -> None:
    """What is raised passes, and the line is free."""

    def fail() -> None:
        with work_bar(None, "work", 3) as show:
            show(1)
            raise LookupError

    with redirect_stderr(terminal), pytest.raises(LookupError):
        fail()

    assert "1/3 steps" in terminal.lines()[-1]


# -- loading ----------------------------------------------------------------------------------


def test_a_loader_that_takes_long_shows_the_seconds(
    make: Callable[..., Server], terminal: Terminal
) -> None:
    """While `wait_ready` waits for it, and no longer."""

    def loader() -> Callable[[list[object]], list[object]]:
        assert terminal.begun.wait(60)
        return list

    with redirect_stderr(terminal):
        make(loader=loader, name="mine").wait_ready()

    assert "loading mine: 00:0" in terminal.lines()[-1]


def test_a_process_that_takes_long_to_start_shows_the_seconds(
    make: Callable[..., Server], terminal: Terminal
) -> None:
    """While `serve` waits for it, and while `wait_ready` does; of several, how many are ready."""
    pytest.importorskip("cloudpickle")
    with redirect_stderr(terminal):
        make(lambda inputs: inputs, worker="process", name="one")
        assert "loading one: 00:0" in terminal.text
        make(loader=lambda: list, worker="process", workers=2, name="two").wait_ready()
    assert "/2 workers, 00:0" in terminal.text


def test_a_loader_that_fails_takes_its_bar_with_it(
    make: Callable[..., Server], terminal: Terminal
) -> None:
    """Then comes the error."""

    def loader() -> object:
        assert terminal.begun.wait(60)
        raise OSError("weights are missing")

    with redirect_stderr(terminal), pytest.raises(LoaderFailed, match="weights are missing"):
        make(loader=loader, name="broken").wait_ready()

    assert "loading broken: 00:0" in terminal.lines()[-1]


def test_a_model_that_loads_fast_shows_none(
    make: Callable[..., Server], terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As most do."""
    monkeypatch.setattr(progress, "LONG", 1e9)
    with redirect_stderr(terminal):
        make(loader=lambda: list).wait_ready()

    assert terminal.text == ""
