"""The cost of a dashboard while it is open: ``python -m tests.benchmarks.dashboard_cost [SECONDS]``.

A function that answers at once is served and asked 200 times a second. In a kernel of its own the
widget is shown meanwhile: the processor time of its thread, which makes the pictures and sends them
to the kernel's client, as a share of one core. Then the page is asked for its figures once a second
by another process, with nobody else asking and a full minute of records to show: the processor time
of the whole server, as a share of one core, beside that of the same seconds with nobody looking.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

from jupyter_client.manager import start_new_kernel

from notebook_serve import load_test, serve
from notebook_serve.traffic import Poisson

CELL = """
import json, threading, time
from notebook_serve import load_test, serve
from notebook_serve.traffic import Poisson

server = serve(lambda inputs: inputs, port=0)
dashboard = server.dashboard()
dashboard._heard(dashboard, {"do": "look"}, [])  # what the browser sends
thread = next(item for item in threading.enumerate() if item.name.endswith("dashboard"))
clock = time.pthread_getcpuclockid(thread.ident)
begun, used = time.monotonic(), time.clock_gettime(clock)
report = load_test(server, ["x"], traffic=Poisson(200), duration=SECONDS, progress=False)
share = (time.clock_gettime(clock) - used) / (time.monotonic() - begun)
print(json.dumps({"share": share, "throughput": report.throughput}))
server.stop()
"""

LOOKS = """
import sys, time, urllib.request
for _ in range(int(sys.argv[2])):
    urllib.request.urlopen(sys.argv[1] + "/live").read()
    time.sleep(1)
"""


def widget(seconds: float) -> dict[str, Any]:
    """The share of a core that the widget's thread uses."""
    manager, client = start_new_kernel()
    printed: list[str] = []

    def hear(message: dict[str, Any]) -> None:
        if message["msg_type"] == "stream":
            printed.append(message["content"]["text"])

    try:
        cell = CELL.replace("SECONDS", str(seconds))
        reply = client.execute_interactive(cell, output_hook=hear, timeout=seconds + 60)
        assert reply["content"]["status"] == "ok", reply["content"]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    found: dict[str, Any] = json.loads("".join(printed))
    return found


def page(seconds: float) -> dict[str, float]:
    """The share of a core that the server uses while the page is looked at, and while not."""
    with serve(lambda inputs: inputs, port=0, name="watching") as server:
        load_test(server, ["x"], traffic=Poisson(200), duration=60, progress=False)
        shares = {}
        for name, looks in (("watched", int(seconds)), ("unwatched", 0)):
            command = [sys.executable, "-c", LOOKS, server.url, str(looks)]
            begun, used = time.monotonic(), time.process_time()
            with subprocess.Popen(command) as client:
                client.wait()
                time.sleep(max(0.0, begun + seconds - time.monotonic()))
            shares[name] = (time.process_time() - used) / (time.monotonic() - begun)
    return shares


def main() -> None:
    """Run both and print what they say."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    print(json.dumps({"widget": widget(seconds), "page": page(seconds)}, indent=1))  # noqa: T201


if __name__ == "__main__":
    main()
