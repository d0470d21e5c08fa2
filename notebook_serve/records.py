"""Records of what happened: requests, batches, policy changes and errors. All frozen.

All times are seconds on one monotonic clock (``time.monotonic`` in a server, virtual in a
simulation), so they compare with each other and mean nothing by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: how a request ended: answered; refused at the door; refused for its input; failed in the model;
#: out of time; or given up by its client
Outcome = Literal["ok", "rejected", "invalid", "failed", "expired", "cancelled"]

OUTCOMES: tuple[Outcome, ...] = ("ok", "rejected", "invalid", "failed", "expired", "cancelled")


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """What became of one request. Every request leaves exactly one."""

    id: int
    arrived: float
    #: when its batch started to run; None if it never ran
    started: float | None
    finished: float
    outcome: Outcome
    batch_id: int | None = None
    batch_size: int = 0
    length: int = 1
    group: str = ""
    #: who asked: an address, or ``predict`` for calls without HTTP
    client: str = ""

    @property
    def queue_time(self) -> float:
        """Seconds from arrival until its batch started (or until it left without running)."""
        return (self.finished if self.started is None else self.started) - self.arrived

    @property
    def inference_time(self) -> float:
        """Seconds its batch ran until the answer was there; 0 if it never ran."""
        return 0.0 if self.started is None else self.finished - self.started

    @property
    def latency(self) -> float:
        """Seconds from arrival to answer."""
        return self.finished - self.arrived

    def __repr__(self) -> str:
        # Clock times mean nothing by themselves, so the repr has the three durations.
        return _described(
            self,
            id=self.id,
            outcome=self.outcome,
            queue_time=self.queue_time,
            inference_time=self.inference_time,
            latency=self.latency,
            length=self.length,
            batch_id=self.batch_id,
            batch_size=self.batch_size,
            group=self.group,
            client=self.client,
        )


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """One batch that ran, and why it was what it was."""

    id: int
    reason: str
    #: the length of each request in it, in the order they ran
    lengths: tuple[int, ...]
    started: float
    #: how long it ran
    seconds: float
    #: how many requests were left waiting when it was released
    waiting: int = 0
    #: extra forwards, needed to find who made the batch fail
    retries: int = 0
    #: the number of the worker that ran it
    worker: int = 0
    #: the ids of the requests that shared it, in the order of `lengths`; empty if not recorded
    requests: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """How many requests shared the batch."""
        return len(self.lengths)

    @property
    def padded_tokens(self) -> int:
        """What the model had to compute: every request padded to the longest."""
        return len(self.lengths) * max(self.lengths, default=0)

    @property
    def padding(self) -> float:
        """The share of ``padded_tokens`` that was padding, from 0 to 1."""
        padded = self.padded_tokens
        return 1 - sum(self.lengths) / padded if padded else 0.0

    def __repr__(self) -> str:
        return _described(
            self,
            id=self.id,
            reason=self.reason,
            size=self.size,
            requests=self.requests,
            lengths=self.lengths,
            padding=self.padding,
            seconds=self.seconds,
            waiting=self.waiting,
            retries=self.retries,
            worker=self.worker,
        )


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """A policy that took effect: the first one at the start, then each that replaced another."""

    #: seconds on the monotonic clock, as in records
    at: float
    #: the policy's ``repr``
    policy: str
    #: why it took effect: ``start``, ``set`` (by the owner) or ``fault`` (the one before failed)
    reason: str = "set"


@dataclass(frozen=True, slots=True)
class ErrorRecord:
    """An error of the model, or of the server around it; equal neighbours are counted together.

    A rejected input is no error of the server, and neither is a request that timed out.
    """

    #: the class of the exception
    type: str
    #: what the exception says, cut to `failures.MOST_MESSAGE` characters
    message: str
    #: when it last happened, on the monotonic clock, as in records
    at: float
    #: the same moment in seconds since 1970
    when: float
    #: how often it happened before another error did; there may have been answers in between
    times: int = 1
    #: the id of the newest request that failed; empty where no request was concerned
    request: str = ""
    #: the name of the model
    model: str = ""


#: numbers of a tuple that a record's repr shows
MOST_NUMBERS = 16


def _described(record: object, **values: object) -> str:
    """Return the repr of a record: its class and `values`, without those that are empty."""
    shown = (f"{name}={_short(value)}" for name, value in values.items() if value not in ("", ()))
    return f"{type(record).__name__}({', '.join(shown)})"


def _short(value: object) -> str:
    """Return the repr of a value: floats with four digits, long tuples cut."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, tuple) and len(value) > MOST_NUMBERS:
        return f"({', '.join(map(repr, value[:MOST_NUMBERS]))}, … {len(value)} in all)"
    return repr(value)
