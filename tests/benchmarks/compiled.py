"""A compiled model beside the same as it is: ``python -m tests.benchmarks.compiled [ROUNDS]``.

The classifier of the other benchmarks over HTTP, on one torch thread, with a worker thread and with
a worker process: as it is, and compiled by ``torch.compile`` for inputs of any size, its weights
frozen. Needs a C++ compiler. First the scores that both give the same texts are compared. Nothing
else should run meanwhile. The result, of which the summary has medians of the rounds, those of the
throughput over that of the model as it is too, goes to ``results/compiled.json``.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from tests.benchmarks.peers.setups import PEERS, Peer
from tests.benchmarks.side_by_side import side_by_side
from tests.benchmarks.workload import classifier, compile_model, inputs_of

RESULT = Path(__file__).parent / "results" / "compiled.json"
WORKERS = {"thread": "notebook_serve", "process": "notebook_serve_process"}
CELLS = (("mixed", 32), ("mixed", 128), ("mixed", 1), ("short", 32), ("long", 32))


def difference() -> float:
    """The most that a score of the compiled model is off."""
    texts = inputs_of("mixed")[:100]
    scores: list[list[dict[str, float]]] = []
    for wanted in (False, True):
        pipe = classifier()
        if wanted:
            compile_model(pipe.model)
        answers = pipe(texts, batch_size=8, top_k=None)
        scores.append([{each["label"]: each["score"] for each in answer} for answer in answers])
    plain, compiled = scores
    return max(
        abs(one[label] - other[label])
        for one, other in zip(plain, compiled, strict=True)
        for label in one
    )


def main() -> None:
    """Measure, print and keep."""
    ways: dict[str, Peer] = {}
    beside: dict[str, str] = {}
    for worker, name in WORKERS.items():
        ours, compiled = PEERS[name], f"{worker}, compiled"
        ways[worker] = ours
        ways[compiled] = replace(ours, more={**ours.more, "BENCH_COMPILE": "1"})
        beside |= {worker: worker, compiled: worker}
    side_by_side(
        ways,
        beside,
        CELLS,
        int(sys.argv[1]) if len(sys.argv) > 1 else 3,
        RESULT,
        {"difference of scores": difference()},
    )


if __name__ == "__main__":
    main()
