"""The flow of a notebook in a real IPython kernel: each string is a cell."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
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

    def __init__(self, manager: Any, client: Any) -> None:
        self._manager = manager
        self._client = client

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


@pytest.fixture
def notebook() -> Iterator[Notebook]:
    """A fresh kernel."""
    manager, client = start_new_kernel(startup_timeout=120)
    try:
        yield Notebook(manager, client)
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
