"""A worker process against a worker thread: ``python -m tests.benchmarks.processes [SECONDS]``.

Serves the 6-layer classifier on one torch thread per worker. Load comes over HTTP from another
process: 32 clients in a closed loop. Four parts, each with a goal:

- `busy`: a cell runs pure Python meanwhile. Ratio of throughput to that with an idle kernel; the
  goal for the process is 0.85.
- `idle`: with an idle kernel, ratio of a process's throughput to a thread's (goal 0.95), and the
  latency that it adds for one client (goal 1.5 ms).
- `killed`: the worker process is killed ten times within a minute or more. Every request must get
  one right answer.
- `two`: ratio of two workers to one on long texts (goal 1.6), and the error of the simulator with a
  cost model fitted to one worker (goal 15%).

Compared servers run in turn, several times; the figures are medians of the rounds. The result goes
to ``results/processes.json``. Run nothing else meanwhile.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from notebook_serve import Server, load_test, serve, simulate
from notebook_serve.traffic import ClosedLoop, Empirical

from .workload import classifier, inputs_of

CLIENTS = 32
ROUNDS = 3
KILLS = 10
RESULT = Path(__file__).parent / "results" / "processes.json"

#: program of the load over HTTP, which prints its figures
LOAD = """
import json
from notebook_serve import load_test
from tests.benchmarks.workload import inputs_of
report = load_test({url!r}, inputs_of("mixed"), concurrency={clients}, duration={seconds},
                   progress=False)
print(json.dumps([report.throughput, dict(report.outcomes)]))
"""
#: program that loads both servers in turn with one client, and prints their median seconds
ONE = """
import json, statistics, time, httpx
from tests.benchmarks.workload import inputs_of
urls, texts = {urls!r}, inputs_of("mixed")
times, until = [[] for _ in urls], time.perf_counter() + {seconds}
with httpx.Client(timeout=60, trust_env=False) as client:
    for number, text in enumerate(texts * 100):
        for url, taken in zip(urls, times):
            begun = time.perf_counter()
            client.post(url, content=text).raise_for_status()
            taken.append(time.perf_counter() - begun)
        if time.perf_counter() > until:
            break
print(json.dumps([statistics.median(taken) for taken in times]))
"""
#: program of clients in a closed loop until its standard input is closed; prints text, status and
#: answer of each request
ASK = """
import json, sys, threading, urllib.request
from tests.benchmarks.workload import inputs_of
texts, ended, answers = inputs_of("mixed", 200), threading.Event(), []
def client(number):
    at = number
    while not ended.is_set():
        text = texts[at % len(texts)]
        at += 32
        request = urllib.request.Request({url!r}, text.encode(), {{"X-Request-ID": f"r{{at}}"}})
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                answers.append([text, answer.status, json.load(answer)[0]["score"]])
        except urllib.error.HTTPError as error:
            answers.append([text, error.code, json.load(error)["error"]])
        except OSError as error:
            answers.append([text, 0, str(error)])
threads = [threading.Thread(target=client, args=[n]) for n in range(32)]
[thread.start() for thread in threads]
sys.stdin.read()
ended.set()
[thread.join() for thread in threads]
print(json.dumps(answers))
"""


def start_server(name: str, **options: Any) -> Server:
    """Start a server of the classifier, and warm its worker up."""
    server = serve(loader=classifier, port=0, name=name, timeout=60.0, **options)
    server.wait_ready(120)
    server.predict(inputs_of("mixed", 64))
    return server


def load(server: Server, seconds: float, spins: bool = False) -> float:
    """Measure answers per second under load from another process; `spins` runs Python meanwhile."""
    code = LOAD.format(url=server.url, seconds=seconds, clients=CLIENTS)
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while spins and process.poll() is None:
            sum(n * n for n in range(20_000))  # as in a busy cell
        assert process.stdout is not None
        throughput, outcomes = json.loads(process.stdout.read())
    assert sum(outcomes.values()) == outcomes["ok"], outcomes
    return float(throughput)


def start_both() -> tuple[ExitStack, dict[str, Server]]:
    """Start a server with a thread and one with a process; only one is loaded at a time."""
    stack = ExitStack()
    servers = {kind: start_server(kind, worker=kind) for kind in ("thread", "process")}
    for server in servers.values():
        stack.callback(server.stop)
    return stack, servers


def busy(servers: dict[str, Server], seconds: float) -> dict[str, Any]:
    """Measure each kind of worker with a busy cell."""
    result: dict[str, Any] = {}
    for kind, server in servers.items():
        rounds = [
            [load(server, seconds, spins) for spins in (False, True)]
            for _ in range(ROUNDS if kind == "process" else 1)
        ]
        result[kind] = {
            "idle_kernel_per_second": [round(idle, 1) for idle, _ in rounds],
            "busy_kernel_per_second": [round(busy, 1) for _, busy in rounds],
            "ratio": round(statistics.median(busy / idle for idle, busy in rounds), 3),
        }
    return result


def idle(servers: dict[str, Server], seconds: float) -> dict[str, Any]:
    """Measure thread and process in turn, with many clients and with one."""
    many = [
        {kind: load(server, seconds) for kind, server in servers.items()} for _ in range(ROUNDS)
    ]
    urls = [server.url for server in servers.values()]
    code = ONE.format(urls=urls, seconds=3 * seconds)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    one = dict(zip(servers, json.loads(done.stdout), strict=True))
    return {
        "per_second": {kind: [round(pair[kind], 1) for pair in many] for kind in servers},
        "ratio": round(statistics.median(pair["process"] / pair["thread"] for pair in many), 3),
        "one_client_p50_ms": {kind: round(seconds * 1e3, 2) for kind, seconds in one.items()},
        "one_client_p50_more_ms": round((one["process"] - one["thread"]) * 1e3, 2),
    }


def killed(seconds: float) -> dict[str, Any]:
    """Kill the worker process ten times under load."""
    right = dict(zip(texts := inputs_of("mixed", 200), scores(texts), strict=True))
    server = start_server("killed", worker="process", refuse_late=False)
    before = dict(server.stats().outcomes)
    code = ASK.format(url=server.url)
    command = [sys.executable, "-c", code]
    memory: list[int] = []
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as asking:
        begun = time.monotonic()
        for number in range(KILLS):
            # The worker has run a batch since the last kill.
            ran = server.stats().workers[0].batches
            wait_until(partial(has_run, server, ran + 1))
            time.sleep(max(0.0, begun + number * seconds / KILLS - time.monotonic()))
            pid = server.stats().workers[0].pid
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
            memory.append(psutil.Process().memory_info().rss)
        ran = server.stats().workers[0].batches
        wait_until(partial(has_run, server, ran + 5))
        memory.append(psutil.Process().memory_info().rss)
        lasted = time.monotonic() - begun
        printed, _ = asking.communicate()
    answers = json.loads(printed)
    stats = server.stats()
    server.stop()
    wrong = [
        (status, answer)
        for text, status, answer in answers
        if status != 200 or abs(answer - right[text]) > 1e-4
    ]
    return {
        "seconds": round(lasted, 1),
        "sent": len(answers),
        "status": dict(Counter(str(status) for _, status, _ in answers)),
        "wrong": wrong[:5],
        "recorded": sum(stats.outcomes.values()) - sum(before.values()),
        "restarts": dict(stats.restarts),
        "batches_run_again": sum(batch.retries > 0 for batch in server.batches()),
        "notebook_memory_mb": [round(rss / 1e6, 1) for rss in memory],
    }


def scores(texts: list[str]) -> list[float]:
    """Return the right answers, by the pipeline itself."""
    pipe = classifier()
    return [pipe(text)[0]["score"] for text in texts]


def has_run(server: Server, batches: int) -> bool:
    """Return True if the first worker has run more than a number of batches."""
    return server.stats().workers[0].batches > batches


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until a condition is true."""
    while not condition():
        time.sleep(0.02)


def two(seconds: float, worker: str) -> dict[str, Any]:
    """Compare two workers with one on long texts, and with the simulation."""
    texts = inputs_of("long")
    with ExitStack() as stack:
        servers = [start_server(f"{n}", worker=worker, workers=n) for n in (1, 2)]
        for server in servers:
            stack.callback(server.stop)
        ask = partial(
            load_test, inputs=texts, concurrency=CLIENTS, duration=seconds, progress=False
        )
        rounds = [[ask(server) for server in servers] for _ in range(ROUNDS)]
        cost = servers[0].fit_cost()
        simulated = simulate(
            servers[1].policy,
            ClosedLoop(CLIENTS),
            cost,
            lengths=Empirical([record.length for record in rounds[-1][1].records]),
            duration=seconds,
            replicas=2,
            noise=cost.noise,
        )
        shares = [[worker.requests for worker in server.stats().workers] for server in servers]
    measured = statistics.median(pair[1].throughput for pair in rounds)
    return {
        "one_per_second": [round(one.throughput, 1) for one, _ in rounds],
        "two_per_second": [round(both.throughput, 1) for _, both in rounds],
        "ratio": round(statistics.median(b.throughput / a.throughput for a, b in rounds), 3),
        "requests_by_worker": shares[1],
        "simulated_two_per_second": round(simulated.throughput, 1),
        "simulated_off_by": round(simulated.throughput / measured - 1, 3),
    }


def main() -> None:
    """Measure; print and keep the result."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 8.0
    parts = sys.argv[2].split(",") if len(sys.argv) > 2 else ["busy", "idle", "killed", "two"]
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {sys.version.split()[0]}",
        "seconds": seconds,
    }
    if {"busy", "idle"} & set(parts):
        stack, servers = start_both()
        with stack:
            if "idle" in parts:
                result["idle"] = idle(servers, seconds)
            if "busy" in parts:
                result["busy"] = busy(servers, seconds)
    if "killed" in parts:
        result["killed"] = killed(60.0)
    if "two" in parts:
        result["two"] = two(seconds, "process")
        result["two_threads"] = two(seconds, "thread")
    text = json.dumps(result, indent=2)
    print(text)  # noqa: T201
    if len(sys.argv) < 3:
        RESULT.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
