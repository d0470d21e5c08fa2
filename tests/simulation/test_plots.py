"""Plots are readable on light and dark pages, and with colour blindness."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb

from notebook_serve.lab.compare import compare
from notebook_serve.queueing.cost_model import CostModel
from notebook_serve.queueing.policies import CoDel, Greedy, LengthAware, NoBatching, Policy, Window
from notebook_serve.queueing.record_log import RequestLog
from notebook_serve.records import PolicyChange, RequestRecord
from notebook_serve.simulation.plots import LOST, MOST_NAMED, MOST_SHAPES, PALETTE, SIZES, WAITS
from notebook_serve.simulation.report import Report
from notebook_serve.simulation.simulator import simulate
from notebook_serve.simulation.themed_figures import DARK, LIGHT, svg
from notebook_serve.traffic import LogNormal, Poisson

mpl.use("Agg")

COST = CostModel(0.0065, 0.0004, 0.00017)
#: a bad fit, to small batches of short inputs
BAD = replace(COST, error=0.69, batches=30, largest=4, longest=20)
MIXED = LogNormal(22, 0.9, 4, 128)
CHANGES = (PolicyChange(1.4, "NoBatching()"), PolicyChange(3.2, "Greedy(8)", "fault"))
POLICIES: list[Policy] = [
    NoBatching(), Greedy(4), Greedy(16), LengthAware(), Window(8, 0.02), CoDel(Greedy(8)),
]  # fmt: skip


@pytest.fixture(autouse=True)
def no_figure_left() -> Iterator[None]:
    """Close the figures of a test."""
    yield
    plt.close("all")


def run(cost: CostModel = COST, rate: float = 75.0, **options: Any) -> Report:
    """Return a simulated run in which some requests expire."""
    traffic = Poisson(rate, seed=1)
    options = {"duration": 4.0, "timeout": 0.3, **options}
    return simulate(Greedy(16), traffic, cost, lengths=MIXED, **options)


def figures() -> Iterator[tuple[str, Any]]:
    """Return a figure of each kind."""
    changed = replace(run(), changes=CHANGES)
    yield "latencies", changed.plot().figure
    yield "latencies of one size", run(rate=3.0).plot().figure
    yield "time line", changed.timeline(limit=120).figure
    yield "long time line", run().timeline(limit=MOST_SHAPES + 1).figure
    comparison = compare(POLICIES, cost=BAD, rates=[30, 90], lengths=MIXED, duration=4.0)
    yield "comparison", comparison.plot()


# -- contrast -----------------------------------------------------------------------------


def luminance(colour: str) -> float:
    """Return the relative luminance (WCAG 2.2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return float(np.dot((0.2126, 0.7152, 0.0722), linear))


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours (WCAG 2.2), from 1 to 21."""
    dark, light = sorted(map(luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


SCALE = LinearSegmentedColormap.from_list("sizes", SIZES)
MARKS = (*PALETTE, LOST, WAITS, *(to_hex(SCALE(share / 50)) for share in range(51)))


@pytest.mark.parametrize("ground", ["#ffffff", DARK])
def test_marks_and_text_stand_out(ground: str) -> None:
    """Marks have a contrast of 3 and text of 4.5, on light and on dark pages."""
    ink = "#000000" if ground == "#ffffff" else LIGHT

    assert min(contrast(mark, ground) for mark in MARKS) >= 3
    assert contrast(ink, ground) >= 4.5


#: seen without one kind of cones (G. Machado, M. Oliveira and L. Fernandes, "A Physiologically-
#: based Model for Simulation of Color Vision Deficiency", 2009, severity 1)
SIGHTS: dict[str, list[list[float]]] = {
    "all": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "no red": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "no green": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "no blue": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


def seen(colour: str, sight: Sequence[Sequence[float]]) -> np.ndarray[Any, Any]:
    """Return a colour in CIELAB, in which distances match perception."""
    srgb = np.asarray(to_rgb(colour))
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.asarray(sight) @ linear, 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt(np.asarray(to_xyz) @ linear / (0.9505, 1.0, 1.089))
    return np.asarray((116 * y - 16, 500 * (x - y), 200 * (y - z)))


@pytest.mark.parametrize("sight", SIGHTS)
def test_colours_can_be_told_apart(sight: str) -> None:
    """Colours differ by five times the smallest visible difference, with any kind of sight."""
    distances = {
        pair: np.linalg.norm(seen(pair[0], SIGHTS[sight]) - seen(pair[1], SIGHTS[sight]))
        for pair in combinations((*PALETTE, LOST, WAITS), 2)
    }

    assert min(distances.values()) > 5 * 2.3


def colours_of(text: str) -> set[str]:
    """Return the colours of an SVG."""
    body = text[: text.index("@media")]
    return set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", body))


def test_every_mark_of_every_figure_stands_out() -> None:
    """Only marks, black, white and faint frames are drawn."""
    faint = {"#b0b0b0", "#cccccc"}  # the grid, and the frame of a legend
    for name, figure in figures():
        drawn = colours_of(svg(figure)) - {"#000000", "#ffffff"} - faint
        low = {colour for colour in drawn if contrast(colour, "#ffffff") < 3}
        low |= {colour for colour in drawn if contrast(colour, DARK) < 3}

        assert drawn, name
        assert not low, (name, low)


def test_lines_differ_by_more_than_their_colour() -> None:
    """No two policies share marker, dashes and colour, nor marker and dashes alone."""
    comparison = compare(POLICIES, cost=COST, rates=[30], duration=2.0)
    lines: list[Any] = list(comparison.plot().axes[0].lines)
    looks = {(line.get_marker(), line.get_linestyle()) for line in lines}

    assert len(looks) == len(lines) == len(POLICIES)


# -- policy changes -----------------------------------------------------------------------


def uprights(ax: Any) -> list[Any]:
    """Return the vertical lines of a plot."""
    return [line for line in ax.lines if list(line.get_ydata()) == [0, 1]]


@pytest.mark.parametrize("method", ["plot", "timeline"])
def test_a_change_of_policy_is_marked(method: str) -> None:
    """A change is a vertical line with the new policy's name; a failure has its own colour."""
    report = replace(run(), changes=CHANGES)
    options = {"limit": 1000, "start": 0.0} if method == "timeline" else {}
    ax = getattr(report, method)(**options)
    upright = uprights(ax)

    assert [line.get_xdata()[0] for line in upright] == [1.4, 3.2]
    assert [line.get_color() for line in upright] == ["black", LOST]
    assert [text.get_text() for text in ax.texts if text.get_rotation() == 90] == [
        "NoBatching()",
        "Greedy(8)",
    ]
    assert "policy changes" in ax.get_legend_handles_labels()[1]
    assert (
        ax.get_title(loc="left")
        .replace("\n", " ")
        .startswith(
            "Greedy(max_batch_size=16) until 1.40 s, then NoBatching() until 3.20 s, then Greedy(8)"
        )
    )


def test_a_change_outside_of_the_figure_does_not_widen_it() -> None:
    """A time line of the first requests shows no later changes."""
    plain = run().timeline(limit=20, start=0.0).get_xlim()
    ax = replace(run(), changes=CHANGES).timeline(limit=20, start=0.0)

    assert ax.get_xlim() == plain
    assert not uprights(ax)


def test_of_many_changes_only_lines_are_drawn() -> None:
    """Many names would overlap, so they are left out."""
    many = tuple(PolicyChange(n / 10, f"Greedy({n})") for n in range(1, MOST_NAMED + 2))
    ax = replace(run(), changes=many).plot()

    assert len(uprights(ax)) == len(many)
    assert not ax.texts


# -- warnings and size --------------------------------------------------------------------


@pytest.mark.parametrize("method", ["plot", "timeline"])
def test_notes_are_lines_under_the_axes(method: str) -> None:
    """A saved figure has the warnings, and no more digits than are known."""
    ax = getattr(run(BAD), method)()
    lines = ax.get_xlabel().splitlines()

    assert lines[1].startswith("Note: The cost model does not fit: its typical error is 69%")
    assert any("larger than the 4 requests" in line for line in lines)
    assert "\n" not in getattr(run(), method)().get_xlabel()


def test_a_rough_report_draws_rough_percentiles() -> None:
    """The legend shows one digit, like the table."""
    labels = run(BAD).plot().get_legend_handles_labels()[1]
    shown = [label for label in labels if re.match(r"p\d\d ", label)]

    assert len(shown) == 2
    assert all(re.fullmatch(r"p\d\d ≈\d0* ms", label) for label in shown)


@pytest.mark.parametrize(("seconds", "label"), [(0.9961, "≈1000 ms"), (1.0, "≈1 s")])
def test_a_rough_percentile_is_a_plain_number(seconds: float, label: str) -> None:
    """Rounding to a thousand needs no exponent; the deadline is exact."""
    records = [RequestRecord(n, n / 10, n / 10, n / 10 + seconds, "ok") for n in range(9)]
    report = Report(RequestLog.of(records), (), 1.0, error=0.69, deadline=0.25, warmup=0.0)
    labels = report.plot().get_legend_handles_labels()[1]

    assert f"p50 {label}" in labels
    assert f"deadline {'250 ms' if seconds < 1 else '0.25 s'}" in labels


def test_a_comparison_has_its_warnings_below() -> None:
    """Each warning appears once, however many runs have it."""
    found = compare([NoBatching(), Greedy(8)], cost=BAD, rates=[30, 60], duration=2.0)
    below: Any = found.plot().get_supxlabel()

    assert below.count("does not fit") == 1


def test_many_marks_do_not_make_a_large_svg() -> None:
    """Many marks are pixels within the SVG, few are shapes; the axes are shapes."""
    few: Any = run().plot()
    many = run(rate=150.0, duration=60.0, timeout=math.inf)
    drawn: Any = (many.plot(), many.timeline(limit=5000))
    small, large, long = (svg(ax.figure) for ax in (few, *drawn))

    assert len(many.records) > 8_000
    assert "<image " in large.partition("axes_2")[0]
    assert "<image " not in small.partition("axes_2")[0]
    assert len(large) < 400_000
    assert len(long) < 400_000
