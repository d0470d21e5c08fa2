"""Threads of torch beside busy programs: ``python -m tests.benchmarks.neighbours [ROUNDS]``.

The classifier of the other benchmarks over HTTP, on a worker thread and in a worker process: with
one thread of torch, with all, and as it comes, which adapts the number. A process with all is
measured twice: with threads that wait passively, as worker processes do, and with threads that
spin as usual. Each way is measured on an idle machine, beside one busy program, and beside as many
as there are cores. All are measured in turn, round by round; nothing else should run meanwhile.

The summary has medians of the rounds, and those of the throughput over that with one thread in the
same round as ``beside``. The result goes to ``results/neighbours.json``. Other options:
``--cells short,16 mixed,16`` and ``--busy 0 1 2``.
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
from tests.benchmarks.side_by_side import Cell, Found, measured, summary
from tests.benchmarks.workload import machine

RESULT = Path(__file__).parent / "results" / "neighbours.json"
WORKERS = {"thread": "notebook_serve", "process": "notebook_serve_process"}
CELLS = ("mixed,16", "short,16")
#: a usual number of turns that GNU's runtime spins for
SPINNING = {"GOMP_SPINCOUNT": "300000"}


def ways(all_cores: int) -> tuple[dict[str, Peer], dict[str, str]]:
    """What is measured, and for each what it is compared with."""
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
    """So many programs that compute without end."""
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
    """Measure each way in turn beside so many busy programs."""
    found = {}
    for way in order:
        with busy(programs):
            found[way] = measured(made[way], cells)
        load = os.getloadavg()[0]
        print(f"beside {programs}, {way}, load {load:.1f}: {found[way]}", file=sys.stderr)  # noqa: T201
    return found


def main() -> None:
    """Measure, print and keep."""
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
        # There and back, so that no way always has the machine as another left it.
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
