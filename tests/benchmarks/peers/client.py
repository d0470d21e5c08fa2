"""Client of all peers: aiohttp on warm connections, in a closed or an open loop."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count
from statistics import linear_regression
from typing import Any

import aiohttp
import psutil

from notebook_serve import Distribution
from notebook_serve.traffic import Poisson

#: a body and its content type
Body = tuple[bytes, str]
#: mean number of answers for each client of a closed loop in a measurement, at least; and the
#: seconds after which a measurement ends with fewer
TURNS, LONGEST = 3, 30.0


@dataclass(frozen=True)
class Load:
    """Figures of one load."""

    #: answers per second; in a closed loop by least squares of their count over time, because
    #: answers come in batches, of which a short window may have one more or less
    throughput: float
    #: seconds from the scheduled send time
    p50: float
    p99: float
    #: CPU seconds of all processes of the server, per answer
    cpu: float
    #: answers with another status than 200
    errors: int

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain values."""
        return asdict(self)


class Client:
    """A client of one server."""

    def __init__(self, process: int, url: str, bodies: Sequence[Body]) -> None:
        self._process = psutil.Process(process)
        self._url = url
        self._bodies = bodies
        self._next = count()
        self._session: aiohttp.ClientSession | None = None
        #: time of each answer, and its latency from the scheduled send time
        self._answers: list[tuple[float, float]] = []
        self._errors = 0

    async def ready(self, seconds: float = 180.0) -> None:
        """Wait until the server answers. Raises `TimeoutError` if it does not."""
        deadline = time.monotonic() + seconds
        async with aiohttp.ClientSession() as session:
            while time.monotonic() < deadline:
                if not self._process.is_running() or self._process.status() == "zombie":
                    raise ChildProcessError(f"the server at {self._url} ended")
                try:
                    body, kind = self._bodies[0]
                    async with session.post(
                        self._url, data=body, headers={"Content-Type": kind}
                    ) as reply:
                        await reply.read()
                        if reply.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.2)
        raise TimeoutError(f"no answer from {self._url} within {seconds:g} s")

    async def closed(
        self, clients: int, seconds: float, warmup: float = 1.0, turns: int = TURNS
    ) -> Load:
        """Load with clients that send again at each answer, for `seconds` after a `warmup`.

        The warm-up lasts at least one answer per client on average, the measurement `turns`.
        """
        over = asyncio.Event()

        async def loop() -> None:
            while not over.is_set():
                await self._send(time.monotonic())

        async def all_loops() -> None:
            await asyncio.gather(*(loop() for _ in range(clients)))

        least = clients, turns * clients
        load, window = await self._measure(all_loops, warmup, seconds, least, over)
        times = [at for at, _ in self._answers if window[0] <= at < window[1]]
        if len(set(times)) < 2:
            return load
        rate = linear_regression(times, range(len(times))).slope
        cpu = load.cpu * load.throughput / rate
        return replace(load, throughput=rate, cpu=cpu)

    async def open(self, rate: float, seconds: float, seed: int, warmup: float = 1.0) -> Load:
        """Load with Poisson arrivals, `rate` per second; latency counts from the scheduled time."""
        begun = time.monotonic()

        async def arrivals() -> None:
            tasks = []
            for at in Poisson(rate, seed=seed, n=round(2 * rate * (warmup + seconds))):
                if at > warmup + seconds:
                    break
                while (early := begun + at - time.monotonic()) > 0:
                    await asyncio.sleep(early)
                tasks.append(asyncio.create_task(self._send(begun + at)))
            await asyncio.gather(*tasks)

        load, _ = await self._measure(arrivals, warmup, seconds)
        return load

    async def _measure(
        self,
        load: Callable[[], Awaitable[None]],
        warmup: float,
        seconds: float,
        answers: tuple[int, int] = (0, 0),
        over: asyncio.Event | None = None,
    ) -> tuple[Load, tuple[float, float]]:
        """Measure a load in a window; return the figures and the window; set `over` at its end."""
        self._answers, self._errors = [], 0
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            self._session = session
            task = asyncio.ensure_future(load())
            await self._wait(warmup, answers[0])
            begun, before = time.monotonic(), self._cpu()
            await self._wait(seconds, answers[1])
            end, cpu = time.monotonic(), self._cpu() - before
            if over is not None:
                over.set()
            await task
        answered = [latency for at, latency in self._answers if begun <= at < end]
        # Latencies are those of requests sent in the window, whenever they were answered.
        sent = [latency for at, latency in self._answers if begun <= at - latency < end]
        of = Distribution.of(sent)
        rate = len(answered) / (end - begun)
        found = Load(rate, of.p50, of.p99, cpu / max(1, len(answered)), self._errors)
        return found, (begun, end)

    async def _wait(self, seconds: float, answers: int) -> None:
        """Wait for seconds, and then for a number of answers, but at most `LONGEST`."""
        deadline = time.monotonic() + max(seconds, LONGEST)
        wanted = len(self._answers) + answers
        await asyncio.sleep(seconds)
        while len(self._answers) < wanted and time.monotonic() < deadline:
            await asyncio.sleep(0.01)

    async def _send(self, scheduled: float) -> None:
        body, kind = self._bodies[next(self._next) % len(self._bodies)]
        assert self._session is not None
        try:
            async with self._session.post(
                self._url, data=body, headers={"Content-Type": kind}
            ) as reply:
                await reply.json(content_type=None)
                good = reply.status == 200
        except (aiohttp.ClientError, ValueError):
            good = False
        now = time.monotonic()
        if good:
            self._answers.append((now, now - scheduled))
        else:
            self._errors += 1

    def _cpu(self) -> float:
        """Return the CPU seconds of the server and its child processes so far."""
        total = 0.0
        for process in (self._process, *self._process.children(recursive=True)):
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
        return total


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def end(process: subprocess.Popen[bytes]) -> None:
    """End a server and its child processes."""
    try:
        tree = [psutil.Process(process.pid)]
        tree += tree[0].children(recursive=True)
    except psutil.NoSuchProcess:
        tree = []
    process.terminate()
    _, alive = psutil.wait_procs(tree, timeout=5)
    for each in alive:
        each.kill()
    psutil.wait_procs(alive, timeout=5)
    process.wait()
