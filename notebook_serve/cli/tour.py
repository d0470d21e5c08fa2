"""The demo: the model that ships, live traffic, three policies, and what the figures say."""

from __future__ import annotations

import contextlib
import itertools
import math
import select
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from ..demo import pipeline, sentences
from ..display import Table, duration, per_second, percent
from ..errors import ServeError
from ..lab.load_test import aload_test
from ..lab.run_sync import run_sync
from ..queueing.policies import Greedy, NoBatching, Policy, label
from ..queueing.stats import Distribution
from ..server import Server, serve
from ..simulation.report import Report
from .foreground import Tell, open_page

QUESTION = "raise a [MASK] if the key is missing"
#: the kinds of text by their names, as options of `sentences`
KINDS: Mapping[str, Mapping[str, int]] = {
    "short": {"min_words": 4, "max_words": 8},
    "mixed": {"min_words": 4, "max_words": 128},
}
#: turns that each policy has on each kind of text: what else the machine does meets all of them
TURNS = 2
#: the share of each turn that its figures leave out
WARMUP = 0.25
#: how many times as fast one turn may be as another before that is said
STEADY = 1.3
#: seconds that the server goes on after the table, where it does
STAY = 120.0
#: seconds between two bursts of requests meanwhile, and how many are in each, over and over
PAUSE, BURSTS = 0.25, (2, 16, 4, 1, 8)
#: how much a ratio of two rates may differ from 1 and be called the same
SAME = 0.05
HEADS = ("texts", "policy", "answers/s", "ratio", "p50", "p99", "batch", "padding", "failed")


@dataclass(frozen=True)
class Run:
    """One kind of text under one policy, and what was measured."""

    kind: str
    policy: str
    #: answers per second
    rate: float
    p50: float
    p99: float
    #: the mean number of requests in a batch
    batch: float
    #: the share of the computed tokens that was padding
    padding: float
    #: requests that had no answer
    failed: int = 0
    #: how many times as fast the fastest of its turns was as the slowest
    spread: float = 1.0

    @classmethod
    def of(cls, kind: str, policy: str, turns: Sequence[Report]) -> Run:
        """The figures of some load tests of equal length."""
        rates = [report.throughput for report in turns]
        latency = Distribution.of(itertools.chain.from_iterable(map(_latencies, turns)))
        return cls(
            kind,
            policy,
            fmean(rates),
            latency.p50,
            latency.p99,
            fmean(report.mean_batch_size for report in turns),
            fmean(report.padding for report in turns),
            sum(len(report.records) - report.outcomes["ok"] for report in turns),
            max(rates) / min(rates) if min(rates) else math.inf,
        )


def _latencies(report: Report) -> Iterator[float]:
    """Seconds from arrival to answer, of the requests after the warm-up."""
    log = report.records
    for arrived, finished, outcome in zip(log.arrived, log.finished, log.outcome, strict=True):
        if outcome == "ok" and arrived >= report.start:
            yield finished - arrived


@dataclass(frozen=True)
class Findings:
    """All runs; for each kind of text the policies in one order, of which the first is the base."""

    runs: Sequence[Run]

    def of(self, kind: str) -> list[Run]:
        """The runs of one kind of text."""
        return [run for run in self.runs if run.kind == kind]

    def ratio(self, run: Run) -> float:
        """The rate of a run as a multiple of the first policy's on the same kind of text."""
        base = self.of(run.kind)[0].rate
        return run.rate / base if base else math.nan

    def table(self) -> Table:
        """A row for each run."""
        rows = [
            (
                run.kind,
                run.policy,
                f"{run.rate:.0f}",
                "–" if math.isnan(self.ratio(run)) else f"{self.ratio(run):.2f} x",
                duration(run.p50),
                duration(run.p99),
                f"{run.batch:.1f}",
                percent(run.padding),
                run.failed,
            )
            for run in self.runs
        ]
        return Table("", HEADS, rows)

    def sentences(self) -> list[str]:
        """Say what was measured: of batching on short texts, on mixed ones, and by the default."""
        silent = [run for run in self.runs if not run.rate]
        if silent:
            which = " and ".join(f"{run.policy} on {run.kind} texts" for run in silent)
            return [f"There was no answer under {which}; give it more --seconds."]
        (base, greedy, _), (_, mixed, _) = self.of("short"), self.of("mixed")
        ratios = self.ratio(greedy), self.ratio(mixed)
        also = "too" if _verdict(ratios[0]) == _verdict(ratios[1]) else "however"
        return [
            f"On short texts {greedy.policy} was {_faster(ratios[0])} {_than(ratios[0])} "
            f"{base.policy}, in answers per second.",
            f"On mixed texts, {also}, it was {_faster(ratios[1])}: {percent(mixed.padding)} of the "
            "tokens that it computed were padding.",
            self._of_the_default(),
        ]

    def doubt(self) -> str:
        """A warning if the machine was not steady; empty if it was."""
        worst = max(self.runs, key=lambda run: run.spread)
        if worst.spread <= STEADY:
            return ""
        times = "far faster" if worst.spread == math.inf else f"{worst.spread:.1f} times as fast"
        return (
            f"These figures are unsure: {worst.policy} on {worst.kind} texts was {times} in one of "
            "its turns,\nso the machine is busy with something else. Run it again when it is not."
        )

    def _of_the_default(self) -> str:
        """Compare the last policy with the best of the others, on each kind of text."""
        (*others, short), (*rest, mixed) = self.of("short"), self.of("mixed")
        ratios = [
            last.rate / max(run.rate for run in before)
            for before, last in ((others, short), (rest, mixed))
        ]
        return (
            f"Against the better of those two, {mixed.policy} was {_faster(ratios[0])} on short "
            f"texts and {_faster(ratios[1])} on mixed ones, where it padded "
            f"{percent(mixed.padding)}."
        )


def _verdict(ratio: float) -> int:
    """Return 1 if a ratio says faster, -1 if it says slower, 0 if it is about 1."""
    return 0 if abs(ratio - 1) <= SAME else 1 if ratio > 1 else -1


def _faster(ratio: float) -> str:
    """Say in words how fast one is that is `ratio` times as fast as another."""
    if _verdict(ratio) == 0:
        return "about as fast"
    if ratio >= 2:
        return f"{ratio:.1f} times as fast"
    return f"{abs(ratio - 1):.0%} {'faster' if ratio > 1 else 'slower'}"


def _than(ratio: float) -> str:
    return "as" if "as fast" in _faster(ratio) else "than"


class Tour:
    """The demo itself; `tell` is given each line."""

    def __init__(self, seconds: float, clients: int, tell: Tell) -> None:
        self._seconds, self._clients, self._tell = seconds, clients, tell
        self._steps = 1 + len(KINDS) * 3 * TURNS
        self._step = 0

    def run(self, *, port: int | None, browse: bool, stays: bool) -> int:
        """Take the tour; returns the exit status, 1 if a request had no answer."""
        self._tell("Loading the model that ships with the package (nothing is downloaded) ...")
        with serve(port=port, name="demo", loader=pipeline, threads=1) as server:
            server.wait_ready()
            self._greet(server, browse)
            found = self._measure(server)
            self._tell(f"\n{found.table()}\n\n{self._legend()}\n")
            for number, sentence in enumerate(found.sentences(), 1):
                self._tell(f"{number}. {sentence}")
            if doubt := found.doubt():
                self._tell(f"\n{doubt}")
            if stays:
                self._stay(server)
            self._tell(f"\nstopping {server.url}")
        return int(any(run.failed for run in found.runs))

    def _greet(self, server: Server, browse: bool) -> None:
        self._tell(f"\nOpen {server.url} in a browser now: the page moves while this runs.")
        if browse:
            open_page(server.url, None, self._tell)
        self._tell(f'\n$ curl -X POST -d "{QUESTION}" {server.url}')
        with server.httpx() as client:
            answers = client.post("/", content=QUESTION).raise_for_status().json()
        columns = ("score", "token_str", "sequence")
        rows = [tuple(answer[name] for name in columns) for answer in answers]
        self._tell(f"{Table('', columns, rows)}\n")

    # -- the runs -----------------------------------------------------------------------

    def _measure(self, server: Server) -> Findings:
        default = server.policy
        report = self._load(server, "mixed", default, "warm-up of ")
        self._tell(self._learnt(default, len(report.batches)))
        policies: dict[str, Policy] = {
            "NoBatching": NoBatching(),
            "Greedy": Greedy(),
            f"{type(default).__name__} (the default)": default,
        }
        return Findings([run for kind in KINDS for run in self._compare(server, kind, policies)])

    def _compare(self, server: Server, kind: str, policies: Mapping[str, Policy]) -> list[Run]:
        """Let the policies take turns on one kind of text."""
        turns: dict[str, list[Report]] = {name: [] for name in policies}
        for name, policy in list(policies.items()) * TURNS:
            turns[name].append(self._load(server, kind, policy))
        return [Run.of(kind, name, reports) for name, reports in turns.items()]

    def _learnt(self, default: Policy, batches: int) -> str:
        """Say if the default policy has learned enough in the warm-up."""
        if getattr(default, "cost", None) is not None:
            return f"      it has learned what a batch costs here, from {batches} batches"
        return (
            f"      after {batches} batches it has not learned enough of what a batch costs here; "
            "until it has it is LengthAware"
        )

    def _load(self, server: Server, kind: str, policy: Policy, what: str = "") -> Report:
        """Send traffic of one kind under one policy."""
        self._step += 1
        server.policy = policy
        line = f"[{self._step}/{self._steps}] {what}{label(policy)}, {kind} texts"
        seconds = self._seconds / TURNS
        self._tell(f"{line}: {seconds:g} s from {self._clients} clients ...")
        report = run_sync(
            aload_test(
                server,
                sentences(500, seed=1, **KINDS[kind]),
                concurrency=self._clients,
                duration=seconds,
                warmup=WARMUP,
                progress=False,
            )
        )
        p50 = duration(report.latency.p50)
        self._tell(f"      {per_second(report.throughput)} answers, p50 {p50}")
        return report

    def _legend(self) -> str:
        return (
            "ratio: answers per second, as a multiple of NoBatching's on the same texts.\n"
            "batch: mean number of requests in one; padding: share of the computed tokens.\n"
            f"short: 4 to 8 words; mixed: 4 to 128. {self._clients} clients, each of which asks "
            "again when it is answered,\nask through the queue, in this process, without HTTP; "
            "torch has one thread. The first\n"
            f"{WARMUP:.0%} of each turn is left out, and so is the warm-up, in which the default "
            "policy learned."
        )

    # -- the end ------------------------------------------------------------------------

    def _stay(self, server: Server) -> None:
        """Go on with light traffic, until Enter, an interrupt, or for `STAY` seconds."""
        self._tell(
            f"\n{server.url} goes on for {STAY:g} s, with light traffic: look at the page, "
            "change the policy there.\nEnter or Ctrl+C ends it now."
        )
        texts, bursts = itertools.cycle(sentences(500, seed=2)), itertools.cycle(BURSTS)
        give_up = time.monotonic() + STAY
        with contextlib.suppress(KeyboardInterrupt):
            while time.monotonic() < give_up and not _entered(PAUSE):
                some = list(itertools.islice(texts, next(bursts)))
                with contextlib.suppress(ServeError):  # paused in the page, its queue may be full
                    server._engine.submit(some, {}, client="demo")


def _entered(seconds: float) -> bool:
    """Wait for a line on the standard input, at most so long; return True if there is one."""
    if sys.platform == "win32":  # where only sockets can be waited for
        time.sleep(seconds)
        return False
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(ready)
