"""The tables of figures in this folder's README: ``python -m tests.benchmarks.tables``.

Made from the results that the benchmarks left, so that no figure is copied by hand; a test holds
the page to them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE / "README.md"
RESULTS = HERE / "results"
#: what is measured of this package, and how it is headed
OURS = {"notebook_serve": "a thread", "notebook_serve_process": "a process"}

Row = Sequence[object]


def result(name: str) -> dict[str, Any]:
    """What a benchmark left."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
    return found


def table(head: Row, rows: Iterable[Row]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def peers_table(name: str) -> str:
    """Answers per second of each server, by the texts and the number of clients."""
    closed = result(name)["closed"]
    servers = list(dict.fromkeys([*OURS, *(row["peer"] for row in closed)]))
    by = {(row["kind"], row["clients"], row["peer"]): row["throughput"] for row in closed}
    cells = list(dict.fromkeys((row["kind"], row["clients"]) for row in closed))
    return table(
        ["texts, clients", *(f"`{server}`" for server in servers)],
        [
            [
                f"{kind}, {clients}",
                *(
                    f"{by[kind, clients, server]:.1f}" if (kind, clients, server) in by else ""
                    for server in servers
                ),
            ]
            for kind, clients in cells
        ],
    )


def tried_table() -> str:
    """What each peer does at the best of its settings that were tried, and which that is."""
    best = result("peers")["best"]
    servers = list(
        dict.fromkeys(name for cell in best.values() for at in cell.values() for name in at)
    )

    def cell(found: list[Any] | None) -> str:
        if found is None:
            return ""
        (batch, wait), rate = found
        return f"{rate:.0f} ({batch}{f', {wait:g} s' if wait else ''})"

    return table(
        ["texts, clients", *(f"`{server}`" for server in servers)],
        [
            [f"{kind}, {clients}", *(cell(at.get(server)) for server in servers)]
            for kind, cells in best.items()
            for clients, at in cells.items()
        ],
    )


def ways_table(name: str, head: str, label: str = "{}") -> str:
    """Answers per second, what they are of another way's, and p99, each way and cell."""
    found = result(name)["summary"]
    cells = list(next(iter(found.values())))
    return table(
        [head, *cells],
        [
            [
                label.format(way),
                *(
                    f"{at['throughput']:.0f}/s ({at['beside']:.2f}), {at['p99']:.2g} s"
                    for at in map(by.__getitem__, cells)
                ),
            ]
            for way, by in found.items()
        ],
    )


class Ratios:
    """This package over its peers."""

    def __init__(self, found: dict[str, Any]) -> None:
        self._ratios = found["ratios"]

    def best(self, cell: str, measure: str) -> list[float]:
        """Over the peer that answered most there; one for each of `OURS`."""
        found = []
        for ours in OURS:
            peers = {
                peer: ratio
                for peer, ratio in self._ratios[ours][f"{cell}: throughput"].items()
                if not peer.startswith(("tutorial", "notebook_serve"))
            }
            first = min(peers, key=peers.__getitem__)
            found.append(self._ratios[ours][f"{cell}: {measure}"][first])
        return found

    def over(self, peer: str, cell: str) -> list[float]:
        """Throughput over that of one peer."""
        return [self._ratios[ours][f"{cell}: throughput"][peer] for ours in OURS]

    def opened(self, share: str, measure: str) -> list[float]:
        """Latency in the open loop, over the one peer that was asked so."""
        found = []
        for ours in OURS:
            peers = self._ratios[ours][f"mixed, {share} of the best peer: {measure}"]
            [only] = [value for peer, value in peers.items() if peer not in OURS]
            found.append(only)
        return found


@dataclass(frozen=True)
class Goal:
    """One thing that was aimed at, and what was found with a thread and with a process."""

    measure: str
    bound: float
    found: Sequence[float]
    least: bool = True

    def row(self) -> Row:
        """Bold where it holds."""
        aim = f"{'at least' if self.least else 'at most'} {self.bound:.3g}"
        cells = [
            f"**{value:.4g}**" if (value >= self.bound) == self.least else f"{value:.4g}"
            for value in self.found
        ]
        return [self.measure, aim, *cells, *[""] * (len(OURS) - len(cells))]


def goals() -> str:
    """What was aimed at, and what was found."""
    ratios, limits = Ratios(result("peers")), result("upper_bounds")["medians"]
    mixed, short, long = (f"{kind}, 32 clients" for kind in ("mixed", "short", "long"))
    many = "mixed, 128 clients"
    alone = [f"{kind}, 128 clients / the forward alone" for kind in ("mixed", "short")]
    noop, idle = "no-op, 32 connections / bare Starlette", limits["one client + pipe(x)"]
    found = [
        Goal(f"{mixed}: answers / the best peer", 1.6, ratios.best(mixed, "throughput")),
        Goal(f"{many}: answers / the best peer", 1.35, ratios.best(many, "throughput")),
        Goal(f"{mixed}: answers / the tutorial's server", 1.9, ratios.over("tutorial", mixed)),
        Goal(f"{mixed}: answers / its loop", 3.0, ratios.over("tutorial_batching", mixed)),
        Goal(f"{short}: answers / the best peer", 1.1, ratios.best(short, "throughput")),
        Goal(f"{long}: answers / the best peer", 1.0, ratios.best(long, "throughput")),
        Goal(alone[0], 0.93, [limits[alone[0]]["ratio"]]),
        Goal(alone[1], 0.90, [limits[alone[1]]["ratio"]]),
        Goal(noop, 0.85, [limits[noop]["ratio"]]),
        Goal(f"{mixed}: CPU per answer / the best peer", 0.8, ratios.best(mixed, "cpu"), False),
        *(
            Goal(f"mixed, {share} of its capacity: {part} / the best peer", 1.0, value, False)
            for share in ("50%", "80%")
            for part in ("p50", "p99")
            if (value := ratios.opened(share, part))
        ),
        Goal(
            "one client: ms added to `pipe(x)`",
            1e3 * idle["allowed"],
            [1e3 * idle["added"]],
            False,
        ),
        Goal("MB added to a loaded pipeline", 60.0, [limits["memory added, MB"]], False),
        Goal("s until the first answer", 0.25, [limits["first answer, s"]], False),
        Goal("idle, share of a core", 0.005, [limits["idle, share of a core"]], False),
        Goal(
            "ms for a decision of `LengthAware`, 10,000 waiting",
            1.0,
            [1e3 * limits["decision at 10,000 waiting, s"]],
            False,
        ),
    ]
    head = ["measure", "aim", *(f"with {kind}" for kind in OURS.values())]
    return table(head, (goal.row() for goal in found))


def most_table() -> str:
    """What is served beside what the model allows, with a thread."""
    medians = result("upper_bounds")["medians"]
    limits = {"forward": "the forward alone, all texts sorted before", "simulated": "simulated"}
    return table(
        ["texts, clients", "answers/s", "limit", "its answers/s", "ratio"],
        [
            [
                measure.partition(" / ")[0],
                f"{found['served']:.1f}",
                said,
                f"{found[name]:.1f}",
                f"{found['ratio']:.3f}",
            ]
            for measure, found in medians.items()
            if isinstance(found, dict)
            for name, said in limits.items()
            if name in found
        ],
    )


def scale_table() -> str:
    """What a request costs as things grow, in microseconds and beside the first size."""
    rows = []
    for name, sizes in result("scaling")["table"].items():
        ordered = sorted(sizes.items(), key=lambda item: int(item[0]))
        said = [f"{int(size):,}: {at['microseconds']:g} µs" for size, at in ordered]
        rows.append([name, ", ".join(said)])
    return table(["CPU of a request", "by size"], rows)


TABLES: dict[str, Callable[[], str]] = {
    "goals": goals,
    "peers": lambda: peers_table("peers"),
    "peers-tried": tried_table,
    "peers-two-threads": lambda: peers_table("peers-two-threads"),
    "peers-base": lambda: peers_table("peers-base"),
    "most": most_table,
    "scale": scale_table,
    "policies": lambda: ways_table("policies", "policy", "`{}`"),
    "compiled": lambda: ways_table("compiled", "worker"),
}


def filled(page: str) -> str:
    """The page with each table between its marks made anew."""
    for name, make in TABLES.items():
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, _, rest = page.partition(start)
        _, found, after = rest.partition(end)
        if not found:
            raise SystemExit(f"{PAGE.name} has no place for the table {name}: {start}{end}")
        page = f"{before}{start}{make()}\n{end}{after}"
    return page


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text("utf-8")), "utf-8")
