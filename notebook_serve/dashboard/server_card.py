"""Card of a server, which a cell shows: state, address, figures, settings."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ..display import Card, Table, duration
from ..queueing.stats import (
    SINCE,
    LastError,
    Row,
    Stats,
    counts_in_words,
    queue_rows,
    rate_rows,
    span_of_times,
)


def server_card(name: str, url: str, stats: Stats, settings: Sequence[tuple[str, object]]) -> Card:
    """Return the card of a server; `url` is empty while the server does not listen."""
    errors = [_sentence(stats, error) for error in stats.all_failing]
    return Card(
        name,
        stats.state,
        url,
        Table("", ("", "", ""), _figures(stats)),
        Table("", ("", ""), settings),
        at=time.strftime("%H:%M:%S (%Y-%m-%d)"),
        errors=(*errors, stats.error) if stats.error else tuple(errors),
        warnings=stats.warnings,
    )


def _figures(stats: Stats) -> list[Row]:
    """Return the rows of the figures: name, span of time, value."""
    rows: list[Row] = [
        ("model", "", stats.model),
        ("policy", "", stats.policy),
        *queue_rows(stats),
        *rate_rows(stats),
        ("requests", SINCE, counts_in_words(stats.outcomes)),
        ("latency p50", span_of_times(stats), duration(stats.latency.p50)),
    ]
    if stats.last_error and not stats.failing:
        rows.append(("last error", SINCE, str(stats.last_error)))
    return rows


def _sentence(stats: Stats, error: LastError) -> str:
    """Return the sentence of a failing model; it names the model if there are several."""
    return f"{error.model} · {error}. {error.next}" if stats.models else f"{error}. {error.next}"
