"""Outputs of the course, made anew: ``python -m tests.generate.course [NAME...]``.

Runs each notebook from top to bottom in a fresh kernel, one after the other, with the full
settings. Writes its outputs into its file, without data that differs from run to run for no reason.
All cells are sent at once, as *Run All Cells* does, and run in their order. If a notebook fails,
its file stays as it is and the exit status is 1. With ``--fast`` two notebooks run at a time with
the fast settings, no file is written, and a line of JSON reports the result of each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Awaitable, Iterator, Sequence
from pathlib import Path
from typing import Any

import nbformat

from tests.helpers.kernels import KERNELS_OWN

FOLDER = Path(__file__).parents[2] / "notebooks"
#: names of the notebooks, in reading order
COURSE = (
    "00_quickstart",
    "01_why_a_queue",
    "02_dynamic_batching",
    "03_padding",
    "04_overload",
    "05_when_things_break",
    "06_your_own_policy",
    "07_capacity",
    "08_your_pipeline",
)
#: notebooks that run at a time with the fast settings
TOGETHER = 2
#: seconds that a cell may take, from the end of the previous one
TIMEOUT, FAST_TIMEOUT = 240, 120
METADATA = {
    "kernelspec": {
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "name": "python3",
    },
    "language_info": {"name": "python"},
}
#: escape sequences of coloured text
COLOURS = re.compile(r"\x1b\[[\d;]*m")
WIDGET = "application/vnd.jupyter.widget-view+json"
#: source of a last cell, which is not kept
NOTHING_IS_LEFT = """\
import notebook_serve, psutil
assert not notebook_serve.servers(), f"still running: {notebook_serve.servers()}"
assert not psutil.Process().children(), f"still running: {psutil.Process().children()}"
"""


class Failed(Exception):
    """A notebook that wrote to its error stream."""


async def execute(path: Path, fast: bool) -> Any:
    """Run all cells of the notebook at `path`; return it with new outputs.

    Raises `Failed` if it writes to its error stream, and nbclient's errors if a cell fails or gets
    no reply, or if a server or a process is left running.
    """
    from nbclient import NotebookClient

    notebook: Any = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    last = nbformat.v4.new_code_cell(NOTHING_IS_LEFT)  # type: ignore[no-untyped-call]
    notebook.cells.append(last)
    client: Any = NotebookClient(
        notebook,
        timeout=FAST_TIMEOUT if fast else TIMEOUT,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        store_widget_state=False,
        on_notebook_start=lambda notebook: send_all_at_once(client.kc, notebook),
    )
    with tempfile.TemporaryFile("w+") as errors:
        await client.async_execute(cwd=str(path.parent), env=environment(fast), stderr=errors)
        errors.seek(0)
        lines = [line for line in errors if not line.startswith(KERNELS_OWN)]
    lines += [output.text for output in shown(notebook) if output.get("name") == "stderr"]
    if lines:
        raise Failed("on the error stream: " + "".join(lines))
    notebook.cells.remove(last)
    return notebook


def send_all_at_once(client: Any, notebook: Any) -> None:
    """Make `client` send all cells when nbclient sends the first.

    By default nbclient sends a cell when the previous one has ended, so that no cell ever waits in
    the kernel. Afterwards it requests the cells in their order, and nothing else.
    """
    send = client.execute
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]

    def send_all() -> Iterator[str]:
        yield from [send(source) for source in sources]

    sent = send_all()
    client.execute = lambda source, **options: next(sent)


def environment(fast: bool) -> dict[str, str]:
    """Return the environment of a kernel: offline, with figures in the cells."""
    offline = {"HF_HUB_OFFLINE": "1", "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    kept = {name: value for name, value in os.environ.items() if name != "NOTEBOOK_SERVE_FAST"}
    return {**kept, **offline, **({"NOTEBOOK_SERVE_FAST": "1"} if fast else {})}


def shown(notebook: Any) -> list[Any]:
    """Return all outputs of all cells."""
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def tidy(notebook: Any) -> None:
    """Remove data that a reader does not see or that differs from run to run for no reason."""
    notebook.metadata = nbformat.from_dict(METADATA)  # type: ignore[no-untyped-call]
    for cell in notebook.cells:
        cell.metadata.clear()
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if not is_progress_bar(output)]
    for output in shown(notebook):
        if "data" in output:
            output.data.pop(WIDGET, None)  # its state lived in the kernel
            if "image/png" in output.data:
                output.data.pop("image/svg+xml", None)  # several times as large
            output.metadata.clear()
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if output.get("data") != {}]


def is_progress_bar(output: Any) -> bool:
    """Return True for a widget without HTML, such as a progress bar, which a file shows at 0 %."""
    data = output.get("data", {})
    return WIDGET in data and "text/html" not in data


async def attempt(work: Awaitable[Any]) -> tuple[Any, float, str]:
    """Return the result of some work, the seconds that it took, and its error message."""
    began = time.monotonic()
    try:
        return await work, time.monotonic() - began, ""
    except Exception as error:
        message = f"{type(error).__name__}: {COLOURS.sub('', str(error))}"
        return None, time.monotonic() - began, message


async def make_anew(paths: Sequence[Path]) -> bool:
    """Execute and write each notebook; return True if none failed."""
    succeeded = True
    for path in paths:
        notebook, seconds, error = await attempt(execute(path, fast=False))
        if error:
            succeeded = False
        else:
            tidy(notebook)
            nbformat.write(notebook, path)  # type: ignore[no-untyped-call]
        print(f"{path.stem}: {'FAILED after ' if error else ''}{seconds:.1f} s", flush=True)  # noqa: T201
        if error:
            print(error, file=sys.stderr, flush=True)  # noqa: T201
    return succeeded


async def try_fast(paths: Sequence[Path]) -> bool:
    """Execute all, some at a time; print each result as it ends; return True if none failed."""
    # It may have to build its list of fonts and warn: here once instead of in two kernels.
    import matplotlib.font_manager  # noqa: F401

    places = asyncio.Semaphore(TOGETHER)

    async def one(path: Path) -> bool:
        async with places:
            _, seconds, error = await attempt(execute(path, fast=True))
        result = {"name": path.stem, "seconds": round(seconds, 1), "error": error}
        print(json.dumps(result), flush=True)  # noqa: T201
        return not error

    return all(await asyncio.gather(*map(one, paths)))


def main() -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.generate.course", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="such as 00_quickstart; all by default"
    )
    parser.add_argument(
        "--fast", action="store_true", help="run them with the fast settings, write no file"
    )
    wanted = parser.parse_args()
    names = wanted.names or [path.stem for path in sorted(FOLDER.glob("*.ipynb"))]
    paths = [FOLDER / f"{Path(name).stem}.ipynb" for name in names]
    run = try_fast if wanted.fast else make_anew
    return 0 if asyncio.run(run(paths)) else 1


if __name__ == "__main__":
    sys.exit(main())
