"""This package with its defaults: ``python -m tests.benchmarks.peers.ours``.

torch has ``OMP_NUM_THREADS`` threads. ``PEER_THREADS`` is the option `threads` instead; with
``own`` the option is not set, and torch has its default number.
"""

from __future__ import annotations

import os
import threading

from notebook_serve import parse_policy, serve
from tests.benchmarks.peers.model import PORT
from tests.benchmarks.workload import classifier

if __name__ == "__main__":
    policy = os.environ.get("PEER_POLICY")
    size, wanted = os.environ.get("PEER_SIZE", "small"), os.environ.get("PEER_THREADS")
    number: int | None = int(os.environ.get("OMP_NUM_THREADS", "1"))
    if wanted is not None:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ.pop(name, None)
        number = None
    server = serve(
        loader=lambda: classifier(size, number),
        threads=int(wanted) if wanted not in (None, "own") else None,
        policy=parse_policy(policy) if policy else None,
        port=PORT,
        timeout=120.0,
        worker="process" if os.environ.get("PEER_WORKER") == "process" else "thread",
    )
    server.wait_ready()
    threading.Event().wait()
