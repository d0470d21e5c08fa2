"""Disconnects of many clients: their cost, and the check of that cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import httpx
import pytest

from notebook_serve import Server

from ...benchmarks.disconnects import (
    BLOCKS_EACH,
    BLOCKS_SLACK,
    MEMORY_SLACK,
    Departures,
    Sample,
    ask,
    cost,
    depart,
    hang_up,
)
from ...helpers.blocking_model import eventually

EARLY = Sample(2000, 50.0, 300_000, 5, 15)
LATE = EARLY._replace(left=10_000)
#: blocks that the records of 8,000 more may take
ALLOWED = 300_000 + 8000 * BLOCKS_EACH + BLOCKS_SLACK


@pytest.mark.timeout(300)
def test_ten_thousand_clients_that_leave_cost_nothing() -> None:
    """They cost no forward pass, thread, file or memory but their records; each is counted."""
    made = depart(10_000)

    assert made.faults() == []
    assert made.outcomes["cancelled"] > 0


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST / HTT",
        b"POST / HTTP/1.1\r\nHost: localhost\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 400\r\n\r\nhalf",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhal",
    ],
)
def test_a_disconnect_within_a_request_leaves_nothing(
    make: Callable[..., Server], sent: bytes, reset: bool
) -> None:
    """A client that disconnects within its request leaves no run, record or connection."""
    server = make(lambda xs: xs)
    assert server._address is not None
    assert server._listener is not None
    for connection in [ask(server._address, sent) for _ in range(20)]:
        hang_up(connection, reset)
    assert httpx.get(server.url + "/health").status_code == 200
    http = server._listener._server.server_state  # type: ignore[union-attr]
    eventually(lambda: not http.connections and not http.tasks, "every connection is closed")

    assert (server.records(), server.batches()) == ([], [])
    assert server.predict("after") == "after"


@pytest.mark.parametrize(
    ("late", "found"),
    [
        (LATE, []),
        (LATE._replace(memory=40.0, blocks=200_000, threads=4, files=10), []),
        (LATE._replace(memory=50.0 + MEMORY_SLACK, blocks=ALLOWED), []),
        (LATE._replace(memory=50.1 + MEMORY_SLACK), ["4.1 MB"]),
        (LATE._replace(blocks=ALLOWED + 1), ["18001 blocks of memory"]),
        (LATE._replace(threads=6), ["1 threads"]),
        (LATE._replace(files=17), ["2 open files"]),
        (Sample(10_000, 99.0, 900_000, 9, 99), ["49.0", "600000", "4", "84"]),
    ],
)
def test_memory_threads_and_files_are_costs(late: Sample, found: list[str]) -> None:
    """Memory beyond the records and the allocator's slack, threads and files are costs."""
    said = cost(EARLY, late)

    assert len(said) == len(found)
    assert all(map(str.startswith, said, found))


@pytest.mark.parametrize(
    ("outcomes", "calls", "faults"),
    [
        ({"cancelled": 10_000}, [["runs"], ["after"]], 0),
        ({"cancelled": 9_000, "rejected": 1_000}, [["runs"], ["after"]], 0),
        ({"cancelled": 9_999}, [["runs"], ["after"]], 1),
        ({"cancelled": 10_000, "rejected": 1}, [["runs"], ["after"]], 1),
        ({"cancelled": 9_999, "ok": 1}, [["runs"], ["left"], ["after"]], 2),
    ],
)
def test_missing_records_and_extra_runs_are_faults(
    outcomes: dict[str, int], calls: list[list[str]], faults: int
) -> None:
    """A missing or extra record, or a run of a cancelled input, is a fault."""
    made = Departures(10_000, [EARLY, LATE], Counter(outcomes), calls, 1.0)

    assert len(made.faults()) == faults
