"""The flow of a notebook in a real IPython kernel: each string is a cell."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import start_new_kernel

pytestmark = [
    # The client library's own: it is not what is tested here.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:zmq"),
    pytest.mark.timeout(300),
]


class Notebook:
    """Runs cells in a kernel."""

    def __init__(self, manager: Any, client: Any, errors: Path) -> None:
        self._manager = manager
        self._client = client
        self._errors = errors

    def run(self, cell: str, interrupt_at: str | None = None) -> tuple[str, dict[str, str]]:
        """What a cell prints, and what it shows; fails if it raises.

        With `interrupt_at` the kernel is interrupted once that is printed.
        """
        printed: list[str] = []
        shown: dict[str, str] = {}

        def hear(message: dict[str, Any]) -> None:
            content = message["content"]
            if message["msg_type"] == "stream":
                printed.append(content["text"])
                if interrupt_at is not None and interrupt_at in content["text"]:
                    os.kill(self._manager.provisioner.pid, signal.SIGINT)  # as its menu does
            elif message["msg_type"] in ("execute_result", "display_data"):
                shown.update(content["data"])

        reply = self._client.execute_interactive(cell, output_hook=hear, timeout=120)
        content = reply["content"]
        assert content["status"] == "ok", "\n".join(content.get("traceback", []))
        return "".join(printed), shown

    def restart(self) -> int:
        """Restart the kernel as its menu does; the exit status of the process that was."""
        process = self._manager.provisioner.process
        self._manager.restart_kernel()
        self._client.wait_for_ready(timeout=120)
        return int(process.returncode)

    def shut_down(self) -> int:
        """Shut the kernel down as its menu does; its exit status."""
        process = self._manager.provisioner.process
        self._manager.shutdown_kernel()
        return int(process.returncode)

    def said(self) -> list[str]:
        """What the kernel's process has written on its error stream, but for the kernel's own."""
        lines = self._errors.read_text("utf-8").splitlines()
        return [line for line in lines if not line.startswith("[IPKernelApp]")]


@pytest.fixture
def notebook(tmp_path: Path) -> Iterator[Notebook]:
    """A fresh kernel."""
    errors = tmp_path / "errors"
    with errors.open("w") as file:  # a kernel that is restarted gets it too
        manager, client = start_new_kernel(startup_timeout=120, stderr=file)
        manager.shutdown_wait_time = 60.0  # seconds; half of it later it is told again, by SIGTERM
        try:
            yield Notebook(manager, client, errors)
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)


SERVE = """
from notebook_serve import serve, servers, Greedy, NoBatching, demo
server = serve(pipe, port=0)
server
"""


def test_the_flow_of_a_notebook(notebook: Notebook) -> None:
    """Serve, ask, await, look, swap the policy under load, stop, and run the cell again."""
    notebook.run("from notebook_serve import demo\npipe = demo.pipeline()")
    _, card = notebook.run(SERVE)
    assert "ready" in card["text/plain"]
    assert "http://127.0.0.1:" in card["text/html"]

    printed, _ = notebook.run(
        "import httpx\n"
        "answer = httpx.post(server.url, content='raise a [MASK] if the key is missing').json()\n"
        "print(len(answer), sorted(answer[0]))"
    )
    assert printed.strip() == "5 ['score', 'sequence', 'token', 'token_str']"

    printed, _ = notebook.run(
        "same = await server.apredict('raise a [MASK] if the key is missing')\n"
        "async with httpx.AsyncClient() as client:\n"
        "    third = (await client.post(server.url, content='return the [MASK]')).json()\n"
        "print([a['token'] for a in same] == [a['token'] for a in answer], len(third))"
    )
    assert printed.strip() == "True 5"

    _, table = notebook.run("server.stats()")
    assert "ok: 3" in table["text/plain"]
    assert "<table" in table["text/html"]

    printed, _ = notebook.run(
        "import asyncio\n"
        "texts = demo.sentences(60)\n"
        "server.policy = NoBatching()\n"
        "asking = [asyncio.ensure_future(server.apredict(text)) for text in texts]\n"
        "await asking[0]\n"
        "server.policy = Greedy(8)\n"
        "answers = await asyncio.gather(*asking)\n"
        "sizes = [batch.size for batch in server.batches()]\n"
        "print(len(answers), sizes[0], max(sizes))"
    )
    assert printed.strip() == "60 1 8"

    notebook.run("server.stop()")
    printed, _ = notebook.run("import threading\nprint([t.name for t in threading.enumerate()])")
    assert "notebook-serve" not in printed

    notebook.run(SERVE)
    old_url = notebook.run("print(server.url)")[0]
    notebook.run("old = server")
    notebook.run(SERVE)
    printed, _ = notebook.run(
        "print(len(servers()), old.state, server.predict('a [MASK]') is not None)"
    )
    assert printed.strip() == "1 stopped True"
    assert old_url.startswith("http://127.0.0.1:")


def test_a_failure_to_start_is_read_in_the_cell(notebook: Notebook) -> None:
    """A taken port and a failing loader raise in the cell that asked."""
    printed, _ = notebook.run(
        "from notebook_serve import serve, PortTaken, LoaderFailed\n"
        "one = serve(lambda xs: xs, port=0, name='one')\n"
        "try:\n"
        "    serve(lambda xs: xs, port=int(one.url.rpartition(':')[2]), name='two')\n"
        "except PortTaken as error:\n"
        "    print(error)\n"
        "def loader():\n"
        "    raise OSError('weights are missing')\n"
        "three = serve(loader=loader, port=0, name='three')\n"
        "try:\n"
        "    three.wait_ready()\n"
        "except LoaderFailed as error:\n"
        "    print(error)\n"
    )
    assert "is in use" in printed
    assert "weights are missing" in printed


def test_an_interrupted_cell_leaves_the_server_running(notebook: Notebook) -> None:
    """Interrupting a cell that waits for an answer takes its request back, and nothing else."""
    notebook.run(
        "import threading\n"
        "from notebook_serve import serve\n"
        "let = threading.Event()\n"
        "def slow(xs):\n"
        "    print('begun', flush=True); assert let.wait(60)\n"
        "    return xs\n"
        "server = serve(slow, port=0)"
    )
    printed, _ = notebook.run(
        "try:\n"
        "    server.predict('never read')\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')",
        interrupt_at="begun",
    )
    assert printed.split() == ["begun", "interrupted"]
    printed, _ = notebook.run(
        "let.set()\nprint(server.predict('after'), server.stats().outcomes['cancelled'])"
    )
    assert printed.split()[-2:] == ["after", "1"]


#: a forward that never ends, with a client that waits for it and others in the queue
BUSY = r"""
import socket, threading
from notebook_serve import NoBatching, serve

begun = threading.Event()

def model(inputs):
    begun.set()
    threading.Event().wait()

server = serve(model, port=PORT, policy=NoBatching())
client = socket.create_connection(server._address)
client.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nnever")
assert begun.wait(60)
for n in range(9):
    threading.Thread(target=server.predict, args=[n], daemon=True).start()
while server.stats().queue_depth < 9:
    pass
print(server.url.rpartition(":")[2])
"""


def test_a_kernel_ends_by_itself_with_a_server_running(notebook: Notebook) -> None:
    """Shut down while nothing runs, it is over without being killed and without a word."""
    notebook.run(
        "import httpx\n"
        "from notebook_serve import serve\n"
        "server = serve(lambda xs: xs, port=0)\n"
        "client = httpx.Client()\n"
        "assert client.post(server.url, content='x').json() == 'x'"
    )

    assert notebook.shut_down() == 0
    assert notebook.said() == []


def test_a_kernel_restarts_by_itself_in_the_middle_of_a_forward(notebook: Notebook) -> None:
    """It ends without being killed and without a word, and the port is free again."""
    port = notebook.run(BUSY.replace("PORT", "0"))[0].strip()

    assert notebook.restart() == 0
    assert notebook.run(BUSY.replace("PORT", port))[0].strip() == port
    assert notebook.shut_down() == 0
    assert notebook.said() == []
