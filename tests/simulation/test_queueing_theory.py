"""Agreement of the simulator with queueing theory.

Each run has a fixed seed. A figure agrees if it is within five standard errors of the theory's, as
the run itself estimates them (`Report.intervals`, from batch means); and the test is only worth
something if these are small, which it checks as well.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
import pytest

from notebook_serve import (
    CostModel,
    Greedy,
    LengthAware,
    NoBatching,
    Policy,
    Report,
    Window,
    simulate,
)
from notebook_serve.simulation.report import STUDENT
from notebook_serve.traffic import ClosedLoop, LogNormal, Poisson, Uniform

Cost = Callable[[Sequence[int]], float]

#: an estimate may differ from the truth by so many standard errors
ERRORS = 5.0


def exponential(mean: float, seed: int = 0) -> Cost:
    """Service times drawn anew for every batch."""
    draw = random.Random(seed)
    return lambda lengths: draw.expovariate(1.0 / mean)


def constant(seconds: float) -> Cost:
    """Return a cost of the same seconds for every batch."""
    return lambda lengths: seconds


def single(cost: Cost, rate: float, n: int, **options: Any) -> Report:
    """The textbook queue: one request at a time, in the order of arrival."""
    return simulate(NoBatching(), Poisson(rate, seed=12, n=n), cost, **options)


@lru_cache(maxsize=1)
def standard_errors(report: Report) -> dict[str, float]:
    """Return the standard error of each figure of `Report.intervals`."""
    return {
        name: (high - low) / 2 / STUDENT[0.95] for name, (low, high) in report.intervals().items()
    }


def standard_error(report: Report, name: str = "latency_mean") -> float:
    """Return the standard error of a figure."""
    return standard_errors(report)[name]


def agrees(found: float, theory: float, error: float, most: float = 0.03) -> None:
    """Assert that a figure agrees with the theory, and that its standard error is small."""
    assert error <= most * theory, f"too unsure to tell: {found} ± {error}"
    assert abs(found - theory) <= ERRORS * error, f"{found} ± {error}, and not {theory}"


def latency_agrees(report: Report, name: str, theory: float, most: float = 0.03) -> None:
    """Assert that a figure of the latencies agrees with the theory."""
    error = standard_error(report, f"latency_{name}")
    agrees(getattr(report.latency, name), theory, error, most)


# -- one request at a time ----------------------------------------------------------------


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_m_m_1(load: float) -> None:
    """Sojourn times are exponential with the mean 1 / (mu - lambda): mean and percentiles.

    L. Kleinrock, *Queueing Systems, Volume 1* (1975), chapter 5; mu is 1 here.
    """
    report = single(exponential(1.0), load, 100_000)
    mean = 1.0 / (1.0 - load)

    latency_agrees(report, "mean", mean)
    for percent in (50, 95, 99):
        latency_agrees(report, f"p{percent}", -math.log(1 - percent / 100) * mean, most=0.05)
    agrees(report.queue_time.mean, load * mean, standard_error(report), most=0.05)
    # The batch has n service times, each with a deviation equal to its mean.
    agrees(report.utilisation, load, load / math.sqrt(len(report.records)))


@pytest.mark.parametrize("load", [0.3, 0.8])
def test_m_d_1(load: float) -> None:
    """With equal service times the mean wait is half that of M/M/1.

    The Pollaczek-Khinchine formula, W = lambda E[S^2] / (2 (1 - rho)) (Kleinrock, chapter 5).
    """
    report = single(constant(1.0), load, 80_000)
    wait = load / (2 * (1 - load))

    latency_agrees(report, "mean", 1.0 + wait)
    agrees(report.queue_time.mean, wait, standard_error(report), most=0.05)


@pytest.mark.parametrize("variation", [0.5, 1.5])
def test_m_g_1_by_noise(variation: float) -> None:
    """Noise of a coefficient of variation c makes the mean wait 1 + c^2 times that of M/D/1."""
    load = 0.6
    report = single(constant(1.0), load, 80_000, noise=variation, seed=3)
    wait = load * (1 + variation**2) / (2 * (1 - load))

    latency_agrees(report, "mean", 1.0 + wait, most=0.05)


def test_m_g_1_by_length() -> None:
    """Uniform lengths from 1 to 9 and a cost for each token: E[S] = 5, E[S^2] = 95 / 3."""
    rate = 0.14
    cost = CostModel(per_token=1.0)
    report = single(cost, rate, 80_000, lengths=Uniform(1, 9, seed=5))
    wait = rate * (95 / 3) / (2 * (1 - 5 * rate))

    latency_agrees(report, "mean", 5.0 + wait)


# -- several workers, and limits ----------------------------------------------------------


def erlang_c(servers: int, offered: float) -> float:
    """Return the probability that all `servers` are busy, at an offered load in erlangs."""
    blocked = 1.0
    for n in range(1, servers + 1):  # Erlang's B, by its recursion
        blocked = offered * blocked / (n + offered * blocked)
    load = offered / servers
    return blocked / (1 - load + load * blocked)


def test_erlang_c_by_hand() -> None:
    """With one server the probability is its load; with two, 2 rho^2 / (1 + rho)."""
    assert erlang_c(1, 0.7) == pytest.approx(0.7)
    assert erlang_c(2, 1.2) == pytest.approx(2 * 0.6**2 / 1.6)


@pytest.mark.parametrize("servers", [2, 5])
def test_m_m_c(servers: int) -> None:
    """Replicas on one shared queue: the mean wait is C(c, a) / (c mu - lambda), Erlang's C.

    Kleinrock, chapter 3; the share that waits at all is C(c, a) itself.
    """
    rate = 0.8 * servers
    report = single(exponential(1.0, seed=1), rate, 60_000, replicas=servers)
    waits = erlang_c(servers, rate)

    latency_agrees(report, "mean", 1.0 + waits / (servers - rate), most=0.05)
    log = report.records
    waited = [s is not None and s > a for a, s in zip(log.arrived, log.started, strict=True)]
    agrees(share(waited), waits, share_error(waited))


def share(flags: Sequence[bool]) -> float:
    """Return the share of requests for which `true` holds."""
    return sum(flags) / len(flags)


def share_error(flags: Sequence[bool]) -> float:
    """Return the standard error of a share of requests, from the means of twenty batches."""
    means = [np.mean(part) for part in np.array_split(np.array(flags), 20)]
    return float(np.std(means, ddof=1) / math.sqrt(len(means)))


@pytest.mark.parametrize(("load", "places"), [(0.8, 1), (0.8, 4), (1.5, 3), (1.0, 5)])
def test_m_m_1_k(load: float, places: int) -> None:
    """A limited queue loses (1 - rho) rho^K / (1 - rho^(K + 1)), K places with the one that runs.

    Kleinrock, chapter 3; 1 / (K + 1) where rho is 1.
    """
    report = single(exponential(1.0, seed=2), load, 60_000, max_queue_size=places)
    k = places + 1
    lost = 1 / (k + 1) if load == 1 else (1 - load) * load**k / (1 - load ** (k + 1))
    flags = [outcome == "rejected" for outcome in report.records.outcome]

    agrees(share(flags), lost, share_error(flags))
    agrees(report.throughput, load * (1 - lost), standard_error(report, "throughput"))


@pytest.mark.parametrize("servers", [1, 3])
def test_erlang_a(servers: int) -> None:
    """Impatient clients: the share that leaves the queue is theta L / lambda, and no load is too
    much.

    L is from the birth-death chain with deaths at min(n, c) mu + max(0, n - c) theta (C. Palm,
    1957; Garnett, Mandelbaum and Reiman, "Designing a Call Center with Impatient Customers",
    2002). Here clients leave while they are served, too, but that frees no server.
    """
    rate, theta = 1.2 * servers, 0.5
    report = single(
        exponential(1.0, seed=4), rate, 60_000, replicas=servers, patience=1 / theta, seed=9
    )
    weights = [1.0]
    for n in range(1, 200):
        weights.append(weights[-1] * rate / (min(n, servers) + max(0, n - servers) * theta))
    waiting = sum(max(0, n - servers) * w for n, w in enumerate(weights)) / sum(weights)
    left = [number is None for number in report.records.batch_id]

    agrees(share(left), theta * waiting / rate, share_error(left))
    agrees(report.mean_waiting, waiting, share_error(left) * rate / theta)


# -- laws of any policy -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "options"),
    [
        (NoBatching(), {}),
        (Greedy(8), {}),
        (Window(8, 0.1), {}),
        (LengthAware(8), {}),
        (LengthAware(8), {"replicas": 2, "dispatch": "shortest"}),
        (LengthAware(4), {"timeout": 0.15, "patience": 0.5}),
        (Greedy(4), {"max_queue_size": 3}),
    ],
    ids=repr,
)
def test_littles_law(policy: Policy, options: dict[str, Any]) -> None:
    """L = lambda W for the queue, for any outcome of its requests (Little, 1961).

    Both sides are of one run, so only requests that wait at its start or end cause a difference.
    """
    report = simulate(
        policy,
        Poisson(25.0, seed=3, n=15_000),
        CostModel(fixed=0.015, per_token=0.0005),
        lengths=LogNormal(20, 0.8, high=128),
        **options,
    )
    late = [r for r in report.records if report.start <= r.arrived < report.duration]
    wait = sum(record.queue_time for record in late) / len(late)

    assert report.mean_waiting == pytest.approx(report.offered * wait, rel=0.01)
    assert report.mean_waiting > 0.05


def test_the_utilisation_law() -> None:
    """Utilisation is batches per second times their seconds."""
    cost = CostModel(fixed=0.05, per_item=0.01)
    report = simulate(Greedy(4), Poisson(60.0, seed=1, n=20_000), cost, replicas=3)
    size = report.mean_batch_size

    busy = report.throughput / size * (0.05 + 0.01 * size) / 3
    assert report.utilisation == pytest.approx(busy, rel=0.005)


@pytest.mark.parametrize("clients", [1, 3, 10])
def test_machine_repairman(clients: int) -> None:
    """Clients that think and one server: the throughput is mu (1 - P(no client is there)).

    Kleinrock, chapter 3, for clients that think for an exponential time; only its mean matters
    (Baskett, Chandy, Muntz and Palacios, "Open, Closed, and Mixed Networks of Queues", 1975).
    """
    think = 4.0
    report = simulate(
        NoBatching(), ClosedLoop(clients, think), exponential(1.0, seed=8), duration=30_000.0
    )
    weights = [1.0]
    for n in range(clients):
        weights.append(weights[-1] * (clients - n) / think)
    throughput = 1 - weights[0] / sum(weights)

    agrees(report.throughput, throughput, standard_error(report, "throughput"))
    latency = clients / throughput - think
    latency_agrees(report, "mean", latency)


# -- dynamic batching ---------------------------------------------------------------------


@cache
def factorials(count: int) -> Any:
    """Return the logarithms of the factorials from that of 0 on."""
    return np.array([math.lgamma(n + 1.0) for n in range(count)])


@dataclass(frozen=True)
class Bulk:
    """Poisson arrivals, served up to `most` at once, a batch of b in ``each * b + fixed`` seconds.

    This is the behaviour of `Greedy`. The jobs that the server leaves or finds waiting when a batch
    is done are a Markov chain (N. Bailey, "On Queueing Processes with Bulk Service", 1954; M.
    Neuts, "A General Class of Bulk Queues with Poisson Input", 1967), here cut off at `states` and
    solved. In the batch time H of a batch with b of q waiting, q - b wait all of H, and the Poisson
    arrivals in it H / 2 each on average; no job waits while the server is idle. Divided by the jobs
    of a batch, that is the mean wait; and a job's batch is of size b in proportion to b P(b).
    """

    rate: float
    each: float
    fixed: float
    most: int
    states: int = 400

    def solve(self) -> tuple[float, float, float]:
        """Return the mean batch size, the mean wait and the mean latency."""
        found = np.maximum(np.arange(self.states), 1)  # an idle server waits for one
        size = np.minimum(found, self.most)
        seconds = self.each * size + self.fixed
        chain = np.stack([self._next(*row) for row in zip(found - size, seconds, strict=True)])
        balance = chain.T - np.eye(self.states)
        balance[0] = 1.0  # one equation is too many, and the shares sum to one
        share = np.linalg.solve(balance, np.eye(self.states)[0])
        assert abs(share[-1]) < 1e-9, "cut off too early"
        jobs = share @ size
        wait = share @ ((found - size) * seconds + self.rate * seconds**2 / 2) / jobs
        return float(jobs), float(wait), float(wait + share @ (size * seconds) / jobs)

    def _next(self, left: int, seconds: float) -> Any:
        """Return the probabilities of the queue length at the end of a batch."""
        mean = self.rate * seconds
        poisson = np.exp(np.arange(self.states) * math.log(mean) - mean - factorials(self.states))
        row = np.zeros(self.states)
        row[left:] = poisson[: self.states - left]
        row[-1] += max(0.0, 1.0 - row.sum())
        return row


def latency_bound(rate: float, alpha: float, tau: float) -> float:
    """Return an upper bound of the mean latency, if a batch of b takes alpha b + tau.

    Y. Inoue, "Queueing Analysis of GPU-Based Inference Servers with Dynamic Batching: A
    Closed-Form Characterization", Performance Evaluation 147 (2021), arXiv:1912.06322: the lesser
    of two bounds, with no limit to the batch and rate * alpha < 1.

    A derivation, to check the formula: a batch of B is followed by one of A, or of 1 if A = 0,
    A being Poisson of mean rate (alpha B + tau). The first two moments of both sides give, in
    steady state, E[B] (1 - rate alpha) = rate tau + P(A = 0) and E[B^2] (1 - (rate alpha)^2) =
    E[B] + rate^2 tau (2 alpha E[B] + tau). Arrivals during a batch time H wait H / 2 on
    average and then take their own, so the mean latency is (rate E[H^2] / 2 + E[B H]) / E[B]. Of
    all this only 1 / E[B] is unknown, and more of it makes the latency greater. E[B] >= 1 gives the
    first bound, and P(A = 0) >= 0, which is E[B] >= rate tau / (1 - rate alpha), the second.
    """
    load = rate * alpha
    light = (alpha + tau) / (2 * (1 - load)) * (1 + 2 * rate * tau + (1 - rate * tau) / (1 + load))
    heavy = 1.5 * tau / (1 - load) + alpha / 2 * (load + 2) / (1 - load**2)
    return min(light, heavy)


#: a model with 1 s and 0.25 s for each request of a batch: its capacity is 4 a second
ALPHA, TAU = 0.25, 1.0


@pytest.mark.parametrize("rate", [0.1, 0.5, 1.0, 2.0, 3.0])
def test_batches_of_all_that_waits(rate: float) -> None:
    """Mean batch size and latency are those of the chain, and below the closed form of Inoue."""
    report = simulate(
        Greedy(10**9), Poisson(rate, seed=4, n=60_000), CostModel(TAU, per_item=ALPHA)
    )
    jobs, wait, latency = Bulk(rate, ALPHA, TAU, most=10**9).solve()
    error = standard_error(report)

    latency_agrees(report, "mean", latency)
    agrees(report.queue_time.mean, wait, error, most=0.1)
    assert report.mean_batch_size == pytest.approx(jobs, rel=0.02)
    bound = latency_bound(rate, ALPHA, TAU)
    assert latency <= bound
    assert report.latency.mean <= bound + ERRORS * error
    # The abstract calls it well approximated.
    assert report.latency.mean == pytest.approx(bound, rel=0.1)


@pytest.mark.parametrize("tau", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("load", [0.01, 0.1, 0.3, 0.5, 0.7, 0.85])
def test_the_bound_of_inoue_is_one(load: float, tau: float) -> None:
    """The closed form is near the chain's exact latency, at any load and fixed share."""
    chain = Bulk(rate=load, each=1.0, fixed=tau, most=10**9, states=700)
    jobs, _, latency = chain.solve()
    bound = latency_bound(load, 1.0, tau)

    rounding = 1 + 1e-9
    assert max(1.0, load * tau / (1 - load)) <= jobs * rounding
    assert jobs <= (load * tau + 1) / (1 - load) * rounding
    assert 0.8 * bound <= latency <= bound * rounding


@pytest.mark.parametrize(("rate", "most"), [(0.5, 1), (1.0, 4), (1.7, 4), (2.5, 16)])
def test_batches_with_a_limit(rate: float, most: int) -> None:
    """With a limited batch size, `Greedy` has the batch size, wait and latency of the chain."""
    cost = CostModel(TAU, per_item=ALPHA)
    report = simulate(Greedy(most), Poisson(rate, seed=7, n=80_000), cost)
    jobs, wait, latency = Bulk(rate, ALPHA, TAU, most).solve()

    latency_agrees(report, "mean", latency)
    agrees(report.queue_time.mean, wait, standard_error(report), most=0.05)
    assert report.mean_batch_size == pytest.approx(jobs, rel=0.01)


def test_the_chain_is_m_d_1_for_one_at_a_time() -> None:
    """The theory is consistent: the chain gives Pollaczek-Khinchine for equal service times."""
    jobs, wait, latency = Bulk(rate=0.6, each=0.0, fixed=1.0, most=1).solve()

    assert jobs == pytest.approx(1.0)
    assert wait == pytest.approx(0.6 / (2 * 0.4))
    assert latency == pytest.approx(1.0 + wait)


def test_a_load_beyond_the_capacity_grows_without_end() -> None:
    """If rate * alpha > 1, batches and latency grow without limit."""
    asked = Poisson(1.1 / ALPHA, seed=2, n=30_000)
    report = simulate(Greedy(10**9), asked, CostModel(TAU, per_item=ALPHA))
    sizes = [batch.size for batch in report.batches]

    assert sizes[-1] > 0.05 * 30_000
    assert report.throughput < 0.99 / ALPHA
