"""The package in JupyterLab in a browser, driven by mouse and keyboard."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import matplotlib as mpl
import psutil
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, ViewportSize, expect

from ..generate.course import FOLDER, METADATA
from ..helpers.blocking_model import eventually
from ..helpers.browser import a_browser  # noqa: F401 (a fixture)

pytestmark = pytest.mark.timeout(300)

TOKEN = "of this test"
#: milliseconds after which a step fails
LIMIT = 30_000
WINDOW = ViewportSize(width=1400, height=1200)

#: settings of a JupyterLab that makes no requests to the network
SETTINGS = {"fetchNews": "false", "checkForUpdates": False}
OPTIONS = [
    "--no-browser",
    "--allow-root",
    "--ServerApp.port_retries=0",
    f"--IdentityProvider.token={TOKEN}",
    "--LabApp.extension_manager=readonly",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.expose_app_in_browser=True",
]


@dataclass
class Lab:
    """A JupyterLab with a folder of notebooks, and the process that serves it."""

    url: str
    folder: Path
    process: psutil.Popen

    def ask(self, method: str, path: str) -> httpx.Response:
        """Send a request over HTTP."""
        headers = {"Authorization": f"token {TOKEN}"}
        return httpx.request(method, self.url + path, headers=headers, timeout=60)

    def answers(self) -> bool:
        """Return True if it has started."""
        assert self.process.poll() is None, "JupyterLab ended by itself"
        try:
            return self.ask("GET", "/api").is_success
        except httpx.TransportError:
            return False

    def kernels(self) -> list[psutil.Process]:
        """Return the processes of open notebooks, the newest last."""
        children = self.process.children(recursive=True)
        return sorted(children, key=psutil.Process.create_time)

    def stop_kernels(self) -> None:
        """Shut all kernels down."""
        for kernel in self.ask("GET", "/api/kernels").json():
            self.ask("DELETE", f"/api/kernels/{kernel['id']}").raise_for_status()

    def shut_down(self) -> list[psutil.Process]:
        """Shut it down over HTTP; return the processes that are left."""
        processes = [self.process, *self.process.children(recursive=True)]
        self.ask("POST", "/api/shutdown").raise_for_status()
        _, left = psutil.wait_procs(processes, timeout=60)
        return list(left)


def environment(home: Path) -> dict[str, str]:
    """Return the environment of a user without any Jupyter settings."""
    places = ("HOME", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    return {
        **os.environ,
        **{name: str(home / name) for name in places},
        "MPLCONFIGDIR": mpl.get_cachedir(),  # its list of fonts takes seconds to build
        "NOTEBOOK_SERVE_FAST": "1",
    }


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Start a fresh JupyterLab; at its end, fail if a kernel or a server is left."""
    home = tmp_path_factory.mktemp("lab")
    settings = home / "JUPYTER_CONFIG_DIR/lab/user-settings/@jupyterlab/apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(SETTINGS), "utf-8")
    folder = Path(shutil.copytree(FOLDER, home / "notebooks"))
    port = free_port()
    command = [sys.executable, "-m", "jupyterlab", *OPTIONS, f"--port={port}"]
    with (home / "log").open("w") as log:
        process = psutil.Popen(
            [*command, f"--ServerApp.root_dir={folder}"],
            env=environment(home),
            cwd=home,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    lab = Lab(f"http://127.0.0.1:{port}", folder, process)
    try:
        eventually(lab.answers, "JupyterLab has started", seconds=60)
        yield lab
        left = lab.shut_down()
        assert not left, f"still running: {left}"
    finally:
        for item in [*process.children(recursive=True), process] if process.is_running() else []:
            item.kill()
        process.wait()


# -- a notebook in the browser ----------------------------------------------------------------

PANEL = "jupyterapp.shell.currentWidget"
IS_IDLE = (
    f"() => globalThis.jupyterapp && {PANEL}?.sessionContext?.session?.kernel?.status === 'idle'"
)
CELLS = f"() => {PANEL}.content.model.toJSON().cells"
SELECT = f"""async (n) => {{
  {PANEL}.content.activeCellIndex = n;
  await {PANEL}.content.scrollToCell({PANEL}.content.widgets[n], "start");
}}"""
HAVE_RUN = f"""(ids) => {PANEL}.content.widgets
  .filter(({{ model }}) => ids.includes(model.id))
  .every(({{ prompt }}) => /\\d/.test(prompt))"""

# Repeated by `wait`: a cell that was never visible has no height yet.
SCROLLED_DOWN = """() => {
  document.querySelector(".jp-WindowedPanel-outer").scrollTop = 1e6;
  return document.querySelector(".notebook-serve-live").getBoundingClientRect().bottom < 0;
}"""


class Notebook:
    """An open notebook, and the menus above it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.wait(IS_IDLE)

    def wait(self, condition: str, value: object = None, limit: float = LIMIT) -> None:
        """Wait until a function in the page returns true, at most `limit` milliseconds."""
        self.page.wait_for_function(condition, arg=value, timeout=limit, polling=100)

    def menu(self, *path: str) -> None:
        """Click an item of a menu; `path` is the names from the menu bar to the item."""
        for name in path:
            self.page.locator(".lm-MenuBar, .lm-Menu").get_by_text(name, exact=True).click()

    def accept(self) -> None:
        """Accept a dialog."""
        self.page.locator(".jp-Dialog .jp-mod-accept").click()

    def cells(self) -> list[Any]:
        """Return all cells in their present state, as in the file."""
        return list(self.page.evaluate(CELLS))

    def ids(self) -> list[str]:
        """Return the ids of the cells with code, in order."""
        return [cell["id"] for cell in self.cells() if cell["cell_type"] == "code"]

    def select(self, cell: str) -> None:
        """Select a cell."""
        self.page.evaluate(SELECT, [item["id"] for item in self.cells()].index(cell))

    def ran(self, *cells: str, limit: float = LIMIT) -> None:
        """Wait until these cells have run; all cells if none is named."""
        self.wait(HAVE_RUN, list(cells) or self.ids(), limit)

    def run(self, cell: str) -> str:
        """Run one cell, wait, and return its outputs as text."""
        self.select(cell)
        self.menu("Run", "Run Selected Cell and Do not Advance")
        self.ran(cell)
        return self.shown(cell)

    def shown(self, cell: str) -> str:
        """Return the outputs of a cell as text."""
        outputs = next(item["outputs"] for item in self.cells() if item["id"] == cell)
        return "\n".join(_text(output) for output in outputs)

    def complaints(self) -> list[str]:
        """Return the errors of all cells, and their outputs on the error stream."""
        outputs = [output for cell in self.cells() for output in cell.get("outputs", [])]
        bad = [item for item in outputs if "error" in item["output_type"] + item.get("name", "")]
        return [json.dumps(item) for item in bad]

    def scroll_down(self) -> None:
        """Scroll to the end, so that no dashboard is visible."""
        self.wait(SCROLLED_DOWN)

    @property
    def card(self) -> Locator:
        """The card of the server."""
        return self.page.locator(".jp-OutputArea-output", has_text="is ready").first

    @property
    def dashboard(self) -> Locator:
        """The first dashboard in the notebook."""
        return self.page.locator(".notebook-serve-live").first

    def tile(self, name: str) -> Locator:
        """Return the value of a tile of the dashboard."""
        return self.dashboard.locator(".ns-tile", has_text=name).locator(":scope > :last-child")


def _text(output: Any) -> str:
    text = output["text"] if "text" in output else output["data"]["text/plain"]
    return text if isinstance(text, str) else "".join(text)


#: function that opens a notebook by name
Open = Callable[[str], Notebook]


@pytest.fixture(name="open_notebook")
def opening(browser: Browser, lab: Lab) -> Iterator[Open]:
    """Return a function that opens notebooks; fail if one logs an error or leaves JupyterLab."""
    context = browser.new_context(viewport=WINDOW)
    context.set_default_timeout(LIMIT)
    troubles: list[str] = []

    def collect(message: ConsoleMessage) -> None:
        # JupyterLab itself logs this warning when a kernel restarts.
        if message.type in ("error", "warning") and "Connection lost" not in message.text:
            troubles.append(message.text)

    def check_url(url: str) -> None:
        if not url.removeprefix("blob:").startswith((lab.url, "data:")):
            troubles.append(f"requested {url}")

    def open_notebook(name: str) -> Notebook:
        page = context.new_page()
        page.on("console", collect)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: check_url(request.url))
        page.goto(f"{lab.url}/lab/tree/{name}?reset&token={TOKEN}")
        return Notebook(page)

    yield open_notebook
    context.close()
    lab.stop_kernels()
    assert troubles == [], "\n".join(troubles)


# -- the quickstart --------------------------------------------------------------------------

#: Function that returns texts with too little contrast to their background: below 4.5, as the Web
#: Content Accessibility Guidelines define it. Disabled elements are left out.
HARD_TO_READ = """(selector) => {
  const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const mixed = (colours) => {
    paint.clearRect(0, 0, 1, 1);
    for (const colour of ["#fff", ...colours]) {
      paint.fillStyle = colour;
      paint.fillRect(0, 0, 1, 1);
    }
    return [...paint.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => {
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = rgb.map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) =>
    node ? [...behind(node.parentElement), getComputedStyle(node).backgroundColor] : [];
  const contrast = (node, colour) => {
    const ground = behind(node);
    const [a, b] = [light(mixed(ground)), light(mixed([...ground, colour]))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  const found = [];
  const look = (node, colour, text) => {
    const value = contrast(node, colour);
    if (value < 4.5) found.push(`${value.toFixed(2)} ${text}`);
  };
  let seen = 0;
  for (const root of document.querySelectorAll(selector)) {
    const texts = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
      const { parentElement: node, data } = texts.currentNode;
      if (!/\\w/.test(data) || !node.checkVisibility()) continue;
      if (node.closest("style, :disabled")) continue;
      seen += 1;
      look(node, getComputedStyle(node).color, data);
    }
    for (const canvas of root.querySelectorAll("canvas")) {
      for (const scale of Object.values(Chart.getChart(canvas)?.scales ?? {})) {
        seen += 1;
        look(canvas, scale.options.ticks.color, `${canvas.dataset.chart} ${scale.id}`);
      }
    }
  }
  return { seen, found };
}"""
#: outputs of the package in cells
OURS = ".notebook-serve-live, .jp-OutputArea-output:has(table.notebook-serve)"


def set_theme(notebook: Notebook, theme: str) -> None:
    """Change JupyterLab's theme in the menu."""
    notebook.menu("Settings", "Theme", f"JupyterLab {theme}")
    light = str(theme == "Light").lower()
    notebook.wait("(light) => document.body.dataset.jpThemeLight === light", light)


def check_contrast(notebook: Notebook, theme: str, folder: Path) -> None:
    """Check that all texts are readable, and keep screenshots."""
    set_theme(notebook, theme)
    for name, place in (("card", notebook.card), ("dashboard", notebook.dashboard)):
        notebook.select(f"the-{name}")
        notebook.select(f"the-{name}")
        notebook.select(f"the-{name}")
        notebook.select(f"the-{name}")
        notebook.select(f"the-{name}")
        notebook.select(f"the-{name}")
        expect(place).to_be_in_viewport()
        # With a path, playwright starts a thread to write the file.
        (folder / f"{name} {theme}.png").write_bytes(notebook.page.screenshot())
    read = notebook.page.evaluate(HARD_TO_READ, OURS)

    assert read["seen"] > 50
    assert read["found"] == []


TILES = "document.querySelector('.notebook-serve-live .ns-tiles').innerText"
CHART = "document.querySelector('.notebook-serve-live [data-chart=rates]').toDataURL()"


def wait_for_update(notebook: Notebook) -> None:
    """Wait until the dashboard's tiles and its first chart have changed."""
    expect(notebook.dashboard.locator("[data-chart=rates]")).to_be_visible(timeout=LIMIT)
    now = notebook.page.evaluate(f"() => [{TILES}, {CHART}]")
    notebook.wait(f"([tiles, chart]) => {TILES} !== tiles && {CHART} !== chart", now)


#: percent done of a progress bar
BAR = "parseFloat(document.querySelector('.jp-OutputArea-output .progress-bar').style.width)"


def is_closed(url: str) -> bool:
    """Return True if the port of a URL is not open."""
    address = httpx.URL(url)
    with socket.socket() as connection:
        return connection.connect_ex((address.host, address.port)) != 0


def test_the_quickstart_with_the_mouse(open_notebook: Open, lab: Lab, tmp_path: Path) -> None:
    """A user runs it, changes the policy with the mouse, in both themes, without an error."""
    notebook = open_notebook("00_quickstart.ipynb")
    cells = notebook.ids()
    click = cells.index("which-policy")
    notebook.select("which-policy")
    notebook.menu("Run", "Run All Above Selected Cell")
    notebook.dashboard.scroll_into_view_if_needed()
    notebook.ran(*cells[:click])
    assert notebook.complaints() == []
    url = notebook.card.get_by_role("link").get_attribute("href")
    assert url is not None
    assert "BertForMaskedLM" in (notebook.card.text_content() or "")

    notebook.select("the-dashboard")
    wait_for_update(notebook)
    for theme in ("Light", "Dark"):
        check_contrast(notebook, theme, tmp_path)
    notebook.dashboard.get_by_role("combobox", name="policy").select_option("Greedy")
    notebook.dashboard.get_by_label("max_batch_size").fill("2")
    notebook.dashboard.get_by_role("button", name="Apply").click()
    said = "Applied: the next batch uses Greedy(max_batch_size=2)."
    notebook.dashboard.get_by_text(said).wait_for()
    assert notebook.run("which-policy").startswith("Greedy(max_batch_size=2)")
    notebook.select("the-dashboard")
    notebook.dashboard.get_by_role("button", name="Pause").click()
    expect(notebook.tile("waiting")).to_have_text("16", timeout=LIMIT)
    notebook.dashboard.get_by_role("button", name="Resume").click()
    expect(notebook.tile("waiting")).not_to_have_text("16", timeout=LIMIT)

    notebook.select("which-policy")
    notebook.menu("Run", "Run Selected Cell and All Below")
    notebook.ran()
    assert "is stopped" in notebook.shown("stop")
    assert notebook.complaints() == []
    assert is_closed(url)


# -- a smaller notebook, whose server returns the threads of its kernel -------------------------

LIVE = {
    "the-card": """\
import threading
from notebook_serve import serve, servers

def threads(inputs):
    return [sorted(thread.name for thread in threading.enumerate()) for _ in inputs]

server = serve(threads, port=PORT)
server""",
    # A shorter rest than the default, which saves the test many seconds.
    "the-dashboard": """\
from notebook_serve.dashboard import widget

widget.TIMEOUT = 2.0
dashboard = server.dashboard()
dashboard.every = 0.5
dashboard""",
    "busy": """\
from pathlib import Path

while not Path("enough").exists():
    server.predict("x")""",
    "what-is-left": "len(servers()), server.url",
}


#: the same cells, with a load test that lasts until it is interrupted
LOADED = {
    **LIVE,
    "busy": """\
from notebook_serve import load_test

report = load_test(server, ["x"], concurrency=2, duration=250)""",
    "the-note": "report.notes[0]",
}


def write(file: Path, sources: dict[str, str]) -> None:
    """Write a notebook with these cells, by their names."""
    code: dict[str, Any] = {
        "cell_type": "code",
        "metadata": {},
        "outputs": [],
        "execution_count": None,
    }
    cells = [{**code, "id": name, "source": source} for name, source in sources.items()]
    # So tall that no other cell is visible at its end.
    end = {"cell_type": "markdown", "metadata": {}, "id": "the-end", "source": "the end\n\n" * 99}
    notebook = {"cells": [*cells, end], "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}
    file.write_text(json.dumps(notebook), "utf-8")


@pytest.fixture(scope="module")
def live(lab: Lab) -> str:
    """Write ``live.ipynb`` and ``loaded.ipynb``; return the URL of their server."""
    port = str(free_port())
    for name, sources in (("live", LIVE), ("loaded", LOADED)):
        cells = {cell: source.replace("PORT", port) for cell, source in sources.items()}
        write(lab.folder / f"{name}.ipynb", cells)
    return f"http://127.0.0.1:{port}"


def check_updates_while_busy(notebook: Notebook, enough: Path) -> None:
    """Check that the dashboard updates while a cell is busy; then let all cells end."""
    notebook.page.get_by_text("[*]:").first.wait_for()
    notebook.ran("the-dashboard")
    notebook.select("the-dashboard")
    wait_for_update(notebook)
    assert not enough.exists()
    enough.touch()
    notebook.ran()
    enough.unlink()


def test_a_restart_leaves_one_server_on_one_port(open_notebook: Open, lab: Lab, live: str) -> None:
    """After a restart all works as before; the dashboard updates while a cell runs, too."""
    enough = lab.folder / "enough"
    notebook = open_notebook("live.ipynb")
    notebook.menu("Run", "Run All Cells")
    check_updates_while_busy(notebook, enough)
    left = notebook.shown("what-is-left")
    assert left == f"(1, '{live}')"
    kernel = lab.kernels()[-1]

    notebook.menu("Kernel", "Restart Kernel and Run All Cells…")
    notebook.accept()
    eventually(lambda: not kernel.is_running(), "the old kernel is gone")
    check_updates_while_busy(notebook, enough)
    assert notebook.shown("what-is-left") == left
    assert notebook.complaints() == []
    assert len(lab.kernels()) == 1


def test_a_load_test_under_a_dashboard_is_interrupted(
    open_notebook: Open, live: str, tmp_path: Path
) -> None:
    """The dashboard and the progress bar update; the next cells run without an error."""
    notebook = open_notebook("loaded.ipynb")
    notebook.menu("Run", "Run All Cells")
    notebook.ran("the-dashboard")
    notebook.select("the-dashboard")
    wait_for_update(notebook)
    notebook.select("busy")
    notebook.page.get_by_text("in flight").wait_for()
    (tmp_path / "a load test.png").write_bytes(notebook.page.screenshot())
    notebook.wait(f"(then) => {BAR} > then", notebook.page.evaluate(BAR))

    notebook.menu("Kernel", "Interrupt Kernel")
    notebook.ran()
    assert "Interrupted after" in notebook.shown("the-note")
    assert notebook.complaints() == []


@pytest.fixture
def rests(live: str) -> Iterator[Callable[..., None]]:
    """Return a function that waits until the kernel has no thread for a dashboard, or has one."""
    with httpx.Client(base_url=live) as client:

        def threads() -> int:
            names = client.post("/", content="x").raise_for_status().json()
            return sum("dashboard" in name for name in names)

        def rests(wanted: bool = True) -> None:
            eventually(lambda: threads() == (not wanted), f"rests: {wanted}")

        yield rests


def test_a_dashboard_out_of_sight_rests_and_a_closed_notebook_leaves_nothing(
    open_notebook: Open, lab: Lab, live: str, rests: Callable[..., None]
) -> None:
    """Its thread ends if it is hidden, cleared or closed; all else ends with the kernel."""
    enough = lab.folder / "enough"
    enough.touch()
    notebook = open_notebook("live.ipynb")
    notebook.menu("Run", "Run All Cells")
    notebook.ran()
    notebook.select("the-dashboard")
    rests(False)
    notebook.scroll_down()
    rests()
    notebook.select("the-dashboard")
    rests(False)

    notebook.menu("Edit", "Clear Cell Output")
    expect(notebook.dashboard).to_have_count(0)
    rests()
    notebook.run("the-dashboard")
    rests(False)
    notebook.menu("File", "Save Notebook")
    notebook.menu("File", "Close Tab")
    rests()

    kernels = lab.kernels()
    notebook.menu("Kernel", "Shut Down All Kernels…")
    notebook.accept()
    _, running = psutil.wait_procs(kernels, timeout=60)
    assert running == []
    assert is_closed(live)
