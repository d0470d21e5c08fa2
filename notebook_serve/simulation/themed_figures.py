"""Matplotlib figures that appear once in a cell and follow its theme.

A cell that ends in such a figure, or in its axes, shows it as its value. The figure is then closed
in pyplot, so that it does not appear a second time. Elsewhere in a cell, in a script and with an
interactive backend it is an ordinary pyplot figure.

It is shown as an SVG that swaps black and white on dark pages, and as a PNG on white. JupyterLab
passes its theme to an SVG, and shows the PNG in a notebook that is not trusted.
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

#: background and foreground of light and of dark pages
WHITE, BLACK = "#ffffff", "#000000"
DARK, LIGHT = "#111111", "#e8e8e8"
#: style on dark pages; matplotlib's SVG sets no colour for black text, hence the first rule
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
    """A figure that appears once in a cell, in the colours of its theme."""

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        number = getattr(self, "number", None)
        if number is not None and plt.fignum_exists(number):
            if type(self.canvas) is not FigureCanvasAgg:
                return {"text/plain": repr(self)}  # a window or a widget already shows it
            plt.close(self)
        return {"text/plain": repr(self), "image/svg+xml": svg(self), "image/png": png(self)}


class ThemedAxes(Axes):
    """Axes that show their figure if a cell ends in them."""

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        figure: Any = self.figure
        return figure._repr_mimebundle_()  # type: ignore[no-any-return]


def subplots(rows: int, columns: int, width: float, height: float, **options: Any) -> Any:
    """Create a pyplot figure and its axes, as ``pyplot.subplots`` does; sizes in inches."""
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
    """Render a figure as PNG with its own background, in base64."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    return b64encode(buffer.getvalue()).decode("ascii")


def svg(figure: Figure) -> str:
    """Render a figure as an SVG element that adapts to dark pages."""
    buffer = BytesIO()
    # Equal figures give equal text, so that running a notebook again does not change it.
    with mpl.rc_context({"svg.hashsalt": "notebook_serve"}):
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    text = buffer.getvalue().decode("utf-8")
    text = text[text.index("<svg ") :]
    if to_hex(figure.get_facecolor()) != WHITE:  # the user has chosen a style
        return text
    # The id limits the rules to this figure if a page has several.
    name = "figure-" + hashlib.sha256(text.encode()).hexdigest()[:12]
    style = DARK_STYLE.substitute(id=name, white=WHITE, black=BLACK, dark=DARK, light=LIGHT)
    return text.replace("<svg ", f'<svg id="{name}" ', 1).replace("</svg>", f"{style}</svg>")
