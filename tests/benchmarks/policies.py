"""Policies side by side, live: ``python -m tests.benchmarks.policies [ROUNDS]``.

The classifier of the other benchmarks over HTTP, on one torch thread and with a worker thread, in a
server of its own under each policy, in turn: 32 and 128 clients who each ask again at once. This is
what the default policy goes by on a processor. Nothing else should run meanwhile. The result, of
which the summary has medians of the rounds, those of each policy's throughput over the default's
too, goes to ``results/policies.json``.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from tests.benchmarks.peers.setups import PEERS
from tests.benchmarks.side_by_side import side_by_side

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


def main() -> None:
    """Measure, print and keep."""
    ours = PEERS["notebook_serve"]
    side_by_side(
        {policy: replace(ours, more={"PEER_POLICY": policy}) for policy in POLICIES},
        dict.fromkeys(POLICIES, POLICIES[-1]),
        CELLS,
        int(sys.argv[1]) if len(sys.argv) > 1 else 3,
        RESULT,
    )


if __name__ == "__main__":
    main()
