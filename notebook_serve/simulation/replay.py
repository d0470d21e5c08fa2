"""Replay of recorded traffic in the simulator, under another policy."""

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

#: options of `simulate` that the recorded requests determine, and what to do instead
RECORDED = {
    name: f"the recorded requests determine the {what}; `simulate` takes others"
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

    `records` are those of a server, or a `Report`. Requests keep their arrival times, lengths and
    groups. The length of a rejected request is unknown, so it gets that of another request at
    random. Requests that cannot run, such as invalid inputs, are left out. Arrival times do not
    depend on answers, although clients of a closed loop would have sent sooner after fast answers.

    `changes` are the policies that took effect during the recording, on the clock of the records.
    If the requests were served under several policies, a note of the report names them. `noise` is
    the variation of batches around `cost`; by default that of its fit. `options` are those of
    `simulate`. Raises `OptionError` if there is nothing to replay.
    """
    check_forwarded(replay, simulate, options, RECORDED)
    check_cost(cost)
    if isinstance(records, Report):
        changes = [PolicyChange(-math.inf, records.policy, "start"), *records.changes]
        records = records.records
    came = sorted(filter(_is_runnable, records), key=lambda record: (record.arrived, record.id))
    known = [(record.length, record.group) for record in came if record.started is not None]
    if not known:
        raise OptionError("no request has run yet; serve some requests first")
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
    notes = (*report.notes, *_note_warmup(report), *_note_policies(came, changes))
    return replace(report, notes=notes)


def _note_warmup(report: Report) -> tuple[str, ...]:
    """Return a note if all requests arrived within the warm-up."""
    if report.records.arrived and report.records.arrived[-1] >= report.start:
        return ()
    return (
        f"All requests arrived within the warm-up of {in_words(report.start)}, so most figures "
        "are missing; leave duration= out, or pass warmup=0.",
    )


def _note_policies(
    came: Sequence[RequestRecord], changes: Iterable[PolicyChange]
) -> tuple[str, ...]:
    """Return a note that names the policies that served the requests, if there were several."""
    start, end = came[0].arrived, max(record.finished for record in came)
    first, during = policies_between(changes, start, end)
    if not during:
        return ()
    return (f"These requests were served under {policies_in_words(first, during)}.",)


def _is_runnable(record: RequestRecord) -> bool:
    """Return True if the request entered the queue, or was rejected but could have run."""
    if record.started is None and record.outcome == "failed":  # in preprocessing
        return False
    return record.outcome != "invalid"
