"""Frozen records of requests, batches, policy changes and errors.

All times are seconds on one monotonic clock: ``time.monotonic`` in a server, virtual in a
simulation. Only their differences have a meaning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: how a request ended: answered, rejected at admission, invalid input, failed in the model, timed
#: out, or cancelled by its client
Outcome = Literal["ok", "rejected", "invalid", "failed", "expired", "cancelled"]

OUTCOMES: tuple[Outcome, ...] = ("ok", "rejected", "invalid", "failed", "expired", "cancelled")


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """The outcome of one request. Each request leaves exactly one record."""

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
    #: the address of the client, or ``predict`` for calls without HTTP
    client: str = ""

    @property
    def queue_time(self) -> float:
        """Seconds from arrival until its batch started, or until it left the queue without one."""
        return (self.finished if self.started is None else self.started) - self.arrived

    @property
    def inference_time(self) -> float:
        """Seconds from the start of its batch until its answer; 0 if it never ran."""
        return 0.0 if self.started is None else self.finished - self.started

    @property
    def latency(self) -> float:
        """Seconds from arrival to answer."""
        return self.finished - self.arrived

    def __repr__(self) -> str:
        # Clock times have no meaning of their own, so the repr has the three durations.
        return _describe(
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
    """One batch that ran, with the reason for its release."""

    id: int
    reason: str
    #: the length of each request in it, in the order they ran
    lengths: tuple[int, ...]
    started: float
    #: duration of the batch
    seconds: float
    #: number of requests left in the queue when it was released
    waiting: int = 0
    #: additional forward passes, made to find the request that caused a failure
    retries: int = 0
    #: the number of the worker that ran it
    worker: int = 0
    #: the ids of its requests, in the order of `lengths`; empty if not recorded
    requests: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Number of requests in the batch."""
        return len(self.lengths)

    @property
    def padded_tokens(self) -> int:
        """Tokens that the model computed: every request padded to the longest."""
        return len(self.lengths) * max(self.lengths, default=0)

    @property
    def padding(self) -> float:
        """Share of ``padded_tokens`` that was padding, from 0 to 1."""
        padded = self.padded_tokens
        return 1 - sum(self.lengths) / padded if padded else 0.0

    def __repr__(self) -> str:
        return _describe(
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
    """A policy that took effect: the first at the start, then each replacement."""

    #: seconds on the monotonic clock, as in records
    at: float
    #: the policy's ``repr``
    policy: str
    #: why it took effect: ``start``, ``set`` (by the user) or ``fault`` (the previous one failed)
    reason: str = "set"


@dataclass(frozen=True, slots=True)
class ErrorRecord:
    """An error of the model or the server; consecutive equal errors are one record.

    Invalid inputs and requests that timed out are not errors.
    """

    #: the class of the exception
    type: str
    #: the message of the exception, cut to `failures.MOST_MESSAGE` characters
    message: str
    #: the latest occurrence, on the monotonic clock, as in records
    at: float
    #: the same moment in seconds since 1970
    when: float
    #: number of occurrences without another error between them; answers may lie between
    times: int = 1
    #: the id of the newest request that failed; empty if no request was affected
    request: str = ""
    #: the name of the model
    model: str = ""


#: the repr of a record shows at most so many numbers of a tuple
MOST_NUMBERS = 16


def _describe(record: object, **values: object) -> str:
    """Return the repr of a record: its class and `values`, without empty ones."""
    texts = (
        f"{name}={_abbreviate(value)}" for name, value in values.items() if value not in ("", ())
    )
    return f"{type(record).__name__}({', '.join(texts)})"


def _abbreviate(value: object) -> str:
    """Return the repr of a value: floats with four digits, long tuples cut."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, tuple) and len(value) > MOST_NUMBERS:
        return f"({', '.join(map(repr, value[:MOST_NUMBERS]))}, … {len(value)} in all)"
    return repr(value)
