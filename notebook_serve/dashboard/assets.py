"""Static files of the dashboard: one script for the widget and for the page, and styles."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources

#: Hides the globals of a module loader, such as that of the classic notebook. With one the chart
#: library would register itself there, and the script could not find it.
HIDE_LOADERS = "const define = undefined, exports = undefined, module = undefined;\n"


@lru_cache
def read_static(name: str) -> str:
    """Return the text of a file in the folder ``static``."""
    return (resources.files(__package__) / "static" / name).read_text("utf-8")


@lru_cache
def build_script() -> str:
    """Return a JavaScript module with the chart library that exports a widget's ``render``.

    ``render({model, el})`` has the interface of anywidget, which the page implements too. It draws
    the snapshot ``model.get("snapshot")`` into the element `el` on each change, and sends commands
    of the controls by ``model.send``.
    """
    parts = ("chart.umd.min.js", "charts.js", "dashboard.js")
    return HIDE_LOADERS + "\n".join(map(read_static, parts))
