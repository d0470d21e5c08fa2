"""This package, as its README has it: ``python -m tests.benchmarks.peers.ours``."""

from __future__ import annotations

import os
import threading

from notebook_serve import parse_policy, serve
from tests.benchmarks.peers.model import PORT
from tests.benchmarks.workload import classifier

if __name__ == "__main__":
    policy = os.environ.get("PEER_POLICY")
    server = serve(
        loader=lambda: classifier(
            os.environ.get("PEER_SIZE", "small"),
            threads=int(os.environ.get("OMP_NUM_THREADS", "1")),
        ),
        policy=parse_policy(policy) if policy else None,
        port=PORT,
        timeout=120.0,
        worker="process" if os.environ.get("PEER_WORKER") == "process" else "thread",
    )
    server.wait_ready()
    threading.Event().wait()
