"""Every fault at random, for as long as you like: ``python -m tests.benchmarks.soak [SECONDS]``.

64 clients send good, poisoned, slow, large, deadly, malformed and abandoned requests over HTTP,
while the policy is swapped every second and a dead worker is started again. Every request must be
answered, and rightly; and memory, threads and open files must not grow (`growth` says what that
means). The exit status is 1 if anything of that is not so.
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
REFUSED = {503, 504}
#: what each kind of request may be answered with
RIGHT = {
    "good": {200} | REFUSED,
    "list": {200} | REFUSED,
    "poison": {500} | REFUSED,
    "miscount": {500} | REFUSED,
    "slow": {200} | REFUSED,
    "large": {500} | REFUSED,
    "death": REFUSED,
    "hasty": {200} | REFUSED,
    "malformed": {400} | REFUSED,
}
#: one of these is drawn at random; a "death" is rarer still
KINDS = ["good"] * 20 + ["list"] * 3 + sorted(set(RIGHT) - {"good", "list", "death"})
#: MB that the allocator may still take between two thirds of a run, with every record kept
SLACK = 2.0


class Sample(NamedTuple):
    """What this process, server and clients together, holds at one moment."""

    #: resident, in MB
    memory: float
    threads: int
    #: open files, sockets among them
    files: int

    @classmethod
    def now(cls) -> Sample:
        """Look."""
        me = psutil.Process()
        return cls(me.memory_info().rss / 1e6, me.num_threads(), me.num_fds())


def growth(before: Sample, samples: Sequence[Sample], after: Sample) -> list[str]:
    """What has grown, in words; nothing if all is well.

    `before` and `after` are taken at rest, without clients; `samples`, nine or more, under load.
    The first third of those is for warming up. The typical memory of the last third must not be
    above that of the second by more than `SLACK`. In the last third there must be no thread more
    than ever before. Files may be both ends of every client's connection, and as many again: a
    server closes its end of an abandoned one a moment later. At rest again, all of both are gone.
    """
    third = len(samples) // 3
    assert third >= 3, "too few samples to say"
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
    """The median, in MB."""
    return statistics.median(sample.memory for sample in samples)


@dataclass
class Soak:
    """What was sent, what came back, and what the process held."""

    seed: int
    before: Sample
    sent: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    after: Sample = field(default=Sample(0.0, 0, 0))

    def faults(self) -> list[str]:
        """All that is not as it must be."""
        sent, answered = self.sent.total(), self.answered.total()
        unanswered = [f"{sent} requests had {answered} answers"] if sent != answered else []
        grown = growth(self.before, self.samples, self.after)
        return unanswered + self.wrong + [f"grown: {what}" for what in grown]


class Ask(NamedTuple):
    """One request of a random kind."""

    kind: str
    text: str
    content: str | bytes
    headers: dict[str, str]

    @classmethod
    def drawn(cls, rng: random.Random) -> Ask:
        """Draw one."""
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
        """Whether it is answered, or refused, as it should be."""
        if response.status_code != 200:
            return response.status_code in RIGHT[self.kind]
        expected = [self.text.upper()] * 3 if self.kind == "list" else self.text.upper()
        return 200 in RIGHT[self.kind] and bool(response.json() == expected)


def shout(texts: list[str]) -> list[str]:
    """What the model does."""
    return [text.upper() for text in texts]


shout.length = len  # type: ignore[attr-defined]


async def one_request(client: httpx.AsyncClient, url: str, rng: random.Random, soak: Soak) -> None:
    """Send a request of a random kind and check what comes back; leave some of them at once."""
    ask = Ask.drawn(rng)
    soak.sent[ask.kind] += 1
    # By httpx's own timeout: a task that is cancelled while httpx closes the connections which the
    # server has hung up loses the rest of them, open.
    leaves = rng.random() < 0.05
    patience = httpx.Timeout(60, read=0.001) if leaves else client.timeout
    try:
        response = await client.post(
            url, content=ask.content, headers=ask.headers, timeout=patience
        )
    except httpx.ReadTimeout:
        if not leaves:
            raise
        soak.answered["abandoned"] += 1
        return
    soak.answered[f"{ask.kind} {response.status_code}"] += 1
    if not ask.is_right(response):
        soak.wrong.append(f"{ask.kind}: {response.status_code} {response.text[:200]}")


async def disturb(server: Server, rng: random.Random, seconds: float, soak: Soak) -> None:
    """For some seconds swap the policy, start a dead worker again, and take samples."""
    rounds = max(12, round(seconds))
    for _ in range(rounds):
        await asyncio.sleep(seconds / rounds)
        server.policy = rng.choice(POLICIES)
        await asyncio.to_thread(server.start)  # does nothing if the worker lives
        soak.samples.append(Sample.now())


async def load(server: Server, seconds: float, soak: Soak) -> None:
    """Load `server` for some seconds."""
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
    """Soak a server that has just been started."""
    # As many records as are ever kept, so that their filling up is not taken for growth; and
    # what a process opens with its first client and then keeps.
    server.policy = NoBatching()
    for _ in range(KEEP_REQUESTS // QUEUE):
        server.predict(["fill"] * QUEUE)
    assert httpx.post(server.url, content="first").json() == "FIRST"
    soak = Soak(seed, before=Sample.now())
    asyncio.run(load(server, seconds, soak))
    server.start()  # if the last of it was the worker's death
    assert server.predict("still there") == "STILL THERE"
    gc.collect()
    with contextlib.suppress(AssertionError):  # `growth` judges
        eventually(lambda: Sample.now().files <= soak.before.files, "all are hung up", 10.0)
    soak.after = Sample.now()
    return soak


def soak(seconds: float, seed: int) -> tuple[Soak, Stats]:
    """Soak a server of its own; what came of it, and the server's last statistics."""
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
    """Soak, and print what came of it as JSON."""
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
