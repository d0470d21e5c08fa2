"""Cost of the server with a model that costs nothing: ``python -m tests.benchmarks.overhead``.

Measures requests per second on one keep-alive connection, and on a bare Starlette handler under
uvicorn, in turn in one run, with the ratio of each pair; the CPU time of an idle server; and the
CPU time of the import. Needs Linux. Run nothing else meanwhile.
"""

from __future__ import annotations

import http.client
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from notebook_serve import serve
from notebook_serve.http.transport.sockets import listen

ROUNDS = 7
REQUESTS = 2000


def bare() -> tuple[str, Callable[[], None]]:
    """Serve the same answer by Starlette alone; return its address, and a function to stop it."""

    async def answer(request: Request) -> JSONResponse:
        return JSONResponse((await request.body()).decode())

    app = Starlette(routes=[Route("/", answer, methods=["POST"])])
    sock = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()

    def stop() -> None:
        server.should_exit = True
        thread.join()

    return f"127.0.0.1:{sock.getsockname()[1]}", stop


def per_second(address: str, requests: int = REQUESTS) -> float:
    """Measure requests per second, one after the other on one connection."""
    connection = http.client.HTTPConnection(address)
    started = time.perf_counter()
    for _ in range(requests):
        connection.request("POST", "/", b"x")
        assert connection.getresponse().read() == b'"x"'
    seconds = time.perf_counter() - started
    connection.close()
    return requests / seconds


def child(code: str) -> float:
    """Run code in a fresh interpreter; return the number that it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


IDLE = """
import time, notebook_serve as ns
server = ns.serve(lambda xs: xs, port=0); server.predict(1)
before = time.process_time(); time.sleep(10); print((time.process_time() - before) / 10)
"""
IMPORT = """
import time
before = time.process_time(); import notebook_serve; print(time.process_time() - before)
"""


def main() -> None:
    """Measure, and print the result as JSON."""
    server = serve(lambda xs: xs, port=0, name="benchmark")
    ours = server.url.removeprefix("http://")
    theirs, stop = bare()
    for address in (ours, theirs):
        per_second(address, 200)
    pairs = [(per_second(ours), per_second(theirs)) for _ in range(ROUNDS)]
    server.stop()
    stop()
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {sys.version.split()[0]}",
        "requests_per_second": round(statistics.median(pair[0] for pair in pairs)),
        "bare_starlette_per_second": round(statistics.median(pair[1] for pair in pairs)),
        "ratio": round(statistics.median(a / b for a, b in pairs), 3),
        "ratios": [round(a / b, 3) for a, b in pairs],
        "idle_share_of_a_core": child(IDLE),
        "import_cpu_seconds": statistics.median(child(IMPORT) for _ in range(5)),
    }
    print(json.dumps(result, indent=2))  # noqa: T201


if __name__ == "__main__":
    main()
