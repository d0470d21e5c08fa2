"""Our server against the upper bounds: ``python -m tests.benchmarks.upper_bounds [ROUNDS]``.

With a word after the rounds, only the measures that have it in their name; the others stay as the
last result has them.

Each figure is a ratio of two things, or one added to the other, measured in turn in programs of
their own, and the median of several rounds:

- throughput: 128 clients over HTTP, beside the forward alone on the same texts, tokenised and
  sorted by length before, at the best batch size; and 32 and 128, beside what the default policy
  would do for them, simulated, if nothing but the forward took any time;
- latency: one client over HTTP, beside ``pipe(x)`` in a loop;
- a function that does nothing, asked over 32 connections by wrk (Debian's package), beside a bare
  Starlette handler;
- memory that the server adds to a loaded pipeline, seconds from ``serve(pipe)`` until the first
  answer, CPU of an idle server, and the seconds of a decision of ``LengthAware`` at 10,000 waiting.

The model is that of the peers, on one torch thread. Nothing else should run meanwhile. The result
goes to ``results/upper_bounds.json``.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.peers.client import Client, end, free_port
from tests.benchmarks.peers.peer_process import running
from tests.benchmarks.peers.setups import PEERS
from tests.benchmarks.workload import classifier, inputs_of, machine

RESULT = Path(__file__).parent / "results" / "upper_bounds.json"
SIZES = (8, 16, 32, 64)
#: of each measurement
SECONDS = 5.0


# -- what runs in a program of its own ----------------------------------------------------


def forward(
    kind: str, size: str = "small", sizes: Sequence[int] = SIZES, seconds: float = SECONDS
) -> dict[str, float]:
    """Texts per second by batch size: the forward alone, on texts tokenised and sorted before."""
    import torch

    pipe = classifier(size)
    texts = inputs_of(kind)
    tokens = sorted(pipe.tokenizer(texts)["input_ids"], key=len)
    found = {}
    with torch.inference_mode():
        for many in sizes:
            batches = [
                pipe.tokenizer.pad({"input_ids": tokens[i : i + many]}, return_tensors="pt").to(
                    pipe.device
                )
                for i in range(0, len(tokens), many)
            ]
            pipe.model(**batches[0])
            done, begun, turn = 0, time.perf_counter(), 0
            # From both ends and the middle in turn, so that a part of a pass is like the whole.
            order = [
                batch for part in (batches[::3], batches[1::3], batches[2::3]) for batch in part
            ]
            while turn % len(order) or time.perf_counter() - begun < seconds / len(sizes):
                batch = order[turn % len(order)]
                pipe.model(**batch).logits.cpu()
                done += batch["input_ids"].shape[0]
                turn += 1
            found[str(many)] = done / (time.perf_counter() - begun)
    return found


def simulated(kind: str, clients: int) -> float:
    """Answers per second that the default policy gives if nothing but the forward takes time.

    The forward's cost is measured on batches of the kind's own lengths, and put into the simulator
    with neither noise nor any of a server's costs.
    """
    from notebook_serve import CostAware, CostModel, calibrate, simulate
    from notebook_serve.queueing.cost_model import TERMS
    from notebook_serve.traffic import ClosedLoop, Empirical

    pipe = classifier()
    lengths = sorted(map(len, pipe.tokenizer(inputs_of(kind))["input_ids"]))
    some = sorted({lengths[round(share * (len(lengths) - 1) / 4)] for share in range(5)})
    cost = calibrate(pipe, some, (1, 2, 4, 8, 16, 32), repeats=1)
    forward = CostModel(**{term: getattr(cost, term) for term in TERMS})
    inputs, loop = Empirical(lengths), ClosedLoop(clients)
    return simulate(CostAware(), loop, forward, lengths=inputs, duration=60.0).throughput


def alone() -> float:
    """Seconds of ``pipe(x)``, the median over short texts."""
    pipe = classifier()
    texts = inputs_of("short")
    times = []
    for text in texts[:20] + texts[: round(SECONDS / 0.015)]:
        begun = time.perf_counter()
        pipe(text)
        times.append(time.perf_counter() - begun)
    return median(times[20:])


def memory() -> float:
    """Megabytes that serving a thousand requests adds to a loaded pipeline that has run."""
    import psutil

    from notebook_serve import serve

    pipe = classifier()
    for text in inputs_of("mixed")[:100]:
        pipe(text)
    process = psutil.Process()
    before = process.memory_full_info().uss
    with serve(pipe, port=0, name="memory") as server:
        child("ask", process.pid, server.url)  # who asks has memory of its own
        return float(process.memory_full_info().uss - before) / 1e6


def ask(process: int, url: str) -> float:
    """Ask for mixed texts with 32 clients; answers per second."""
    bodies = [(text.encode(), "text/plain") for text in inputs_of("mixed")]
    return asyncio.run(Client(process, url, bodies).closed(32, SECONDS)).throughput


def first_answer() -> float:
    """Seconds from ``serve(pipe)`` of a loaded pipeline until the first answer over HTTP."""
    import httpx

    from notebook_serve import serve

    pipe = classifier()
    pipe("warm")
    client = httpx.Client()
    begun = time.perf_counter()
    server = serve(pipe, port=0, name="first")
    client.post(server.url, content="hello there").raise_for_status()
    seconds = time.perf_counter() - begun
    server.stop()
    return seconds


def idle() -> float:
    """The share of a core that a server uses which nobody asks."""
    from notebook_serve import serve

    server = serve(lambda xs: xs, port=0, name="idle")
    server.predict(1)
    before = time.process_time()
    time.sleep(2 * SECONDS)
    share = (time.process_time() - before) / (2 * SECONDS)
    server.stop()
    return share


def decision() -> float:
    """Seconds of a decision of ``LengthAware`` where 10,000 wait; the median."""
    from notebook_serve import LengthAware, Scheduler
    from notebook_serve.queueing.jobs import Job
    from notebook_serve.traffic import LogNormal

    scheduler = Scheduler(LengthAware())
    lengths = LogNormal(22, 0.9, 4, 128).sample(11_000)
    for number, length in enumerate(lengths[:10_000]):
        scheduler.offer(Job(number, 0.0, length))
    times = []
    for number in range(10_000, 11_000):
        begun = time.perf_counter()
        batch = scheduler.poll(1.0)
        times.append(time.perf_counter() - begun)
        assert batch is not None
        for i, job in enumerate(batch.jobs):  # as many wait at each decision
            scheduler.offer(Job(number * 100 + i, 0.0, job.length))
    return median(times)


def noop(port: int) -> None:
    """Serve a function that does nothing, for ever."""
    from notebook_serve import serve

    serve(lambda xs: xs, port=port, name="noop")
    threading.Event().wait()


def bare(port: int) -> None:
    """A Starlette handler that answers with the body, under uvicorn as it comes, for ever."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def answer(request: Request) -> JSONResponse:
        return JSONResponse((await request.body()).decode())

    app = Starlette(routes=[Route("/", answer, methods=["POST"])])
    uvicorn.run(app, port=port, log_config=None, access_log=False)


CHILDREN: dict[str, Callable[..., Any]] = {
    child.__name__: child
    for child in (forward, simulated, alone, memory, ask, first_answer, idle, decision, noop, bare)
}


# -- who asks -----------------------------------------------------------------------------


def child(name: str, *arguments: object) -> Any:
    """What a child says."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.benchmarks.upper_bounds",
            "--child",
            name,
            *map(str, arguments),
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return json.loads(done.stdout)


def throughput(kind: str, clients: int, name: str, limit: Callable[[], float]) -> dict[str, float]:
    """Answers per second, beside a limit that is measured before and after."""
    before = limit()
    with running(PEERS["notebook_serve"]) as asker:
        served = asker.closed(kind, clients, 2 * SECONDS, warmup=2.0).throughput
    most = (before + limit()) / 2
    return {"served": served, name: most, "ratio": served / most}


def beside_forward(kind: str) -> dict[str, float]:
    """128 clients, beside the forward alone."""
    return throughput(kind, 128, "forward", lambda: max(child("forward", kind).values()))


def beside_simulated(kind: str, clients: int) -> dict[str, float]:
    """Beside what the same policy could do if only the forward took time."""
    return throughput(kind, clients, "simulated", lambda: float(child("simulated", kind, clients)))


def latency() -> dict[str, float]:
    """One client, beside ``pipe(x)``."""
    before = child("alone")
    with running(PEERS["notebook_serve"]) as asker:
        served = asker.closed("short", 1, SECONDS).p50
    pipe = (before + child("alone")) / 2
    return {"served": served, "pipe": pipe, "added": served - pipe, "allowed": 0.05 * pipe + 1e-3}


def per_second(name: str, connections: int) -> float:
    """Requests per second that wrk gets from a child."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.upper_bounds", "--child", name, str(port)]
    )
    script = Path(__file__).with_name("post.lua")
    url = f"http://127.0.0.1:{port}/"
    try:
        asyncio.run(Client(process.pid, url, [(b"x", "text/plain")]).ready())
        said = ""
        for seconds in (1, SECONDS):  # the first to warm up
            said = subprocess.run(
                ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "-s", str(script), url],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        if "Non-2xx" in said or "Socket errors" in said:
            raise RuntimeError(f"{name} did not answer everything:\n{said}")
        return float(said.split("Requests/sec:")[1].split()[0])
    finally:
        end(process)


def overhead(connections: int) -> dict[str, float]:
    """The function that does nothing, beside Starlette alone."""
    ours, theirs = per_second("noop", connections), per_second("bare", connections)
    return {"served": ours, "bare": theirs, "ratio": ours / theirs}


def medians(rows: list[Any]) -> Any:
    """The median, by name where there are names."""
    if isinstance(rows[0], dict):
        return {name: median(row[name] for row in rows) for name in rows[0]}
    return median(rows)


def main() -> None:
    """Measure, print and keep; or be a child."""
    if sys.argv[1:2] == ["--child"]:
        said = CHILDREN[sys.argv[2]](
            *(int(text) if text.isdecimal() else text for text in sys.argv[3:])
        )
        print(json.dumps(said))  # noqa: T201
        return
    if not shutil.which("wrk"):
        raise SystemExit("wrk is not installed; it is Debian's package of that name")
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    measures: dict[str, Callable[[], Any]] = {
        "mixed, 128 clients / the forward alone": lambda: beside_forward("mixed"),
        "short, 128 clients / the forward alone": lambda: beside_forward("short"),
        "mixed, 32 clients / simulated": lambda: beside_simulated("mixed", 32),
        "mixed, 128 clients / simulated": lambda: beside_simulated("mixed", 128),
        "short, 32 clients / simulated": lambda: beside_simulated("short", 32),
        "one client + pipe(x)": latency,
        "no-op, 32 connections / bare Starlette": lambda: overhead(32),
        "no-op, 1 connection / bare Starlette": lambda: overhead(1),
        "memory added, MB": lambda: child("memory"),
        "first answer, s": lambda: child("first_answer"),
        "idle, share of a core": lambda: child("idle"),
        "decision at 10,000 waiting, s": lambda: child("decision"),
    }
    found: dict[str, list[Any]] = {name: [] for name in measures}
    if len(sys.argv) > 2:
        kept = json.loads(RESULT.read_text("utf-8"))["rounds"]
        measures = {name: each for name, each in measures.items() if sys.argv[2] in name}
        found = {name: [] if name in measures else kept[name] for name in found}
    for _ in range(rounds):
        for name, measure in measures.items():
            found[name].append(measure())
            print(name, found[name][-1], file=sys.stderr, flush=True)  # noqa: T201
    result = {
        "machine": machine(),
        "medians": {name: medians(rows) for name, rows in found.items()},
        "rounds": found,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(json.dumps(result["medians"], indent=1))  # noqa: T201


if __name__ == "__main__":
    main()
