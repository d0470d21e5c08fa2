"""Ways to run this package, side by side: each in a server of its own, in turn, round by round."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.peers.peer_process import running
from tests.benchmarks.peers.setups import Peer
from tests.benchmarks.workload import machine

SECONDS = 5.0

#: what a server did, by cell and measure
Found = dict[str, dict[str, float]]
#: a kind of texts, and a number of clients who each ask again at once
Cell = tuple[str, int]


def measured(way: Peer, cells: Sequence[Cell]) -> Found:
    """What a server does, cell by cell."""
    found = {}
    with running(way) as asker:
        asker.closed(*cells[0], 1.0)  # what comes with first requests only, such as compiling
        for kind, clients in cells:
            # A policy that learns does so meanwhile, and all have as long to warm up.
            load = asker.closed(kind, clients, SECONDS, warmup=2.0)
            found[f"{kind}, {clients}"] = load.to_dict()
    return found


def summary(rounds: Sequence[Mapping[str, Found]], beside: Mapping[str, str]) -> dict[str, Found]:
    """By way and cell: medians of the rounds, those of the throughput over another way's too."""
    found: dict[str, Found] = {}
    for way, other in beside.items():
        for cell in rounds[0][way]:
            rows = [each[way][cell] for each in rounds]
            others = [each[other][cell] for each in rounds]
            found.setdefault(way, {})[cell] = {
                **{name: median(row[name] for row in rows) for name in rows[0]},
                "beside": median(
                    row["throughput"] / at["throughput"]
                    for row, at in zip(rows, others, strict=True)
                ),
            }
    return found


def side_by_side(
    ways: Mapping[str, Peer],
    beside: Mapping[str, str],
    cells: Sequence[Cell],
    rounds: int,
    result: Path,
    about: Mapping[str, float] | None = None,
) -> None:
    """Measure each of `ways`, print, and keep, with what else is known about them.

    `beside` says for each which one it is compared with.
    """
    made = []
    for number in range(rounds):
        # There and back, so that no way always has the machine as another left it.
        order = list(ways) if number % 2 == 0 else list(ways)[::-1]
        found = {}
        for way in order:
            found[way] = measured(ways[way], cells)
            print(number, way, found[way], file=sys.stderr, flush=True)  # noqa: T201
        made.append(found)
    kept: dict[str, Any] = {
        "machine": machine(),
        **(about or {}),
        "summary": summary(made, beside),
        "rounds": made,
    }
    result.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
    print(json.dumps(kept["summary"], indent=1))  # noqa: T201
