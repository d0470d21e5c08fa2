"""Policies side by side, live: ``python -m tests.benchmarks.policies [ROUNDS]``.

The classifier of the other benchmarks over HTTP, on one torch thread and with a worker thread, in a
server of its own under each policy, in turn: 32 and 128 clients who each ask again at once. This is
what the default policy goes by on a processor. Nothing else should run meanwhile. The result, of
which the summary has medians of the rounds, those of each policy's throughput over the default's
too, goes to ``results/policies.json``.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.peers.asking import running
from tests.benchmarks.peers.setups import PEERS

RESULT = Path(__file__).parent / "results" / "policies.json"
#: the default last
POLICIES = (
    "NoBatching()",
    "Greedy(16)",
    "Window(16, 0.005)",
    "LengthAware()",
    "LengthAware(64)",
    "CostAware()",
)
#: kinds of texts, and numbers of clients
CELLS = (("mixed", 32), ("mixed", 128), ("short", 32), ("short", 128), ("long", 32))
SECONDS = 5.0


def measured(policy: str) -> dict[str, dict[str, float]]:
    """What a server does under a policy, cell by cell."""
    ours = replace(PEERS["notebook_serve"], more={"PEER_POLICY": policy})
    found = {}
    with running(ours) as asker:
        for kind, clients in CELLS:
            # A policy that learns does so meanwhile, and all have as long to warm up.
            load = asker.closed(kind, clients, SECONDS, warmup=2.0)
            found[f"{kind}, {clients}"] = load.to_dict()
    return found


def summary(rounds: list[dict[str, dict[str, dict[str, float]]]]) -> dict[str, Any]:
    """By policy and cell: medians of the rounds, and throughput over the default's."""
    default = POLICIES[-1]
    found: dict[str, Any] = {}
    for policy in POLICIES:
        for cell in rounds[0][policy]:
            rows = [each[policy][cell] for each in rounds]
            beside = [each[default][cell]["throughput"] for each in rounds]
            found.setdefault(policy, {})[cell] = {
                **{name: median(row[name] for row in rows) for name in rows[0]},
                "beside the default": median(
                    row["throughput"] / other for row, other in zip(rows, beside, strict=True)
                ),
            }
    return found


def main() -> None:
    """Measure, print and keep."""
    rounds = []
    for number in range(int(sys.argv[1]) if len(sys.argv) > 1 else 3):
        # There and back, so that no policy always has the machine as another left it.
        order = POLICIES if number % 2 == 0 else POLICIES[::-1]
        found = {}
        for policy in order:
            found[policy] = measured(policy)
            print(number, policy, found[policy], file=sys.stderr, flush=True)  # noqa: T201
        rounds.append(found)
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one torch thread, Python "
        f"{platform.python_version()}",
        "summary": summary(rounds),
        "rounds": rounds,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(json.dumps(result["summary"], indent=1))  # noqa: T201


if __name__ == "__main__":
    main()
