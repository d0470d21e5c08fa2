"""Torch threads and busy programs: ``python -m tests.benchmarks.neighbours [ROUNDS]``.

Serves the classifier of the other benchmarks over HTTP, on a worker thread and in a worker process:
with one torch thread, with all, and with the default, which adapts the number. A process with all
threads is measured twice: with threads that wait passively, as worker processes do, and with
threads that spin, as torch does by default. Each way is measured on an idle machine, with one busy
program, and with one per core, in turn, round by round. Run nothing else meanwhile.

The summary has medians of the rounds; ``beside`` is the ratio of throughput to one thread in the
same round. The result goes to ``results/neighbours.json``. Other options: ``--cells short,16
mixed,16`` and ``--busy 0 1 2``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from notebook_serve.workers.torch_settings import list_cores
from tests.benchmarks.peers.setups import PEERS, Peer
from tests.benchmarks.side_by_side import Cell, Found, measure, summary
from tests.benchmarks.workload import machine

RESULT = Path(__file__).parent / "results" / "neighbours.json"
WORKERS = {"thread": "notebook_serve", "process": "notebook_serve_process"}
CELLS = ("mixed,16", "short,16")
#: number of turns that GNU's runtime spins for by default
SPINNING = {"GOMP_SPINCOUNT": "300000"}


def ways(all_cores: int) -> tuple[dict[str, Peer], dict[str, str]]:
    """Return the ways to measure, and for each the one that it is compared with."""
    made: dict[str, Peer] = {}
    beside: dict[str, str] = {}
    for worker, name in WORKERS.items():
        one, every = f"{worker}, 1 thread", f"{worker}, {all_cores} threads"
        settings = {
            one: {"PEER_THREADS": "1"},
            every: {"PEER_THREADS": str(all_cores)},
            f"{worker}, as it comes": {"PEER_THREADS": "own"},
        }
        if worker == "process":
            settings[f"{every}, spinning"] = {"PEER_THREADS": str(all_cores), **SPINNING}
        for way, more in settings.items():
            peer = PEERS[name]
            made[way] = replace(peer, more={**peer.more, **more})
            beside[way] = one
    return made, beside


@contextmanager
def busy(programs: int) -> Iterator[None]:
    """Run a number of programs that compute without end."""
    command = [sys.executable, "-c", "while True: pass"]
    running = [subprocess.Popen(command) for _ in range(programs)]
    try:
        yield
    finally:
        for program in running:
            program.kill()
            program.wait()


def one_round(
    made: dict[str, Peer], order: Sequence[str], cells: Sequence[Cell], programs: int
) -> dict[str, Found]:
    """Measure each way in turn, with a number of busy programs."""
    found = {}
    for way in order:
        with busy(programs):
            found[way] = measure(made[way], cells)
        load = os.getloadavg()[0]
        print(f"beside {programs}, {way}, load {load:.1f}: {found[way]}", file=sys.stderr)  # noqa: T201
    return found


def main() -> None:
    """Measure; print and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rounds", type=int, nargs="?", default=3)
    parser.add_argument("--cells", nargs="+", default=CELLS)
    parser.add_argument("--busy", type=int, nargs="+", default=(0, 1, len(list_cores())))
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    cells = [(kind, int(clients)) for kind, clients in (each.split(",") for each in options.cells)]
    made, beside = ways(len(list_cores()))
    rounds: dict[str, list[dict[str, Found]]] = {}
    for number in range(options.rounds):
        # In alternating order, so that no way always runs after the same one.
        order = list(made) if number % 2 == 0 else list(made)[::-1]
        for programs in options.busy:
            found = one_round(made, order, cells, programs)
            rounds.setdefault(f"{programs} busy programs", []).append(found)
    kept = {
        "machine": machine(len(list_cores())),
        "summary": {name: summary(each, beside) for name, each in rounds.items()},
        "rounds": rounds,
    }
    options.result.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
    print(json.dumps(kept["summary"], indent=1))  # noqa: T201


if __name__ == "__main__":
    main()
