"""Recorded traffic, once more through the simulator, under another policy."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from ..display import duration as in_words
from ..errors import OptionError
from ..queueing.cost_model import CostModel, check_cost
from ..queueing.noise import Noise
from ..queueing.policies import PolicyLike
from ..queueing.policy_history import policies_between, policies_in_words
from ..records import PolicyChange, RequestRecord
from ..traffic import Trace
from ..validation.option_hints import check_forwarded
from ..validation.tracebacks import entry_point
from .report import Report
from .simulator import simulate

#: options of `simulate` that are those of the recorded requests, and what to do instead
RECORDED = {
    name: f"its {what} are those of the recorded requests; `simulate` takes others"
    for name, what in {"traffic": "arrivals", "lengths": "lengths", "groups": "groups"}.items()
}


@entry_point
def replay(
    records: Iterable[RequestRecord] | Report,
    policy: PolicyLike,
    cost: CostModel,
    *,
    changes: Sequence[PolicyChange] = (),
    noise: float | Noise | None = None,
    seed: int = 0,
    **options: Any,
) -> Report:
    """Simulate recorded requests under `policy`.

    `records` are those of a server, or a `Report` of them. They arrive when they did, as long as
    they were and in the groups that they had. A request that was rejected has no known length: it
    gets that of another one, at random. Requests that could not be run at all, such as an invalid
    input, cost nothing and are left out. Clients do not wait for answers here: those of a closed
    loop would have asked sooner, had they been answered sooner.

    `changes` are the policies that took effect meanwhile, on the clock of the records; if several
    served them, a note of the report names them. `noise` is how batches vary around `cost`, and
    what its fit says of that unless given; `options` are those of `simulate`. Raises `OptionError`
    if there is nothing to replay.
    """
    check_forwarded(replay, simulate, options, RECORDED)
    check_cost(cost)
    if isinstance(records, Report):
        changes = [PolicyChange(-math.inf, records.policy, "start"), *records.changes]
        records = records.records
    came = sorted(filter(_waited, records), key=lambda record: (record.arrived, record.id))
    known = [(record.length, record.group) for record in came if record.started is not None]
    if not known:
        raise OptionError("no request has run yet; serve some, then ask what if")
    draw = random.Random(f"replay {seed}")  # noqa: S311  # no secret is made of it
    shapes = [
        draw.choice(known)
        if record.started is None and record.outcome == "rejected"
        else (record.length, record.group)
        for record in came
    ]
    report = simulate(
        policy,
        Trace.from_records(came),
        cost,
        lengths=[max(1, length) for length, _ in shapes],
        groups=[group for _, group in shapes],
        noise=getattr(cost, "noise", 0.0) if noise is None else noise,
        seed=seed,
        **options,
    )
    notes = (*report.notes, *_none_left(report), *_served_under(came, changes))
    return replace(report, notes=notes)


def _none_left(report: Report) -> tuple[str, ...]:
    """A note, if all requests arrived within the warm-up."""
    if report.records.arrived and report.records.arrived[-1] >= report.start:
        return ()
    return (
        f"All requests arrived within the warm-up of {in_words(report.start)}, so most figures "
        "are missing; leave duration= out, or give warmup=0.",
    )


def _served_under(
    came: Sequence[RequestRecord], changes: Iterable[PolicyChange]
) -> tuple[str, ...]:
    """A note that names the policies that served requests, if there were several."""
    start, end = came[0].arrived, max(record.finished for record in came)
    first, during = policies_between(changes, start, end)
    if not during:
        return ()
    return (f"These requests were served under {policies_in_words(first, during)}.",)


def _waited(record: RequestRecord) -> bool:
    """Return True if it waited to be run, or would have, had it not been rejected."""
    if record.started is None and record.outcome == "failed":  # in preparation
        return False
    return record.outcome != "invalid"
