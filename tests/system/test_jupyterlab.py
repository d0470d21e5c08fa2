"""The package where it is meant to be used: JupyterLab in a browser, driven as a person would."""

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
#: milliseconds that nothing here should need
LIMIT = 30_000
WINDOW = ViewportSize(width=1400, height=1200)

#: what else a fresh JupyterLab would do is ask the network for news
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
        """Its answer over HTTP."""
        headers = {"Authorization": f"token {TOKEN}"}
        return httpx.request(method, self.url + path, headers=headers, timeout=60)

    def answers(self) -> bool:
        """Whether it has started."""
        assert self.process.poll() is None, "JupyterLab ended by itself"
        try:
            return self.ask("GET", "/api").is_success
        except httpx.TransportError:
            return False

    def kernels(self) -> list[psutil.Process]:
        """The processes of the notebooks that are open, the newest last."""
        children = self.process.children(recursive=True)
        return sorted(children, key=psutil.Process.create_time)

    def stop_kernels(self) -> None:
        """End those that run."""
        for kernel in self.ask("GET", "/api/kernels").json():
            self.ask("DELETE", f"/api/kernels/{kernel['id']}").raise_for_status()

    def shut_down(self) -> list[psutil.Process]:
        """End it by its own means; the processes that it leaves behind."""
        processes = [self.process, *self.process.children(recursive=True)]
        self.ask("POST", "/api/shutdown").raise_for_status()
        _, left = psutil.wait_procs(processes, timeout=60)
        return list(left)


def environment(home: Path) -> dict[str, str]:
    """That of a user who has never started Jupyter."""
    places = ("HOME", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    return {
        **os.environ,
        **{name: str(home / name) for name in places},
        "MPLCONFIGDIR": mpl.get_cachedir(),  # its list of fonts takes long to make
        "NOTEBOOK_SERVE_FAST": "1",
    }


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A fresh JupyterLab; when it ends, no kernel and no server may outlive it."""
    home = tmp_path_factory.mktemp("lab")
    told = home / "JUPYTER_CONFIG_DIR/lab/user-settings/@jupyterlab/apputils-extension"
    told.mkdir(parents=True)
    (told / "notification.jupyterlab-settings").write_text(json.dumps(SETTINGS), "utf-8")
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

# Again and again: a cell that has not been in sight has no height yet.
SCROLLED_DOWN = """() => {
  document.querySelector(".jp-WindowedPanel-outer").scrollTop = 1e6;
  return document.querySelector(".notebook-serve-live").getBoundingClientRect().bottom < 0;
}"""


class Notebook:
    """A notebook that is open, and the menus above it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.wait(IS_IDLE)

    def wait(self, condition: str, value: object = None, limit: float = LIMIT) -> None:
        """Until a function in the page says yes; at most `limit` milliseconds."""
        self.page.wait_for_function(condition, arg=value, timeout=limit, polling=100)

    def menu(self, *path: str) -> None:
        """Choose with the mouse, from a menu to what is in it."""
        for name in path:
            self.page.locator(".lm-MenuBar, .lm-Menu").get_by_text(name, exact=True).click()

    def accept(self) -> None:
        """Say yes to a dialog."""
        self.page.locator(".jp-Dialog .jp-mod-accept").click()

    def cells(self) -> list[Any]:
        """All that it holds now, as its file would."""
        return list(self.page.evaluate(CELLS))

    def ids(self) -> list[str]:
        """Those of the cells with code, in order."""
        return [cell["id"] for cell in self.cells() if cell["cell_type"] == "code"]

    def select(self, cell: str) -> None:
        """Make it the current one."""
        self.page.evaluate(SELECT, [item["id"] for item in self.cells()].index(cell))

    def ran(self, *cells: str, limit: float = LIMIT) -> None:
        """Wait until those cells are through: all if none is named."""
        self.wait(HAVE_RUN, list(cells) or self.ids(), limit)

    def run(self, cell: str) -> str:
        """Run one cell, and wait; what it shows, as text."""
        self.select(cell)
        self.menu("Run", "Run Selected Cell and Do not Advance")
        self.ran(cell)
        return self.shown(cell)

    def shown(self, cell: str) -> str:
        """What a cell shows, as text."""
        outputs = next(item["outputs"] for item in self.cells() if item["id"] == cell)
        return "\n".join(_text(output) for output in outputs)

    def complaints(self) -> list[str]:
        """The errors of all cells, and what they write on the error stream."""
        outputs = [output for cell in self.cells() for output in cell.get("outputs", [])]
        bad = [item for item in outputs if "error" in item["output_type"] + item.get("name", "")]
        return [json.dumps(item) for item in bad]

    def scroll_down(self) -> None:
        """To the end, so that no dashboard is in sight."""
        self.wait(SCROLLED_DOWN)

    @property
    def card(self) -> Locator:
        """The server's."""
        return self.page.locator(".jp-OutputArea-output", has_text="is ready").first

    @property
    def dashboard(self) -> Locator:
        """Where it is drawn; the first, where a notebook shows several."""
        return self.page.locator(".notebook-serve-live").first

    def tile(self, name: str) -> Locator:
        """One of the dashboard's figures."""
        return self.dashboard.locator(".ns-tile", has_text=name).locator(":scope > :last-child")


def _text(output: Any) -> str:
    text = output["text"] if "text" in output else output["data"]["text/plain"]
    return text if isinstance(text, str) else "".join(text)


#: opens a notebook, by name
Open = Callable[[str], Notebook]


@pytest.fixture(name="open_notebook")
def opening(browser: Browser, lab: Lab) -> Iterator[Open]:
    """Opens notebooks, in whose pages nothing may complain or ask anybody but JupyterLab."""
    context = browser.new_context(viewport=WINDOW)
    context.set_default_timeout(LIMIT)
    troubles: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        # JupyterLab warns so of its own when a kernel restarts.
        if message.type in ("error", "warning") and "Connection lost" not in message.text:
            troubles.append(message.text)

    def asked(url: str) -> None:
        if not url.removeprefix("blob:").startswith((lab.url, "data:")):
            troubles.append(f"asked {url}")

    def open_notebook(name: str) -> Notebook:
        page = context.new_page()
        page.on("console", hear)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: asked(request.url))
        page.goto(f"{lab.url}/lab/tree/{name}?reset&token={TOKEN}")
        return Notebook(page)

    yield open_notebook
    context.close()
    lab.stop_kernels()
    assert troubles == [], "\n".join(troubles)


# -- what a person sees -----------------------------------------------------------------------

#: Texts that are hard to read on what is behind them, as the Web Content Accessibility Guidelines
#: count: contrast of at least 4.5, for all but what cannot be used just now.
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
#: what the package shows in cells
OURS = ".notebook-serve-live, .jp-OutputArea-output:has(table.notebook-serve)"


def wear(notebook: Notebook, theme: str) -> None:
    """Change JupyterLab's theme with the mouse."""
    notebook.menu("Settings", "Theme", f"JupyterLab {theme}")
    light = str(theme == "Light").lower()
    notebook.wait("(light) => document.body.dataset.jpThemeLight === light", light)


def look(notebook: Notebook, theme: str, folder: Path) -> None:
    """Everything can be read, and is kept as pictures."""
    wear(notebook, theme)
    for name, place in (("card", notebook.card), ("dashboard", notebook.dashboard)):
        notebook.select(f"the-{name}")
        notebook.select(f"the-{name}")
        notebook.select(f"the-{name}")
        notebook.select(f"the-{name}")
        notebook.select(f"the-{name}")
        notebook.select(f"the-{name}")
        expect(place).to_be_in_viewport()
        # Were it told the path, it would start a thread to write.
        (folder / f"{name} {theme}.png").write_bytes(notebook.page.screenshot())
    read = notebook.page.evaluate(HARD_TO_READ, OURS)

    assert read["seen"] > 50
    assert read["found"] == []


TILES = "document.querySelector('.notebook-serve-live .ns-tiles').innerText"
CHART = "document.querySelector('.notebook-serve-live [data-chart=rates]').toDataURL()"


def moves(notebook: Notebook) -> None:
    """Wait until the dashboard's figures and the picture of its first chart are others than now."""
    expect(notebook.dashboard.locator("[data-chart=rates]")).to_be_visible(timeout=LIMIT)
    now = notebook.page.evaluate(f"() => [{TILES}, {CHART}]")
    notebook.wait(f"([tiles, chart]) => {TILES} !== tiles && {CHART} !== chart", now)


#: how much of a progress bar is done, in percent
BAR = "parseFloat(document.querySelector('.jp-OutputArea-output .progress-bar').style.width)"


def refuses(url: str) -> bool:
    """Whether nobody listens there."""
    address = httpx.URL(url)
    with socket.socket() as asking:
        return asking.connect_ex((address.host, address.port)) != 0


def test_the_quickstart_as_a_new_user_goes_through_it(
    open_notebook: Open, lab: Lab, tmp_path: Path
) -> None:
    """To a policy that is changed with the mouse, in light and in dark, to the end: no error."""
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
    moves(notebook)
    for theme in ("Light", "Dark"):
        look(notebook, theme, tmp_path)
    notebook.dashboard.get_by_role("combobox", name="policy").select_option("Greedy")
    notebook.dashboard.get_by_label("max_batch_size").fill("2")
    notebook.dashboard.get_by_role("button", name="Apply").click()
    said = "The next batch is chosen by Greedy(max_batch_size=2)."
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
    assert refuses(url)


# -- a smaller notebook, whose server tells which threads its kernel has ------------------------

LIVE = {
    "the-card": """\
import threading
from notebook_serve import serve, servers

def threads(inputs):
    return [sorted(thread.name for thread in threading.enumerate()) for _ in inputs]

server = serve(threads, port=PORT)
server""",
    # Sooner tired than it is by itself, which saves the test many seconds.
    "the-dashboard": """\
from notebook_serve.dashboard import widget

widget.UNSEEN = 2.0
dashboard = server.dashboard()
dashboard.every = 0.5
dashboard""",
    "busy": """\
from pathlib import Path

while not Path("enough").exists():
    server.predict("x")""",
    "what-is-left": "len(servers()), server.url",
}


#: the same, with a load test that lasts until it is interrupted
LOADED = {
    **LIVE,
    "busy": """\
from notebook_serve import load_test

report = load_test(server, ["x"], concurrency=2, duration=250)""",
    "what-came-of-it": "report.notes[0]",
}


def write(file: Path, sources: dict[str, str]) -> None:
    """Write a notebook with those cells, by their names."""
    code: dict[str, Any] = {
        "cell_type": "code",
        "metadata": {},
        "outputs": [],
        "execution_count": None,
    }
    cells = [{**code, "id": name, "source": source} for name, source in sources.items()]
    # So tall that nothing above is in sight from its end.
    end = {"cell_type": "markdown", "metadata": {}, "id": "the-end", "source": "the end\n\n" * 99}
    notebook = {"cells": [*cells, end], "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}
    file.write_text(json.dumps(notebook), "utf-8")


@pytest.fixture(scope="module")
def live(lab: Lab) -> str:
    """Where the server of ``live.ipynb`` is, once that has run; ``loaded.ipynb`` has the same."""
    port = str(free_port())
    for name, sources in (("live", LIVE), ("loaded", LOADED)):
        cells = {cell: source.replace("PORT", port) for cell, source in sources.items()}
        write(lab.folder / f"{name}.ipynb", cells)
    return f"http://127.0.0.1:{port}"


def seen_to_move(notebook: Notebook, enough: Path) -> None:
    """The dashboard moves while a cell is busy, which then ends, as do all others."""
    notebook.page.get_by_text("[*]:").first.wait_for()
    notebook.ran("the-dashboard")
    notebook.select("the-dashboard")
    moves(notebook)
    assert not enough.exists()
    enough.touch()
    notebook.ran()
    enough.unlink()


def test_a_restart_leaves_one_server_on_one_port(open_notebook: Open, lab: Lab, live: str) -> None:
    """Run again after a restart, all is as before; what moves, moves while a cell runs too."""
    enough = lab.folder / "enough"
    notebook = open_notebook("live.ipynb")
    notebook.menu("Run", "Run All Cells")
    seen_to_move(notebook, enough)
    left = notebook.shown("what-is-left")
    assert left == f"(1, '{live}')"
    kernel = lab.kernels()[-1]

    notebook.menu("Kernel", "Restart Kernel and Run All Cells…")
    notebook.accept()
    eventually(lambda: not kernel.is_running(), "the old kernel is gone")
    seen_to_move(notebook, enough)
    assert notebook.shown("what-is-left") == left
    assert notebook.complaints() == []
    assert len(lab.kernels()) == 1


def test_a_load_test_under_a_dashboard_is_interrupted(
    open_notebook: Open, live: str, tmp_path: Path
) -> None:
    """The dashboard moves and the progress bar too; the cells behind it run, and none complains."""
    notebook = open_notebook("loaded.ipynb")
    notebook.menu("Run", "Run All Cells")
    notebook.ran("the-dashboard")
    notebook.select("the-dashboard")
    moves(notebook)
    notebook.select("busy")
    notebook.page.get_by_text("in flight").wait_for()
    (tmp_path / "a load test.png").write_bytes(notebook.page.screenshot())
    notebook.wait(f"(then) => {BAR} > then", notebook.page.evaluate(BAR))

    notebook.menu("Kernel", "Interrupt Kernel")
    notebook.ran()
    assert "Interrupted after" in notebook.shown("what-came-of-it")
    assert notebook.complaints() == []


@pytest.fixture
def rests(live: str) -> Iterator[Callable[..., None]]:
    """Waits until no thread in the kernel works for a dashboard; or until one does."""
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
    """Its thread ends when it is out of sight, cleared or closed; with the kernel goes the rest."""
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
    assert refuses(live)
