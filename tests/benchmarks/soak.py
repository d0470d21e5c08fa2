"""Soak test with every fault at random: ``python -m tests.benchmarks.soak [SECONDS] [SEED]``.

64 clients send good, poisoned, slow, large, deadly, malformed and abandoned requests over HTTP,
while the policy is swapped every second and a dead worker is restarted. Every request must get a
right answer, and memory, threads and open files must not grow (`growth` defines that). The exit
status is 1 if one of these rules does not hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import random
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import httpx
import psutil

from notebook_serve import Greedy, LengthAware, NoBatching, Server, Stats, Window, serve
from notebook_serve.queueing.stats import KEEP_REQUESTS
from notebook_serve.testing import Faulty

from ..helpers.blocking_model import eventually

CLIENTS = 64
QUEUE = 200
POLICIES = (NoBatching(), Greedy(4), Greedy(16), Window(8, 0.002), LengthAware(16))
REJECTED = {503, 504}
#: right statuses of each kind of request
RIGHT = {
    "good": {200} | REJECTED,
    "list": {200} | REJECTED,
    "poison": {500} | REJECTED,
    "miscount": {500} | REJECTED,
    "slow": {200} | REJECTED,
    "large": {500} | REJECTED,
    "death": REJECTED,
    "hasty": {200} | REJECTED,
    "malformed": {400} | REJECTED,
}
#: kinds of request to draw from; a "death" is rarer still
KINDS = ["good"] * 20 + ["list"] * 3 + sorted(set(RIGHT) - {"good", "list", "death"})
#: MB that memory may grow between two thirds of a run, with a full record log
SLACK = 2.0


class Sample(NamedTuple):
    """Resources of this process, which is server and clients, at one moment."""

    #: resident, in MB
    memory: float
    threads: int
    #: open files, sockets among them
    files: int

    @classmethod
    def now(cls) -> Sample:
        """Take a sample."""
        me = psutil.Process()
        return cls(me.memory_info().rss / 1e6, me.num_threads(), me.num_fds())


def growth(before: Sample, samples: Sequence[Sample], after: Sample) -> list[str]:
    """Return messages about growth; none if all is well.

    `before` and `after` are taken at rest, without clients; `samples`, nine or more, under load.
    The first third of the samples is the warm-up. The typical memory of the last third may exceed
    that of the second by `SLACK`. The last third may not have more threads than before. Files may
    be three for each client: both ends of its connection, and the server's end of an abandoned one,
    which is closed a moment later. At rest again, threads and files must be as before.
    """
    third = len(samples) // 3
    assert third >= 3, "too few samples: nine are needed"
    earlier, second, last = samples[:-third], samples[-2 * third : -third], samples[-third:]
    found = []
    grown = typical_memory(last) - typical_memory(second)
    if grown > SLACK:
        found.append(f"memory by {grown:.1f} MB from the second third to the last")
    most, known = (max(sample.threads for sample in some) for some in (last, earlier))
    if most > known:
        found.append(f"threads from {known} to {most}")
    most, allowed = max(sample.files for sample in last), before.files + 3 * CLIENTS
    if most > allowed:
        found.append(f"files from {before.files} to {most} under {CLIENTS} clients")
    for name in ("threads", "files"):
        known, left = getattr(before, name), getattr(after, name)
        if left > known:
            found.append(f"{name} from {known} to {left} when all clients had gone")
    return found


def typical_memory(samples: Sequence[Sample]) -> float:
    """Return the median of the memory, in MB."""
    return statistics.median(sample.memory for sample in samples)


@dataclass
class Soak:
    """Requests, answers and resources of one soak test."""

    seed: int
    before: Sample
    sent: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    after: Sample = field(default=Sample(0.0, 0, 0))

    def faults(self) -> list[str]:
        """Return the rules that do not hold."""
        sent, answered = self.sent.total(), self.answered.total()
        unanswered = [f"{sent} requests had {answered} answers"] if sent != answered else []
        grown = growth(self.before, self.samples, self.after)
        return unanswered + self.wrong + [f"grown: {what}" for what in grown]


class RandomRequest(NamedTuple):
    """One request of a random kind."""

    kind: str
    text: str
    content: str | bytes
    headers: dict[str, str]

    @classmethod
    def draw(cls, rng: random.Random) -> RandomRequest:
        """Draw a request."""
        kind = "death" if rng.random() < 0.001 else rng.choice(KINDS)
        length = rng.randrange(100 if kind == "list" else 300)
        text = f"{kind} {rng.randrange(10**6)} " + "x" * length
        as_json = {"content-type": "application/json"}
        if kind == "list":
            return cls(kind, text, json.dumps({"inputs": [text] * 3}), as_json)
        if kind == "malformed":
            return cls(kind, text, b'{"inputs": ', as_json)
        if kind == "large":
            text += "x" * 20_000
        return cls(kind, text, text, {"X-Request-Timeout": "0.001"} if kind == "hasty" else {})

    def is_right(self, response: httpx.Response) -> bool:
        """Return True if the answer or the rejection is right."""
        if response.status_code != 200:
            return response.status_code in RIGHT[self.kind]
        expected = [self.text.upper()] * 3 if self.kind == "list" else self.text.upper()
        return 200 in RIGHT[self.kind] and bool(response.json() == expected)


def shout(texts: list[str]) -> list[str]:
    """Return the texts in capitals; the model of the test."""
    return [text.upper() for text in texts]


shout.length = len  # type: ignore[attr-defined]


async def one_request(client: httpx.AsyncClient, url: str, rng: random.Random, soak: Soak) -> None:
    """Send a random request and check its answer; abandon some requests at once."""
    request = RandomRequest.draw(rng)
    soak.sent[request.kind] += 1
    # By httpx's timeout: if a task is cancelled while httpx closes connections that the server has
    # closed, httpx leaks the rest of them.
    abandons = rng.random() < 0.05
    patience = httpx.Timeout(60, read=0.001) if abandons else client.timeout
    try:
        response = await client.post(
            url, content=request.content, headers=request.headers, timeout=patience
        )
    except httpx.ReadTimeout:
        if not abandons:
            raise
        soak.answered["abandoned"] += 1
        return
    soak.answered[f"{request.kind} {response.status_code}"] += 1
    if not request.is_right(response):
        soak.wrong.append(f"{request.kind}: {response.status_code} {response.text[:200]}")


async def disturb(server: Server, rng: random.Random, seconds: float, soak: Soak) -> None:
    """Swap the policy, restart dead workers and take samples, for some seconds."""
    rounds = max(12, round(seconds))
    for _ in range(rounds):
        await asyncio.sleep(seconds / rounds)
        server.policy = rng.choice(POLICIES)
        await asyncio.to_thread(server.start)  # no effect while the worker is alive
        soak.samples.append(Sample.now())


async def load(server: Server, seconds: float, soak: Soak) -> None:
    """Load a server for some seconds."""
    over = asyncio.Event()
    first, *rngs = [random.Random(soak.seed + n) for n in range(CLIENTS + 1)]

    async def client_of(rng: random.Random) -> None:
        while not over.is_set():
            await one_request(client, server.url, rng, soak)

    async with httpx.AsyncClient(
        limits=httpx.Limits(max_connections=CLIENTS), timeout=60
    ) as client:
        clients = asyncio.gather(*map(client_of, rngs))
        await disturb(server, first, seconds, soak)
        over.set()
        await clients


def run(server: Server, seconds: float, seed: int) -> Soak:
    """Soak a new server."""
    # Fill the record log, and open the resources of a first client, so that neither is growth.
    server.policy = NoBatching()
    for _ in range(KEEP_REQUESTS // QUEUE):
        server.predict(["fill"] * QUEUE)
    assert httpx.post(server.url, content="first").json() == "FIRST"
    soak = Soak(seed, before=Sample.now())
    asyncio.run(load(server, seconds, soak))
    server.start()  # the worker may have died last
    assert server.predict("still there") == "STILL THERE"
    gc.collect()
    with contextlib.suppress(AssertionError):  # `growth` judges
        eventually(
            lambda: Sample.now().files <= soak.before.files, "all connections are closed", 10.0
        )
    soak.after = Sample.now()
    return soak


def soak(seconds: float, seed: int) -> tuple[Soak, Stats]:
    """Soak a new server; return the results and the last statistics."""
    model = Faulty(
        shout,
        fail_on="poison",
        miscount_on="miscount",
        slow_on="slow",
        seconds=0.02,
        out_of_memory_over=10_000,
        die_on="death",
    )
    server = serve(model, port=0, timeout=5.0, max_queue_size=QUEUE, name="soak")
    try:
        made = run(server, seconds, seed)
    finally:
        server.stop()
    return made, server.stats()


def main() -> None:
    """Soak, and print the results as JSON."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 300.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(2**32)
    made, stats = soak(seconds, seed)
    third = len(made.samples) // 3
    thirds = [made.samples[n * third : (n + 1) * third] for n in range(3)]
    faults = made.faults()
    result = {
        "seed": seed,
        "seconds": seconds,
        "sent": made.sent.total(),
        "answered": made.answered.total(),
        "by_status": dict(sorted(made.answered.items())),
        "memory_mb_of_each_third": [round(typical_memory(some), 2) for some in thirds],
        "most_threads_of_each_third": [max(sample.threads for sample in some) for some in thirds],
        "most_files_of_each_third": [max(sample.files for sample in some) for some in thirds],
        "before": made.before,
        "after": made.after,
        "outcomes_since_the_last_start": dict(stats.outcomes),
        "faults": faults[:10],
    }
    print(json.dumps(result, indent=2))  # noqa: T201
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
