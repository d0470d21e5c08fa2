"""The demo: the shipped model under live traffic and three policies, and a comparison of these."""

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
from .run import PrintLine, open_page

QUESTION = "raise a [MASK] if the key is missing"
#: the kinds of text by name, as options of `sentences`
KINDS: Mapping[str, Mapping[str, int]] = {
    "short": {"min_words": 4, "max_words": 8},
    "mixed": {"min_words": 4, "max_words": 128},
}
#: turns of each policy on each kind of text, so that other load on the machine affects all alike
TURNS = 2
#: the share of each turn that the figures leave out
WARMUP = 0.25
#: a warning is printed if one turn of a policy is so many times as fast as another
STEADY = 1.3
#: seconds for which the server continues after the table, at a terminal
STAY = 120.0
#: seconds between two bursts of requests in that time, and the sizes of the bursts, repeated
PAUSE, BURSTS = 0.25, (2, 16, 4, 1, 8)
#: two rates are called the same if their ratio differs from 1 by no more than this
SAME = 0.05
HEADS = ("texts", "policy", "answers/s", "ratio", "p50", "p99", "batch", "padding", "failed")


@dataclass(frozen=True)
class Measurement:
    """The figures of one policy on one kind of text."""

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
    #: requests without an answer
    failed: int = 0
    #: the rate of the fastest turn over that of the slowest
    spread: float = 1.0

    @classmethod
    def of(cls, kind: str, policy: str, turns: Sequence[Report]) -> Measurement:
        """Return the figures of load tests of equal length."""
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
    """Yield the seconds from arrival to answer of each request after the warm-up."""
    log = report.records
    for arrived, finished, outcome in zip(log.arrived, log.finished, log.outcome, strict=True):
        if outcome == "ok" and arrived >= report.start:
            yield finished - arrived


@dataclass(frozen=True)
class Findings:
    """All measurements; each kind of text has the same order of policies, the baseline first."""

    measurements: Sequence[Measurement]

    def of(self, kind: str) -> list[Measurement]:
        """Return the measurements on one kind of text."""
        return [each for each in self.measurements if each.kind == kind]

    def ratio(self, measurement: Measurement) -> float:
        """Return the rate as a multiple of the baseline's on the same kind of text."""
        base = self.of(measurement.kind)[0].rate
        return measurement.rate / base if base else math.nan

    def table(self) -> Table:
        """Return a table with a row for each measurement."""
        rows = [
            (
                each.kind,
                each.policy,
                f"{each.rate:.0f}",
                "–" if math.isnan(self.ratio(each)) else f"{self.ratio(each):.2f} x",
                duration(each.p50),
                duration(each.p99),
                f"{each.batch:.1f}",
                percent(each.padding),
                each.failed,
            )
            for each in self.measurements
        ]
        return Table("", HEADS, rows)

    def conclusions(self) -> list[str]:
        """Return sentences about batching on short texts, on mixed ones, and about the default."""
        empty = [each for each in self.measurements if not each.rate]
        if empty:
            names = " and ".join(f"{each.policy} on {each.kind} texts" for each in empty)
            return [f"There was no answer under {names}; give it more --seconds."]
        (base, greedy, _), (_, mixed, _) = self.of("short"), self.of("mixed")
        ratios = self.ratio(greedy), self.ratio(mixed)
        also = "too" if _verdict(ratios[0]) == _verdict(ratios[1]) else "however"
        return [
            f"On short texts {greedy.policy} was {_describe(ratios[0])} {_than(ratios[0])} "
            f"{base.policy}, in answers per second.",
            f"On mixed texts, {also}, it was {_describe(ratios[1])}: {percent(mixed.padding)} of "
            "the tokens that it computed were padding.",
            self._compare_default(),
        ]

    def warning(self) -> str:
        """Return a warning if the speed of the machine varied; empty if it was steady."""
        worst = max(self.measurements, key=lambda each: each.spread)
        if worst.spread <= STEADY:
            return ""
        times = "far faster" if worst.spread == math.inf else f"{worst.spread:.1f} times as fast"
        return (
            f"These figures are unreliable: {worst.policy} on {worst.kind} texts was {times} "
            "in one of its turns,\nso other programs may use the machine. Run it again when it "
            "is idle."
        )

    def _compare_default(self) -> str:
        """Return a comparison of the last policy with the better of the others."""
        (*others, short), (*rest, mixed) = self.of("short"), self.of("mixed")
        ratios = [
            last.rate / max(each.rate for each in before)
            for before, last in ((others, short), (rest, mixed))
        ]
        return (
            f"Against the better of those two, {mixed.policy} was {_describe(ratios[0])} on short "
            f"texts and {_describe(ratios[1])} on mixed ones, where it padded "
            f"{percent(mixed.padding)}."
        )


def _verdict(ratio: float) -> int:
    """Return 1 if a ratio means faster, -1 if it means slower, 0 if it is about 1."""
    return 0 if abs(ratio - 1) <= SAME else 1 if ratio > 1 else -1


def _describe(ratio: float) -> str:
    """Return a ratio of rates in words."""
    if _verdict(ratio) == 0:
        return "about as fast"
    if ratio >= 2:
        return f"{ratio:.1f} times as fast"
    return f"{abs(ratio - 1):.0%} {'faster' if ratio > 1 else 'slower'}"


def _than(ratio: float) -> str:
    return "as" if "as fast" in _describe(ratio) else "than"


class Tour:
    """The demo itself; it calls `print_line` with each line of its output."""

    def __init__(self, seconds: float, clients: int, print_line: PrintLine) -> None:
        self._seconds, self._clients, self._print = seconds, clients, print_line
        self._steps = 1 + len(KINDS) * 3 * TURNS
        self._step = 0

    def run(self, *, port: int | None, browse: bool, stays: bool) -> int:
        """Run the demo and return the exit status, 1 if a request had no answer."""
        self._print("Loading the model that ships with the package (nothing is downloaded) ...")
        with serve(port=port, name="demo", loader=pipeline, threads=1) as server:
            server.wait_ready()
            self._greet(server, browse)
            found = self._measure(server)
            self._print(f"\n{found.table()}\n\n{self._legend()}\n")
            for number, sentence in enumerate(found.conclusions(), 1):
                self._print(f"{number}. {sentence}")
            if warning := found.warning():
                self._print(f"\n{warning}")
            if stays:
                self._stay(server)
            self._print(f"\nstopping {server.url}")
        return int(any(each.failed for each in found.measurements))

    def _greet(self, server: Server, browse: bool) -> None:
        self._print(f"\nOpen {server.url} in a browser now: the page is live while this runs.")
        if browse:
            open_page(server.url, None, self._print)
        self._print(f'\n$ curl -X POST -d "{QUESTION}" {server.url}')
        with server.httpx() as client:
            answers = client.post("/", content=QUESTION).raise_for_status().json()
        columns = ("score", "token_str", "sequence")
        rows = [tuple(answer[name] for name in columns) for answer in answers]
        self._print(f"{Table('', columns, rows)}\n")

    # -- measurements -------------------------------------------------------------------

    def _measure(self, server: Server) -> Findings:
        default = server.policy
        report = self._load(server, "mixed", default, "warm-up of ")
        self._print(self._describe_learning(default, len(report.batches)))
        policies: dict[str, Policy] = {
            "NoBatching": NoBatching(),
            "Greedy": Greedy(),
            f"{type(default).__name__} (the default)": default,
        }
        return Findings([each for kind in KINDS for each in self._compare(server, kind, policies)])

    def _compare(
        self, server: Server, kind: str, policies: Mapping[str, Policy]
    ) -> list[Measurement]:
        """Measure the policies on one kind of text, in turns."""
        turns: dict[str, list[Report]] = {name: [] for name in policies}
        for name, policy in list(policies.items()) * TURNS:
            turns[name].append(self._load(server, kind, policy))
        return [Measurement.of(kind, name, reports) for name, reports in turns.items()]

    def _describe_learning(self, default: Policy, batches: int) -> str:
        """Return a line that says if the default policy has learned enough in the warm-up."""
        if getattr(default, "cost", None) is not None:
            return f"      it has fitted its cost model to {batches} batches"
        return (
            f"      {batches} batches were too few to fit its cost model; until there are more, it "
            "decides as LengthAware"
        )

    def _load(self, server: Server, kind: str, policy: Policy, what: str = "") -> Report:
        """Run a load test of one policy on one kind of text."""
        self._step += 1
        server.policy = policy
        line = f"[{self._step}/{self._steps}] {what}{label(policy)}, {kind} texts"
        seconds = self._seconds / TURNS
        self._print(f"{line}: {seconds:g} s from {self._clients} clients ...")
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
        self._print(f"      {per_second(report.throughput)} answers, p50 {p50}")
        return report

    def _legend(self) -> str:
        return (
            "ratio: answers per second, as a multiple of NoBatching's on the same texts.\n"
            "batch: mean number of requests in a batch; padding: share of the computed tokens.\n"
            f"short: 4 to 8 words; mixed: 4 to 128. {self._clients} clients, each of which sends "
            "its next request\nafter an answer, use the queue in this process, without HTTP; "
            "torch has one thread. The\n"
            f"first {WARMUP:.0%} of each turn is left out, and so is the warm-up, in which the "
            "default policy learned."
        )

    # -- the end ------------------------------------------------------------------------

    def _stay(self, server: Server) -> None:
        """Send light traffic until Enter or an interrupt, or for `STAY` seconds."""
        self._print(
            f"\n{server.url} goes on for {STAY:g} s, with light traffic: look at the page, "
            "change the policy there.\nEnter or Ctrl+C ends it now."
        )
        texts, bursts = itertools.cycle(sentences(500, seed=2)), itertools.cycle(BURSTS)
        give_up = time.monotonic() + STAY
        with contextlib.suppress(KeyboardInterrupt):
            while time.monotonic() < give_up and not _entered(PAUSE):
                some = list(itertools.islice(texts, next(bursts)))
                with contextlib.suppress(ServeError):  # paused on the page, its queue may be full
                    server._engine.submit(some, {}, client="demo")


def _entered(seconds: float) -> bool:
    """Wait for a line on standard input, at most so many seconds; return True if there is one."""
    if sys.platform == "win32":  # select takes only sockets there
        time.sleep(seconds)
        return False
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(ready)
