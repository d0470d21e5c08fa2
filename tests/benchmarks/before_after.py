"""Two checkouts compared: ``python -m tests.benchmarks.before_after OTHER_CHECKOUT [ROUNDS]``.

Measures this checkout and another in turn, and swaps their order in every round: a function that
does nothing, with 32 clients and with one; and the classifier of the other benchmarks on one torch
thread, with one client (short texts) and with 32 (mixed texts). Each measurement has a fresh server
process, which imports its own checkout. Both are loaded by the client of this checkout.

Prints the ratios of this checkout to the other: the median, the smallest and the largest of the
rounds. Run nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tests.benchmarks.peers.client import Client, Load, end, free_port
from tests.benchmarks.workload import inputs_of

HERE = Path(__file__).parents[2]
#: the server of a checkout; it ends if another checkout's package is imported
SERVER = """
import sys, threading
from pathlib import Path
import notebook_serve

root, model, port = sys.argv[1:]
found = Path(notebook_serve.__file__).parents[1]
if found != Path(root):
    raise SystemExit(f"imported {found} instead of {root}")
if model == "no-op":
    server = notebook_serve.serve(lambda inputs: inputs, port=int(port))
else:
    from tests.benchmarks.workload import classifier

    server = notebook_serve.serve(loader=classifier, port=int(port), timeout=120.0)
    server.wait_ready()
threading.Event().wait()
"""


class Setup(NamedTuple):
    """A model, a kind of texts, and a number of clients in a closed loop."""

    model: str
    kind: str
    clients: int

    def __str__(self) -> str:
        what = self.model if self.model == "no-op" else self.kind
        return f"{what}, {self.clients} client{'s' * (self.clients > 1)}"


#: setups that are measured, and the figures that are compared
SETUPS: dict[Setup, tuple[str, ...]] = {
    Setup("no-op", "short", 32): ("throughput", "cpu"),
    Setup("no-op", "short", 1): ("p50", "cpu"),
    Setup("classifier", "short", 1): ("p50",),
    Setup("classifier", "mixed", 32): ("throughput", "p50", "p99"),
}

#: loads of one checkout, by setup
Loads = dict[Setup, Load]


def measure(checkout: Path, setup: Setup, seconds: float) -> Load:
    """Start a server of a checkout, load it, and end it."""
    port = free_port()
    environment = {
        **os.environ,
        "PYTHONPATH": str(checkout),
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(checkout), setup.model, str(port)],
        cwd=checkout,
        env=environment,
        start_new_session=True,
    )
    bodies = [(text.encode(), "text/plain") for text in inputs_of(setup.kind)]
    client = Client(process.pid, f"http://127.0.0.1:{port}/", bodies)
    try:
        asyncio.run(client.ready())
        load = asyncio.run(client.closed(setup.clients, seconds, warmup=seconds / 2))
    finally:
        end(process)
    if load.errors:
        raise RuntimeError(f"{setup}: {load.errors} requests failed with {checkout}")
    return load


def one_round(checkouts: Sequence[Path], seconds: float) -> list[Loads]:
    """Measure all setups with each checkout; return the loads in the order of the checkouts."""
    found: list[Loads] = [{} for _ in checkouts]
    for setup in SETUPS:
        for checkout, loads in zip(checkouts, found, strict=True):
            loads[setup] = measure(checkout, setup, seconds)
            print(setup, checkout, loads[setup], file=sys.stderr, flush=True)  # noqa: T201
    return found


def ratios(ours: Sequence[Loads], others: Sequence[Loads]) -> dict[str, list[float]]:
    """Return, by setup and figure, the ratio of this checkout to the other in each round."""
    return {
        f"{setup}: {figure}": [
            getattr(one[setup], figure) / getattr(other[setup], figure)
            for one, other in zip(ours, others, strict=True)
        ]
        for setup, figures in SETUPS.items()
        for figure in figures
    }


def table(found: dict[str, list[float]]) -> str:
    """Return a table in Markdown: median, smallest and largest ratio."""
    rows = ["| this checkout / the other | median | from | to |", "|---|---|---|---|"]
    rows += [
        f"| {name} | {median(values):.3f} | {min(values):.3f} | {max(values):.3f} |"
        for name, values in found.items()
    ]
    return "\n".join(rows)


def main() -> None:
    """Measure, and print the table and the figures of each round as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", type=Path, metavar="OTHER_CHECKOUT")
    parser.add_argument("rounds", type=int, nargs="?", default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    options = parser.parse_args()
    other = options.other.resolve()
    if not (other / "notebook_serve").is_dir():
        parser.error(f"{other} has no folder notebook_serve; name the root of a checkout")
    ours: list[Loads] = []
    others: list[Loads] = []
    for number in range(options.rounds):
        if number % 2 == 0:
            one, two = one_round((HERE, other), options.seconds)
        else:
            two, one = one_round((other, HERE), options.seconds)
        ours.append(one)
        others.append(two)
    found = ratios(ours, others)
    print(table(found))  # noqa: T201
    print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main()
