"""Cells queued in a kernel while others run: each string is a cell, and all are sent at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from ..helpers.external_programs import ipykernel_6
from ..helpers.kernels import Notebook, kernel

pytestmark = [
    # The warnings are from the client library, which is not under test.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:zmq"),
    pytest.mark.timeout(300),
]

ON_UVLOOP = """\
import uvloop
uvloop.install()
from ipykernel.kernelapp import launch_new_instance
launch_new_instance()
"""


def start(kind: str) -> tuple[list[str], dict[str, str], str]:
    """Return the command, the environment and the first cell of a kernel of this kind."""
    if kind == "ipykernel 6":
        path = os.pathsep.join([str(ipykernel_6()), os.environ.get("PYTHONPATH", "")])
        return [], {"PYTHONPATH": path}, "import ipykernel\nassert ipykernel.version_info[0] == 6"
    if kind == "on uvloop":
        pytest.importorskip("uvloop")
        command = [sys.executable, "-c", ON_UVLOOP, "-f", "{connection_file}"]
        check = "import asyncio\nassert 'uvloop' in repr(asyncio.get_running_loop())"
        return command, {}, f"{check}\nawait asyncio.sleep(0)"
    if kind == "patched by nest_asyncio":
        return [], {}, "import nest_asyncio\nnest_asyncio.apply()"
    return [], {}, ""


KINDS = ["as installed", "ipykernel 6", "on uvloop", "patched by nest_asyncio"]


@pytest.fixture(scope="module", params=KINDS)
def started(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Notebook]:
    """Start one kernel of each kind: each start takes seconds."""
    command, environment, first = start(request.param)
    errors = tmp_path_factory.mktemp("kernel") / "errors"
    with kernel(errors, command, environment) as notebook:
        notebook.run(first)
        yield notebook
        assert notebook.error_lines() == []


#: a server whose model blocks at a slow input, and a function that prints when it blocks
SERVE = """\
import asyncio, threading
from notebook_serve import Greedy, NoBatching, aload_test, compare, load_test, serve, stop_all
from notebook_serve.lab.run_sync import run_sync

stop_all(drain=False)

def model(inputs):
    if "slow" in inputs:
        begun.set()
        assert let.wait(60)
    return inputs

def tell():
    assert begun.wait(60)
    print("begun", flush=True)

let, begun = threading.Event(), threading.Event()
server = serve(model, port=0, policy=NoBatching())
"""


@pytest.fixture
def notebook(started: Notebook) -> Notebook:
    """Return the kernel, with a new server."""
    started.run(SERVE)
    return started


def printed(notebook: Notebook, *cells: str, interrupt_at: str | None = None) -> list[str]:
    """Run the cells; return the output of each."""
    return [item.printed.strip() for item in notebook.run_all(*cells, interrupt_at=interrupt_at)]


LOAD = "print(load_test(server, ['x'], traffic=[0.0] * 50, progress=False).outcomes['ok'])"


def test_cells_behind_a_load_test_run_in_their_order(notebook: Notebook) -> None:
    """No cell is lost, plain or with await, and they run one after another."""
    assert printed(
        notebook,
        LOAD,
        "print('one')",
        f"await asyncio.sleep(0)\n{LOAD}\nawait asyncio.sleep(0)\n{LOAD}",
        "await asyncio.sleep(0.01)\nprint('two')",
        "report = await aload_test(server, ['x'], traffic=[0.0] * 50, progress=False)",
        "print(report.outcomes['ok'])",
        LOAD,
        "print(len(asyncio.all_tasks()) < 10)",
    ) == ["50", "one", "50\n50", "two", "", "50", "50", "True"]


def test_cells_behind_any_other_call_run_in_their_order(notebook: Notebook) -> None:
    """No cell is lost behind calls that start, predict, compare or stop."""
    assert printed(
        notebook,
        "with serve(lambda xs: xs, port=0, name='another') as other:\n"
        "    other.wait_ready()\n"
        "    print(other.predict('x'))",
        "print(server.predict(['x', 'y']))",
        "print(await server.apredict('z'))",
        "policies = NoBatching(), Greedy(4)\n"
        "shown = compare(policies, server=server, inputs=['x'], rates=[200.0], measured=0.2)",
        "print(len(shown))",
        "server.stop()",
        "print(server.state)",
    ) == ["x", "['x', 'y']", "z", "", "4", "", "stopped"]


def test_an_interrupted_load_test_lets_the_queued_cells_run(notebook: Notebook) -> None:
    """The load test returns its report, so the next cells run, and the next one is complete."""
    assert printed(
        notebook,
        "threading.Thread(target=tell).start()\n"
        "report = load_test(server, ['slow'], traffic=[0.0] * 50, progress=False)\n"
        "let.set()",
        "print(report.outcomes['cancelled'])",
        "print('Interrupted' in report.notes[0])",
        LOAD,
        "await asyncio.sleep(0)\nprint(server.state)",
        interrupt_at="begun",
    ) == ["begun", "50", "True", "50", "ready"]


def test_outputs_appear_in_their_own_cell(notebook: Notebook) -> None:
    """The progress bar and the output of a coroutine come from a thread, into their own cell."""
    say = "async def say(word):\n    await asyncio.sleep(0.01)\n    print(word)"
    load = "report = load_test(server, ['x'], traffic=[0.0, 0.1], progress={})"

    outputs = notebook.run_all(
        say, "run_sync(say('one'))", load.format(True), "run_sync(say('two'))", load.format(False)
    )

    assert [output.printed.strip() for output in outputs] == ["", "one", "", "two", ""]
    assert ["load test" in output.shown.get("text/plain", "") for output in outputs] == [
        *(False, False, True, False, False)
    ]


def test_a_load_test_under_an_open_dashboard(notebook: Notebook) -> None:
    """While snapshots are sent and commands wait, no cell complains or is lost."""
    model_id, _ = notebook.run(
        "dashboard = server.dashboard()\ndisplay(dashboard)\nprint(dashboard.model_id)"
    )
    widget = model_id.strip()
    for _ in range(5):
        notebook.tell(widget, do="look")
    notebook.tell(widget, do="policy", policy="Greedy(7)")
    shown = "assert len(snapshots) > 1, 'no snapshot was sent while the cell ran'"
    watch = "snapshots = []\ndashboard.observe(snapshots.append, 'snapshot')\n"
    long = "report = load_test(server, ['x'], concurrency=2, duration=2.5, progress=False)\n"

    outputs = printed(notebook, LOAD, watch + long + shown, "print(server.policy)", LOAD)

    assert outputs == ["50", "", "Greedy(max_batch_size=7)", "50"]
