"""Real IPython kernels, and cells that run in them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import Any

from jupyter_client.manager import KernelManager

#: seconds within which all cells that are sent at once must end
LIMIT = 100.0

#: beginnings of lines on the error stream that are the kernel's own: its log, and an assertion of
#: libzmq that rarely fails while the kernel shuts down (libzmq's issues 1307 and 3715)
KERNELS_OWN = ("[IPKernelApp]", "Assertion failed: pfd.revents & POLLIN")


@dataclass
class Output:
    """Outputs of one cell."""

    printed: str = ""
    complaints: str = ""
    #: the last output of each media type
    shown: dict[str, str] = field(default_factory=dict)


class Notebook:
    """A kernel that runs cells."""

    def __init__(self, manager: Any, client: Any, errors: Path) -> None:
        self._manager = manager
        self._client = client
        self._errors = errors

    def run(self, cell: str, interrupt_at: str | None = None) -> tuple[str, dict[str, str]]:
        """Run a cell; return the text that it prints and its outputs by media type.

        Fails if the cell raises. With `interrupt_at`, interrupt the kernel once that is printed.
        """
        printed: list[str] = []
        shown: dict[str, str] = {}

        def collect(message: dict[str, Any]) -> None:
            content = message["content"]
            if message["msg_type"] == "stream":
                printed.append(content["text"])
                if interrupt_at is not None and interrupt_at in content["text"]:
                    self.interrupt()
            elif message["msg_type"] in ("execute_result", "display_data"):
                shown.update(content["data"])

        reply = self._client.execute_interactive(cell, output_hook=collect, timeout=120)
        content = reply["content"]
        assert content["status"] == "ok", "\n".join(content.get("traceback", []))
        return "".join(printed), shown

    def run_all(self, *cells: str, interrupt_at: str | None = None) -> list[Output]:
        """Send all cells at once, as *Run All Cells* does; return the outputs of each at the end.

        Fails unless all are answered in their order, without an error and without a warning.
        """
        sent = [self._client.execute(cell) for cell in cells]
        outputs = {name: Output() for name in sent}
        self._collect(outputs, time.monotonic() + LIMIT, interrupt_at)
        answers = [self._client.get_shell_msg(timeout=LIMIT) for _ in sent]
        assert [answer["parent_header"]["msg_id"] for answer in answers] == sent
        assert [answer["content"]["status"] for answer in answers] == ["ok"] * len(sent), outputs
        assert "".join(output.complaints for output in outputs.values()) == ""
        return list(outputs.values())

    def _collect(
        self, outputs: dict[str, Output], deadline: float, interrupt_at: str | None
    ) -> None:
        """Sort messages by their cells, until each cell has ended."""
        run = set(outputs)
        while run:
            try:
                message = self._client.get_iopub_msg(timeout=deadline - time.monotonic())
            except (Empty, ValueError):
                raise AssertionError(f"{len(run)} of {len(outputs)} cells are lost") from None
            name, content = message["parent_header"].get("msg_id"), message["content"]
            if name not in outputs:
                continue
            if message["msg_type"] == "stream" and content["name"] == "stdout":
                outputs[name].printed += content["text"]
                if interrupt_at is not None and interrupt_at in content["text"]:
                    self.interrupt()
            elif message["msg_type"] == "stream":
                outputs[name].complaints += content["text"]
            elif message["msg_type"] == "error":
                outputs[name].complaints += "\n".join(content["traceback"])
            elif message["msg_type"] in ("execute_result", "display_data"):
                outputs[name].shown.update(content["data"])
            elif message["msg_type"] == "status" and content["execution_state"] == "idle":
                run.discard(name)

    def tell(self, widget: str, **content: Any) -> None:
        """Send a widget a message, as its page in the browser does."""
        data = {"method": "custom", "content": content}
        message = self._client.session.msg("comm_msg", {"comm_id": widget, "data": data})
        self._client.shell_channel.send(message)

    def interrupt(self) -> None:
        """Interrupt the kernel as its menu does."""
        os.kill(self._manager.provisioner.pid, signal.SIGINT)

    def restart(self) -> int:
        """Restart the kernel as its menu does; return the exit status of the old process."""
        process = self._manager.provisioner.process
        self._manager.restart_kernel()
        self._client.wait_for_ready(timeout=120)
        return int(process.returncode)

    def shut_down(self) -> int:
        """Shut the kernel down as its menu does; return its exit status."""
        process = self._manager.provisioner.process
        self._manager.shutdown_kernel()
        return int(process.returncode)

    def error_lines(self) -> list[str]:
        """Return the lines of the process's error stream, without the kernel's own."""
        lines = self._errors.read_text("utf-8").splitlines()
        return [line for line in lines if not line.startswith(KERNELS_OWN)]


@contextmanager
def kernel(
    errors: Path, command: Sequence[str] = (), environment: dict[str, str] | None = None
) -> Iterator[Notebook]:
    """Start a kernel, by `command` if there is one; its process writes its errors into `errors`."""
    manager = KernelManager()
    manager.shutdown_wait_time = 60.0  # seconds; SIGTERM follows after half of it
    assert manager.kernel_spec is not None
    manager.kernel_spec.argv = list(command) or manager.kernel_spec.argv
    with errors.open("w") as file:  # a restarted kernel gets it too
        manager.start_kernel(stderr=file, env={**os.environ, **(environment or {})})
        client = manager.client()
        client.start_channels()
        try:
            client.wait_for_ready(timeout=120)
            yield Notebook(manager, client, errors)
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
