"""Recorded traffic, once more through the simulator: what another policy would have made of it."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

from .cost import CostModel
from .errors import OptionError
from .jobs import RequestRecord
from .noise import Noise
from .policies import PolicyLike
from .report import Report
from .simulator import simulate
from .tracebacks import entry_point
from .traffic import Trace


@entry_point
def replay(
    records: Iterable[RequestRecord],
    policy: PolicyLike,
    cost: CostModel,
    *,
    noise: float | Noise | None = None,
    seed: int = 0,
    **options: Any,
) -> Report:
    """What would have become of recorded requests under `policy`.

    They arrive when they did, as long as they were and in the groups that they had. Those of which
    that was never known, because they were refused, are taken to be like others, at random. Those
    that could not be run at all, as an invalid input, cost nothing, and are left out. Clients do
    not wait for answers here: a closed loop's would have asked sooner, had they been answered
    sooner.

    `noise` is how batches vary around `cost`, and what its fit says of that unless given; `options`
    are those of `simulate`. Raises `OptionError` if there is nothing to replay.
    """
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
    return simulate(
        policy,
        Trace.from_records(came),
        cost,
        lengths=[max(1, length) for length, _ in shapes],
        groups=[group for _, group in shapes],
        noise=cost.noise if noise is None else noise,
        seed=seed,
        **options,
    )


def _waited(record: RequestRecord) -> bool:
    """Whether it waited to be run, or would have, had it not been refused."""
    if record.started is None and record.outcome == "failed":  # in preparation
        return False
    return record.outcome != "invalid"
