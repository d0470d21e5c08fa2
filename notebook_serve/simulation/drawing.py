"""Matplotlib figures that show once in a cell, and follow its theme.

A cell that ends in such a figure, or in its axes, shows it as its value; pyplot then forgets it,
so that it is not shown again when the cell is done. Elsewhere in a cell, in a script and with an
interactive backend it is a figure of pyplot like any other.

It is shown as SVG whose black and white change places where the page is dark, and as PNG on white.
JupyterLab tells an SVG which theme it has, and shows the PNG in a notebook that is not trusted.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from io import BytesIO
from string import Template
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

#: the grounds on which marks and text are seen, and the ink of each
WHITE, BLACK = "#ffffff", "#000000"
DARK, LIGHT = "#111111", "#e8e8e8"
#: Where the page is dark. Text has no colour of its own in matplotlib's SVG while it is black.
DARK_STYLE = Template("""<style>@media (prefers-color-scheme: dark) {
#$id { fill: $light; }
#$id [style*="fill: $black"] { fill: $light !important; }
#$id [style*="stroke: $black"] { stroke: $light !important; }
#$id [style*="fill: $white"] { fill: $dark !important; }
#$id [style*="stroke: $white"] { stroke: $dark !important; }
#$id [style*="stroke: #cccccc"] { stroke: #555555 !important; }
}</style>
""")


class ThemedFigure(Figure):
    """A figure that a cell shows once, in the colours of its theme."""

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        number = getattr(self, "number", None)
        if number is not None and plt.fignum_exists(number):
            if type(self.canvas) is not FigureCanvasAgg:
                return {"text/plain": repr(self)}  # a window, or a widget, shows it already
            plt.close(self)
        return {"text/plain": repr(self), "image/svg+xml": svg(self), "image/png": png(self)}


class ThemedAxes(Axes):
    """Axes that show their figure where a cell ends in them."""

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        figure: Any = self.figure
        return figure._repr_mimebundle_()  # type: ignore[no-any-return]


def subplots(rows: int, columns: int, width: float, height: float, **options: Any) -> Any:
    """A new figure of pyplot's and its axes, as ``pyplot.subplots`` gives them; in inches."""
    return plt.subplots(
        rows,
        columns,
        figsize=(width, height),
        layout="constrained",
        FigureClass=ThemedFigure,
        subplot_kw={"axes_class": ThemedAxes},
        **options,
    )


def png(figure: Figure) -> str:
    """A figure as PNG on a ground of its own, in base64."""
    written = BytesIO()
    figure.savefig(written, format="png", bbox_inches="tight")
    return b64encode(written.getvalue()).decode("ascii")


def svg(figure: Figure) -> str:
    """A figure as SVG: an element that can be put into a page, dark where that is."""
    written = BytesIO()
    # The same figure is the same text, so that a notebook that is run again does not change.
    with mpl.rc_context({"svg.hashsalt": "notebook_serve"}):
        figure.savefig(written, format="svg", bbox_inches="tight", metadata={"Date": None})
    text = written.getvalue().decode("utf-8")
    text = text[text.index("<svg ") :]
    if to_hex(figure.get_facecolor()) != WHITE:  # a style of the user's own
        return text
    # The rules hold for this figure only, also where several stand in one page.
    name = "figure-" + hashlib.sha256(text.encode()).hexdigest()[:12]
    style = DARK_STYLE.substitute(id=name, white=WHITE, black=BLACK, dark=DARK, light=LIGHT)
    return text.replace("<svg ", f'<svg id="{name}" ', 1).replace("</svg>", f"{style}</svg>")
