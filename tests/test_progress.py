"""Progress bars of simulations, searches and loading, and the places that show them."""

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
from notebook_serve.progress import LITTLE, packing_bar, work_bar

COST = CostModel(fixed=0.008, per_token=0.0002)
POLICIES = NoBatching(), Greedy(8)


class Terminal(io.TextIOBase):
    """An error output that records the bars."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.begun = threading.Event()

    def write(self, text: str) -> int:
        """Record `text`."""
        self.text += text
        if text.strip():
            self.begun.set()
        return len(text)

    def isatty(self) -> bool:
        """Return True."""
        return True

    def lines(self) -> list[str]:
        """Return each state of the one line; after the last it must be empty again."""
        *lines, blank, end = self.text.split("\r")
        assert not blank.strip()
        assert end == ""
        return lines


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Return a terminal, and let all work count as long."""
    monkeypatch.setattr(progress, "LONG", -1.0)
    return Terminal()


@pytest.fixture
def no_tqdm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tqdm be missing."""

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


#: each kind of work, with words that its bar has in the end
WORK = [
    (compares, ["simulating", "3/4 runs", "Greedy(max_batch_size=8) at 20/s"]),
    (recommends, ["finding limits", "1/2 policies", "Greedy(max_batch_size=8)"]),
    (searches, ["searching for the capacity", "00:0", "Greedy(max_batch_size=8) at "]),
    (plans, ["planning", "00:0", " x Greedy(max_batch_size=8)"]),
]
each = pytest.mark.parametrize(("work", "words"), WORK)


@each
def test_long_work_shows_a_bar(
    work: Callable[..., object], words: list[str], terminal: Terminal
) -> None:
    """On a terminal it shows the steps, their total and the present step, and then goes."""
    with redirect_stderr(terminal):
        work(None)

    last = terminal.lines()[-1]
    assert all(word in last for word in words), last


@each
def test_work_shows_a_bar_if_it_is_wanted(
    work: Callable[..., object], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Also if the work is short, and the error output no terminal."""
    work(True)

    assert words[0] in capsys.readouterr().err


@each
def test_work_shows_no_bar_without_a_terminal(
    work: Callable[..., object],
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An error output that is a file stays empty."""
    monkeypatch.setattr(progress, "LONG", -1.0)
    work(None)

    assert capsys.readouterr().err == ""


@each
def test_work_shows_no_bar_if_it_is_not_wanted(
    work: Callable[..., object], words: list[str], terminal: Terminal
) -> None:
    """A terminal stays empty too."""
    with redirect_stderr(terminal):
        work(False)

    assert terminal.text == ""


def test_short_work_shows_no_bar(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is drawn before the work has taken long."""
    monkeypatch.setattr(progress, "LONG", 1e9)
    with redirect_stderr(terminal), work_bar(None, "work", 3) as show:
        for done in range(3):
            show(done)

    assert terminal.text == ""


def test_work_without_tqdm(no_tqdm: None, terminal: Terminal) -> None:
    """A bar that is wanted raises before the work; other bars are left out."""
    with redirect_stderr(terminal):
        assert capacity(Greedy(8), COST, 0.1, requests=200) > 0
    assert terminal.text == ""
    with pytest.raises(MissingExtra, match=r"pip install 'notebook-serve\[notebook\]'"):
        capacity(Greedy(8), COST, 0.1, requests=10**9, progress=True)


def test_a_bar_disappears_if_the_work_fails(terminal: Terminal) -> None:
    """The exception passes, and the line is empty."""

    def fail() -> None:
        with work_bar(None, "work", 3) as show:
            show(1)
            raise LookupError

    with redirect_stderr(terminal), pytest.raises(LookupError):
        fail()

    assert "1/3 steps" in terminal.lines()[-1]


# -- sending a model --------------------------------------------------------------------------


def test_a_large_model_shows_the_bytes_that_are_sent(terminal: Terminal) -> None:
    """A small one shows none, and a second model has a bar of its own."""
    with redirect_stderr(terminal):
        show = packing_bar()
        show(LITTLE, LITTLE)
        assert terminal.text == ""
        for _ in range(2):
            for done in (LITTLE, 2 * LITTLE):
                show(done, 2 * LITTLE)

    assert terminal.text.count("sending the model: 100%") == 2
    assert "100M/100M" in terminal.text


# -- loading ----------------------------------------------------------------------------------


def test_a_loader_that_takes_long_shows_the_seconds(
    make: Callable[..., Server], terminal: Terminal
) -> None:
    """The bar ends when `wait_ready` ends."""

    def loader() -> Callable[[list[object]], list[object]]:
        assert terminal.begun.wait(60)
        return list

    with redirect_stderr(terminal):
        make(loader=loader, name="mine").wait_ready()

    assert "loading mine: 00:0" in terminal.lines()[-1]


def test_a_process_that_takes_long_to_start_shows_the_seconds(
    make: Callable[..., Server], terminal: Terminal
) -> None:
    """While `serve` or `wait_ready` waits; with several workers it counts the ready ones."""
    pytest.importorskip("cloudpickle")
    with redirect_stderr(terminal):
        make(lambda inputs: inputs, worker="process", name="one")
        assert "loading one: 00:0" in terminal.text
        make(loader=lambda: list, worker="process", workers=2, name="two").wait_ready()
    assert "/2 workers, 00:0" in terminal.text


def test_the_bar_of_a_loader_disappears_if_it_fails(
    make: Callable[..., Server], terminal: Terminal
) -> None:
    """The error follows."""

    def loader() -> object:
        assert terminal.begun.wait(60)
        raise OSError("weights are missing")

    with redirect_stderr(terminal), pytest.raises(LoaderFailed, match="weights are missing"):
        make(loader=loader, name="broken").wait_ready()

    assert "loading broken: 00:0" in terminal.lines()[-1]


def test_a_model_that_loads_fast_shows_no_bar(
    make: Callable[..., Server], terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most models do."""
    monkeypatch.setattr(progress, "LONG", 1e9)
    with redirect_stderr(terminal):
        make(loader=lambda: list).wait_ready()

    assert terminal.text == ""
