"""Quiet ends: a script that ends with its server running, whatever it does and however it ends.

Forwards here never end, so a script that waited for one would never end either.
"""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import weakref
from typing import NamedTuple

import httpx
import pytest

from notebook_serve import OptionError, serve, servers

SETUP = r"""
import signal, socket, sys, threading
import httpx
import notebook_serve as ns

begun = threading.Event()

def model(inputs):
    if "never" in inputs:
        begun.set()
        threading.Event().wait()
    return [value * 10_000_000 if value == "large" else value for value in inputs]

server = ns.serve(model, port=0, policy=ns.NoBatching())

def predict(value):
    try:
        server.predict(value)
    except ns.ServeError:
        pass

def ask(value):
    threading.Thread(target=predict, args=[value], daemon=True).start()

def connect(body, length=5, receive=0):
    connection = socket.create_connection(server._address)
    head = f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
    connection.sendall((head if body else "").encode() + body)
    connection.recv(receive) if receive else None
    httpx.get(server.url + "/health")  # so it has been accepted
    connection.detach()  # open, and nobody's to warn of

def run_never():
    connect(b"never")
    begun.wait()

def wait_in_queue(count):
    for n in range(count):
        ask(n)
    while server.stats().queue_depth < count:
        pass
"""

#: what a server may be at when its script ends
STATES = {
    "idle": "assert server.predict(1) == 1",
    "nobody's": "import gc; del server; gc.collect(); assert len(ns.servers()) == 1",
    "stopped": "server.predict(1); server.stop()",
    "never started": "other = ns.serve(model, start=False, name='other'); other.app",
    "asked for statistics": "assert httpx.get(server.url + '/stats').status_code == 200",
    "connected": "connect(b'')",
    "reading half a body": "connect(b'half', length=400)",
    "writing to who does not read": "connect(b'large', receive=1)",
    "paused, with some waiting": "server.pause(); wait_in_queue(9)",
    "in a forward, with some waiting": "run_never(); wait_in_queue(9)",
    "in a forward of Python": """
def spin(inputs):
    begun.set()
    while True:
        pass
server = ns.serve(spin, port=0)
ask(1)
begun.wait()
""",
    "loading": """
def loader():
    begun.set()
    threading.Event().wait()
server = ns.serve(loader=loader, port=0)
begun.wait()
""",
    "of several models, each in a forward": """
def never(endpoint):
    try:
        endpoint.predict("never")
    except ns.ServeError:
        pass
for name in "abc":
    begun.clear()
    threading.Thread(target=never, args=[server.add(name, model)], daemon=True).start()
    begun.wait()
""",
    "many, each in a forward": """
for name in "abcd":
    server = ns.serve(model, port=0, name=name)
    begun.clear()
    run_never()
""",
}
BUSY = "run_never(); wait_in_queue(9)\n"


class End(NamedTuple):
    """How a script ended: exit status, and what it said on its two streams."""

    status: int
    printed: str
    said: str


def run(code: str, how: signal.Signals | None = None) -> End:
    """Run a script, warnings being errors; with `how`, signal it once it prints something."""
    command = [sys.executable, "-W", "error", "-c", SETUP + code]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            if how is not None:
                assert process.stdout is not None
                process.stdout.readline()
                process.send_signal(how)
            printed, said = process.communicate(timeout=60)
        finally:
            process.kill()
    return End(process.returncode, printed, said)


@pytest.mark.parametrize("state", STATES)
def test_a_script_ends_without_a_word(state: str) -> None:
    """Whatever its server is at, a script that comes to its end is over, and that was a success."""
    assert run(STATES[state] + "\nprint('end')") == End(0, "end\n", "")


def test_sys_exit_gives_its_status() -> None:
    """The status is the script's own, also in the middle of a forward."""
    assert run(BUSY + "sys.exit(3)") == End(3, "", "")


def test_an_exception_is_all_that_is_read() -> None:
    """The traceback of the script, and no other."""
    end = run(BUSY + "raise ValueError('mine')")

    assert end.status == 1
    assert end.said.count("Traceback") == 1
    assert end.said.endswith("ValueError: mine\n")
    assert "notebook_serve" not in end.said


def test_an_interrupt_while_a_script_waits_for_an_answer() -> None:
    """Ctrl+C in a predict() that never returns ends the script as it does any other."""
    code = "threading.Thread(target=lambda: (begun.wait(), print('asked', flush=True))).start()\n"
    end = run(code + "server.predict('never')", signal.SIGINT)

    assert end.status == -signal.SIGINT
    assert end.said.count("Traceback") == 1
    assert end.said.endswith("KeyboardInterrupt\n")


def test_an_interrupt_that_does_not_wake_the_waiting_thread() -> None:
    """predict() ends all the same: Python misses an interrupt that comes just before a wait.

    One that another thread catches is missed likewise, and that can be had at will.
    """
    code = """
server = ns.serve(model, port=0, timeout=600)

def interrupt():
    begun.wait()
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)

threading.Thread(target=interrupt).start()
try:
    server.predict("never")
except KeyboardInterrupt:
    print("interrupted", server.stats().outcomes["cancelled"])
"""
    assert run(code) == End(0, "interrupted 1\n", "")


def test_a_terminate_ends_a_script_at_once() -> None:
    """Nothing of the package stands between SIGTERM and its usual effect."""
    end = run(BUSY + "print('on', flush=True); server.predict('more')", signal.SIGTERM)

    assert end == End(-signal.SIGTERM, "", "")


def test_a_terminate_that_the_script_handles() -> None:
    """A handler that exits, as in a container, ends as quietly as sys.exit does."""
    handler = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
    end = run(handler + BUSY + "print('on', flush=True); server.predict('more')", signal.SIGTERM)

    assert end == End(0, "", "")


def test_a_stop_that_a_forward_outlasts_says_so_once() -> None:
    """Where the script itself stops the server, it is told what stop() could not do."""
    end = run("run_never(); server.stop(timeout=0.2)")

    assert end == End(0, "", "default: a forward outlasts stop(); its thread ends with it\n")


def test_a_stopped_server_is_let_go_of() -> None:
    """Nothing keeps a server, and with it its model, once it is stopped and nobody holds it."""
    server = serve(lambda inputs: inputs, port=0)
    assert httpx.post(server.url, content="x").json() == "x"
    assert server.predict("y") == "y"
    server.stop()
    watched = weakref.ref(server)
    del server
    gc.collect()

    assert watched() is None


def test_a_running_server_is_kept() -> None:
    """A server that is nobody's goes on answering, and is found again among `servers()`."""
    url = serve(lambda inputs: inputs, port=0).url
    gc.collect()

    assert httpx.post(url, content="x").json() == "x"
    assert [server.url for server in servers()] == [url]


# -- wait() ----------------------------------------------------------------------------------

WAIT = """
main = threading.get_ident()

def when_it_waits(action):
    def waits():
        frame = sys._current_frames()[main]
        inside = frame.f_code.co_filename.endswith("threading.py")
        while inside and frame.f_back:
            frame = frame.f_back
            if frame.f_code is ns.Server.wait.__code__:
                return True
        return False
    def watch():
        while not waits():
            pass
        action()
    threading.Thread(target=watch).start()

when_it_waits(ACTION)
server.wait()
print(server.state, len(ns.servers()), server.stats().outcomes["ok"])
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_wait_stops_the_server_when_it_is_interrupted(how: signal.Signals) -> None:
    """Ctrl+C or a terminate drains the server, and the script goes on after `wait`."""
    wait = WAIT.replace("ACTION", "lambda: print('on', flush=True)")
    assert run("server.predict(1)\n" + wait, how) == End(0, "stopped 0 1\n", "")


def test_wait_ends_when_another_thread_stops_the_server() -> None:
    """`stop` anywhere ends it, and it returns at once where the server is stopped already."""
    code = WAIT.replace("ACTION", "server.stop") + "server.wait()"
    assert run(code) == End(0, "stopped 0 0\n", "")


def test_wait_sees_an_interrupt_that_comes_just_before_it() -> None:
    """Python misses such a one; another thread that catches it makes the same at will."""
    interrupt = "lambda: signal.pthread_kill(threading.get_ident(), signal.SIGINT)"
    assert run(WAIT.replace("ACTION", interrupt)) == End(0, "stopped 0 0\n", "")


def test_a_second_interrupt_ends_a_stop_that_takes_long() -> None:
    """The first one waits for the forward that runs, the second raises in the script."""
    twice = """
def interrupt_twice():
    for wanted in ("ready", "stopping"):
        while server.state != wanted:
            pass
        signal.raise_signal(signal.SIGINT)

run_never()
"""
    end = run(twice + WAIT.replace("ACTION", "interrupt_twice"))
    assert end.status == -signal.SIGINT
    assert end.said.endswith("KeyboardInterrupt\n")
    assert end.printed == ""


def test_wait_leaves_a_handler_of_the_script_alone() -> None:
    """A script that handles SIGTERM itself is told by its own handler."""
    handler = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
    wait = WAIT.replace("ACTION", "lambda: print('on', flush=True)")
    assert run(handler + wait, signal.SIGTERM).status == 5


def test_wait_needs_a_server_that_was_started() -> None:
    """There is nothing to wait for before; waiting for ever would hide the mistake."""
    with pytest.raises(OptionError, match=r"call start\(\)"):
        serve(lambda inputs: inputs, start=False).wait()
