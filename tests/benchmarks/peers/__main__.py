"""Beside what a person might pick instead: ``python -m tests.benchmarks.peers [OPTIONS]``.

Every server runs the same classifier on as many torch threads as said, and is asked by the same
client. First each peer's settings (most requests of a batch, seconds to wait) are tried on each
kind of texts with 32 clients, most with 128 too, and the best for each is kept; one client alone is
not made to wait. Then, in each round, every server at its best setting and this package, as it
comes and with ``worker="process"``, in turn: closed loops of 1, 32 and 128 clients; and an open
loop at 50, 80 and 95% of the best peer's throughput on mixed texts with 32 clients.
Figures are medians of the rounds. Nothing else should run meanwhile. The result goes to
``results/peers.json``; with ``--settings`` the best settings are those of such a file, and not all
are tried again; with ``--more`` its rounds count too.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.peers.peer_process import running
from tests.benchmarks.peers.setups import (
    ENVIRONMENTS,
    NO_SETTING,
    PEERS,
    Peer,
    Setting,
    executables,
)
from tests.benchmarks.workload import KINDS, machine

RESULT = Path(__file__).parents[1] / "results" / "peers.json"
OURS = ("notebook_serve", "notebook_serve_process")
CLIENTS = (1, 32, 128)
SHARES = (0.5, 0.8, 0.95)
#: with so many clients settings are tried; where not, the best are those of the first number. Of
#: long texts few are answered, and how many more wait changes little.
SWEPT = {"mixed": (32, 128), "short": (32, 128), "long": (32,)}
FIRST = 32
#: how often each client is answered at least, on average, while settings are tried
SOME = 2

#: by kind of texts, number of clients and name, the best setting and what it did
Best = dict[str, dict[int, dict[str, tuple[Setting, float]]]]


def said(*words: object) -> None:
    """Say how far it is."""
    print(*words, file=sys.stderr, flush=True)  # noqa: T201


def sweep(names: Sequence[str], options: argparse.Namespace) -> tuple[Best, list[dict[str, Any]]]:
    """The best setting of each peer for each kind and number of clients, and all tried."""
    best: Best = {kind: {clients: {} for clients in SWEPT[kind]} for kind in options.kinds}
    tried: list[dict[str, Any]] = []
    for name in names:
        peer = PEERS[name]
        for setting in peer.settings:
            for found in attempt(peer, setting, options):
                said(*found.values())
                tried.append(found)
                if "failed" in found:
                    continue
                there = best[found["kind"]][found["clients"]]
                if name not in there or found["throughput"] > there[name][1]:
                    there[name] = (setting, found["throughput"])
    return best, tried


def attempt(peer: Peer, setting: Setting, options: argparse.Namespace) -> list[dict[str, Any]]:
    """What a peer does at a setting, kind by kind; or why it does nothing."""
    found: list[dict[str, Any]] = []
    about = {"peer": peer.name, "setting": setting}
    try:
        with running(peer, setting, options.threads, options.size) as asker:
            for kind in options.kinds:
                for clients in SWEPT[kind]:
                    load = asker.closed(kind, clients, options.seconds, turns=SOME)
                    found.append({**about, "kind": kind, "clients": clients, **load.to_dict()})
    except (TimeoutError, ChildProcessError) as error:
        found.append({**about, "failed": str(error)})
    return found


def with_ours(
    peers: dict[str, tuple[Setting, float]],
) -> Iterable[tuple[str, tuple[Setting, float]]]:
    """The peers and this package, by name, each with its setting."""
    return {**peers, **dict.fromkeys(OURS, (NO_SETTING, 0.0))}.items()


def starts(
    best: dict[int, dict[str, tuple[Setting, float]]], clients: Sequence[int]
) -> dict[tuple[str, Setting], list[int]]:
    """What is to be started for a kind of texts, and with how many clients each is asked."""
    found: dict[tuple[str, Setting], list[int]] = {}
    for many in clients:
        for name, (setting, _) in with_ours(best.get(many, best[FIRST])):
            alone = (setting[0], min(wait for _, wait in PEERS[name].settings))
            found.setdefault((name, alone if many == 1 else setting), []).append(many)
    return found


def rounds(best: Best, first: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every server at its best for each kind and number of clients, in turn."""
    rows = []
    for number in range(first, first + options.rounds):
        for kind in options.kinds:
            for (name, setting), asked in starts(best[kind], options.clients).items():
                with running(PEERS[name], setting, options.threads, options.size) as asker:
                    for clients in asked:
                        load = asker.closed(kind, clients, options.seconds)
                        said(number, kind, name, setting, clients, f"{load.throughput:.1f}/s")
                        rows.append(
                            {
                                "round": number,
                                "kind": kind,
                                "peer": name,
                                "setting": setting,
                                "clients": clients,
                                **load.to_dict(),
                            }
                        )
    return rows


def open_loop(
    best: Best, rate: float, first: int, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """This package and the peers under the same Poisson traffic, at shares of `rate`."""
    rows = []
    for number in range(first, first + options.rounds):
        for name, (setting, _) in with_ours(best["mixed"][FIRST]):
            with running(PEERS[name], setting, options.threads, options.size) as asker:
                for share in SHARES:
                    load = asker.open("mixed", share * rate, 2.5 * options.seconds, seed=number)
                    said(number, name, share, f"p50 {load.p50:.3f} s, p99 {load.p99:.3f} s")
                    rows.append(
                        {
                            "round": number,
                            "peer": name,
                            "setting": setting,
                            "share": share,
                            "rate": share * rate,
                            **load.to_dict(),
                        }
                    )
    return rows


def middles(rows: Sequence[dict[str, Any]], *by: str) -> list[dict[str, Any]]:
    """The medians of rows that agree in `by`."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in by), []).append(row)
    names = ("throughput", "p50", "p99", "cpu", "errors")
    return [
        {
            **dict(zip(by, key, strict=True)),
            **{name: median(row[name] for row in group) for name in names},
        }
        for key, group in groups.items()
    ]


def ratios(
    closed: Sequence[dict[str, Any]], rest: Sequence[dict[str, Any]], ours: str
) -> dict[str, Any]:
    """Round by round, `ours` over each other's, and of those the medians."""
    found: dict[str, Any] = {}

    def over(rows: Sequence[dict[str, Any]], measure: str, *by: str) -> dict[str, float]:
        own = {tuple(r[n] for n in by): r for r in rows if r["peer"] == ours}
        values: dict[str, list[float]] = {}
        for row in rows:
            same = own.get(tuple(row[name] for name in by))
            if same and row["peer"] != ours and row[measure]:
                values.setdefault(row["peer"], []).append(same[measure] / row[measure])
        return {peer: round(median(each), 3) for peer, each in values.items()}

    for kind, clients in sorted({(row["kind"], row["clients"]) for row in closed}):
        rows = [row for row in closed if (row["kind"], row["clients"]) == (kind, clients)]
        for measure in ("throughput", "cpu", "p50", "p99"):
            found[f"{kind}, {clients} clients: {measure}"] = over(rows, measure, "round")
    for share in sorted({row["share"] for row in rest}):
        rows = [row for row in rest if row["share"] == share]
        for measure in ("p50", "p99"):
            found[f"mixed, {share:.0%} of the best peer: {measure}"] = over(rows, measure, "round")
    return found


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    others = [name for name in PEERS if name not in OURS]
    parser.add_argument("--peers", nargs="+", choices=others, default=others)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--clients", nargs="+", type=int, default=list(CLIENTS))
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--settings", type=Path, help="a result to take the best settings from")
    parser.add_argument("--more", action="store_true", help="add rounds to those of that result")
    parser.add_argument("--keep", type=int, default=3, help="so many of the best go on")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", choices=("small", "base"), default="small")
    parser.add_argument("--no-open", action="store_true", help="no open loop")
    parser.add_argument("--file", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    if options.more and not options.settings:
        parser.error("--more adds to the result that --settings names")
    return options


def settings_in(best: dict[str, Any]) -> dict[int, dict[str, tuple[Setting, float]]]:
    """The best of one kind of texts, as JSON has it, as `sweep` gives it."""
    return {
        int(clients): {name: ((batch, wait), rate) for name, ((batch, wait), rate) in each.items()}
        for clients, each in best.items()
    }


def kept(best: Best, most: int) -> Best:
    """The best few of each kind and number of clients, and the tutorial's two."""
    return {
        kind: {clients: few(by_name, most) for clients, by_name in by_clients.items()}
        for kind, by_clients in best.items()
    }


def few(by_name: dict[str, tuple[Setting, float]], most: int) -> dict[str, tuple[Setting, float]]:
    """The best few, and the tutorial's two."""
    order = sorted(by_name, key=lambda name: -by_name[name][1])
    names = [name for name in order if not name.startswith("tutorial")][:most]
    names += [name for name in order if name.startswith("tutorial")]
    return {name: by_name[name] for name in names}


def main() -> None:
    """Measure, print and keep."""
    options = options_of()
    for name in {PEERS[peer].environment for peer in options.peers}:
        executables(name)
    closed: list[dict[str, Any]] = []
    rest: list[dict[str, Any]] = []
    if options.settings:
        known = json.loads(options.settings.read_text("utf-8"))
        tried = known["tried"]
        if options.more:
            for rows, name in ((closed, "rounds"), (rest, "open_rounds")):
                rows += [{**row, "setting": tuple(row["setting"])} for row in known[name]]
        best = {kind: settings_in(known["best"][kind]) for kind in options.kinds}
    else:
        best, tried = sweep(options.peers, options)
    chosen = kept(best, options.keep)
    first = 1 + max((row["round"] for row in closed), default=-1)
    closed += rounds(chosen, first, options)
    if "mixed" in chosen and not options.no_open:
        name, (_, rate) = leader = next(iter(chosen["mixed"][FIRST].items()))
        said("open loop beside", name, f"at shares of {rate:.1f}/s")
        rest += open_loop({"mixed": {FIRST: dict([leader])}}, rate, first, options)
    result = {
        "machine": machine(options.threads),
        "model": options.size,
        "environments": ENVIRONMENTS,
        "best": best,
        "ratios": {ours: ratios(closed, rest, ours) for ours in OURS},
        "closed": middles(closed, "kind", "clients", "peer", "setting"),
        "open": middles(rest, "share", "peer", "setting"),
        "rounds": closed,
        "open_rounds": rest,
        "tried": tried,
    }
    options.file.parent.mkdir(exist_ok=True)
    options.file.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(json.dumps({"best": best, "ratios": result["ratios"]}, indent=1))  # noqa: T201


if __name__ == "__main__":
    main()
