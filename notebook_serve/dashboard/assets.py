"""What draws a picture of a server in a browser: one script for the widget and for the page."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources

#: A script may be loaded where another has defined these (as in the classic notebook), and then
#: the chart library would hand itself over to that one.
ALONE = "const define = undefined, exports = undefined, module = undefined;\n"


@lru_cache
def source(name: str) -> str:
    """A file of the folder ``static``."""
    return (resources.files(__package__) / "static" / name).read_text("utf-8")


@lru_cache
def script() -> str:
    """A JavaScript module that brings the chart library, and exports a widget's ``render``.

    ``render({model, el})`` draws into the element `el` what ``model.get("picture")`` is, whenever
    `model` says that it changed, and tells `model` what a control asks for: the interface of
    anywidget, which the page has as well.
    """
    parts = ("chart.umd.min.js", "charts.js", "dashboard.js")
    return ALONE + "\n".join(map(source, parts))
