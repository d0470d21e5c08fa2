"""The flow of a notebook in a real IPython kernel: each string is a cell."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ..helpers.blocking_model import eventually
from ..helpers.kernels import Notebook, kernel

pytestmark = [
    # The warnings are from the client library, which is not under test.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:zmq"),
    pytest.mark.timeout(300),
]


@pytest.fixture
def notebook(tmp_path: Path) -> Iterator[Notebook]:
    """Start a fresh kernel."""
    with kernel(tmp_path / "errors") as fresh:
        yield fresh


@pytest.fixture(scope="module")
def only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    """Start one kernel for all tests that can share it: each start takes seconds."""
    with kernel(tmp_path_factory.mktemp("kernel") / "errors") as started:
        yield started


@pytest.fixture
def shared(only: Notebook) -> Notebook:
    """Return the shared kernel, without the servers of the previous test."""
    only.run("import notebook_serve\nnotebook_serve.stop_all(drain=False)")
    return only


SERVE = """
from notebook_serve import serve, servers, Greedy, NoBatching, demo
server = serve(pipe, port=0)
server
"""


def test_the_flow_of_a_notebook(shared: Notebook) -> None:
    """Serve, predict, await, read statistics, swap the policy under load, and stop."""
    shared.run("from notebook_serve import demo\npipe = demo.pipeline()")
    _, card = shared.run(SERVE)
    assert "ready" in card["text/plain"]
    assert "http://127.0.0.1:" in card["text/html"]
    assert "queue limit" in card["text/plain"]  # as in the HTML

    printed, _ = shared.run(
        "import httpx\n"
        "answer = httpx.post(server.url, content='raise a [MASK] if the key is missing').json()\n"
        "print(len(answer), sorted(answer[0]))"
    )
    assert printed.strip() == "5 ['score', 'sequence', 'token', 'token_str']"

    printed, _ = shared.run(
        "same = await server.apredict('raise a [MASK] if the key is missing')\n"
        "async with httpx.AsyncClient() as client:\n"
        "    third = (await client.post(server.url, content='return the [MASK]')).json()\n"
        "print([a['token'] for a in same] == [a['token'] for a in answer], len(third))"
    )
    assert printed.strip() == "True 5"

    _, table = shared.run("server.stats()")
    assert "ok: 3" in table["text/plain"]
    assert "<table" in table["text/html"]

    printed, _ = shared.run(
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

    shared.run("server.stop()")
    printed, _ = shared.run("import threading\nprint([t.name for t in threading.enumerate()])")
    assert "notebook-serve" not in printed


def test_a_cell_run_twice_leaves_one_server(shared: Notebook) -> None:
    """The new server replaces the old one, and takes its port if that is the default port."""
    port = f"sockets.USUAL_PORT = {free_port()}\n"
    usual = f"from notebook_serve.http.transport import sockets\n{port}"
    again = "from notebook_serve import serve, servers\nserver = serve(lambda xs: xs)\nserver"
    shared.run(usual + again)
    url = shared.run("old = server\nprint(server.url)")[0].strip()
    _, card = shared.run(again)
    printed, _ = shared.run(
        "import psutil\n"
        "mine = psutil.Process().net_connections('tcp')\n"
        "listens = [item.laddr.port for item in mine if item.status == psutil.CONN_LISTEN]\n"
        "print(servers() == [server], old.state, server.predict('x'))\n"
        "print(listens.count(int(server.url.rpartition(':')[2])), 'object at 0x' in str(servers()))"
    )
    assert printed.split() == ["True", "stopped", "x", "1", "False"]
    assert url in card["text/plain"]
    assert f'<a href="{url}/"' in card["text/html"]
    _, card = shared.run("old")
    assert url not in card["text/plain"] + card["text/html"]


def free_port() -> int:
    """Return a free port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def test_a_failure_to_start_is_raised_in_the_cell(shared: Notebook) -> None:
    """A taken port and a failing loader raise in the cell that calls `serve`."""
    printed, _ = shared.run(
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


#: a server whose model blocks at a slow input, and a thread that prints when it blocks: the output
#: of a thread appears in the cell that started it, and the worker's output in this one
SLOW = """
import asyncio, threading
from notebook_serve import NoBatching, load_test, serve

def slow(inputs):
    if inputs[0] == "slow":
        begun.set()
        assert let.wait(60)
    return inputs

def tell():
    assert begun.wait(60)
    print("begun", flush=True)

let, begun = threading.Event(), threading.Event()
server = serve(slow, port=0, policy=NoBatching())
"""
TELL = "threading.Thread(target=tell).start()\n"


def test_an_interrupted_cell_leaves_the_server_running(shared: Notebook) -> None:
    """Interrupting a cell that waits for an answer cancels its request, and nothing else."""
    shared.run(SLOW)
    printed, _ = shared.run(
        TELL + "try:\n"
        "    server.predict('slow')\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')",
        interrupt_at="begun",
    )
    assert printed.split() == ["begun", "interrupted"]
    printed, _ = shared.run(
        "let.set()\nprint(server.predict('after'), server.stats().outcomes['cancelled'])"
    )
    assert printed.split() == ["after", "1"]


def test_run_sync_in_cells(shared: Notebook) -> None:
    """Plain cells and cells that await can call it; an interrupted call returns its result."""
    printed, _ = shared.run(
        "import asyncio\n"
        "from notebook_serve.lab.run_sync import run_sync\n"
        "async def wait():\n"
        "    print('waits', flush=True)\n"
        "    try:\n"
        "        await asyncio.Event().wait()\n"
        "    except asyncio.CancelledError:\n"
        "        return 'stopped'\n"
        "print(run_sync(asyncio.sleep(0, 'plain')))"
    )
    assert printed.split() == ["plain"]
    printed, _ = shared.run("print(run_sync(wait()))", interrupt_at="waits")
    assert printed.split() == ["waits", "stopped"]
    printed, _ = shared.run(
        "await asyncio.sleep(0)\nprint(run_sync(wait()))\nprint('next')", interrupt_at="waits"
    )
    assert printed.split() == ["waits", "stopped", "next"]
    printed, _ = shared.run("await asyncio.sleep(0.01, 'still here')\nprint('done')")
    assert printed.split() == ["done"]


def test_a_load_test_in_a_cell_that_awaits(shared: Notebook) -> None:
    """An interrupted load test returns its report so far, and the server keeps answering."""
    shared.run(SLOW)
    printed, _ = shared.run(
        "await asyncio.sleep(0)\n"
        "print(load_test(server, ['x'], traffic=[0.0] * 5, progress=False).outcomes['ok'])"
    )
    assert printed.split() == ["5"]
    shared.run(
        TELL + "await asyncio.sleep(0)\n"
        "report = load_test(server, ['x', 'slow'], traffic=[0.0] * 50, progress=False)",
        interrupt_at="begun",
    )
    printed, _ = shared.run(
        "let.set()\n"
        "print(report.outcomes['ok'], report.outcomes['cancelled'])\n"
        "print(server.state, server.predict('after'))"
    )
    assert printed.split() == ["1", "49", "ready", "after"]


def test_a_kernel_with_a_running_server_shuts_down(shared: Notebook) -> None:
    """An idle kernel exits without being killed and without output."""
    shared.run(
        "import httpx\n"
        "from notebook_serve import serve\n"
        "server = serve(lambda xs: xs, port=0)\n"
        "client = httpx.Client()\n"
        "assert client.post(server.url, content='x').json() == 'x'"
    )

    assert shared.shut_down() == 0  # nothing may come after it in this kernel
    assert shared.error_lines() == []


#: a forward pass that never ends, a client that waits for it, and a queue
BUSY = r"""
import socket, threading
from notebook_serve import NoBatching, serve, servers
from notebook_serve.http.transport import sockets

sockets.USUAL_PORT = FREE
begun = threading.Event()

def model(inputs):
    begun.set()
    threading.Event().wait()

server = serve(model, policy=NoBatching())
client = socket.create_connection(server._address)
client.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nnever")
assert begun.wait(60)
for n in range(9):
    threading.Thread(target=server.predict, args=[n], daemon=True).start()
while server.stats().queue_depth < 9:
    pass
print(server.url.rpartition(":")[2], len(servers()))
"""


def test_a_kernel_restarts_by_itself_in_the_middle_of_a_forward(notebook: Notebook) -> None:
    """The kernel exits without being killed or output, and the next one gets the default port."""
    port = str(free_port())
    busy = BUSY.replace("FREE", port)
    assert notebook.run(busy)[0].split() == [port, "1"]

    assert notebook.restart() == 0
    assert notebook.run(busy)[0].split() == [port, "1"]
    assert notebook.shut_down() == 0
    assert notebook.error_lines() == []


def test_a_process_outlives_an_interrupt_and_not_its_kernel(notebook: Notebook) -> None:
    """The worker process survives an interrupted cell, and ends with a restart."""
    printed, _ = notebook.run(
        "from notebook_serve import serve\n"
        "server = serve(lambda xs: xs, worker='process', port=0)\n"
        "print(server.stats().workers[0].pid)"
    )
    pid = int(printed)
    notebook.run(
        "import threading\n"
        "try:\n"
        "    print('begun', flush=True)\n"  # inside: the interrupt may come before it returns
        "    threading.Event().wait(60)\n"
        "except KeyboardInterrupt:\n"
        "    pass",
        interrupt_at="begun",
    )
    printed, _ = notebook.run("print(server.predict('x'), server.stats().workers[0].pid)")
    assert printed.split() == ["x", str(pid)]
    assert notebook.restart() == 0
    eventually(lambda: not psutil.pid_exists(pid), "the process is gone", seconds=2)
