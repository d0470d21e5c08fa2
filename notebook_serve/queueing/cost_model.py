"""The cost model: seconds of a batch from its size and longest input, fitted to batches."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import combinations
from typing import Any, Protocol, runtime_checkable

from ..display import described, safe_repr
from ..errors import OptionError
from ..validation.numbers import (
    as_number,
    as_whole_number,
    is_number,
    normalize_number,
    plain_number,
)
from ..validation.tracebacks import entry_point
from .noise import LIMITS, Noise, fit_autocorrelation

#: the terms of the model, in order of preference where the data cannot distinguish them
TERMS = ("fixed", "per_token", "per_item", "per_square")
#: the time that a server takes in addition to running batches
OVERHEADS = ("turnaround", "handling", "answering", "per_answer", "per_arrival")
#: the number of batches needed to trust a fit
FEW = 20
#: the largest typical error, as a share, of a fit that can be trusted
MOST_ERROR = 0.25
#: the warning of a larger error
NO_FIT = "no combination of terms fits these batches well"
#: batches and inputs up to this many times larger than those fitted are not called extrapolation
BEYOND = 1.5
#: the share of a term that the other terms must leave unexplained for the data to distinguish it
OWN = 1e-4
#: batches that took more than so many times their expected seconds are outliers and are left out,
#: if at most this share of the batches are
OUTLIER, RARE = 5.0, 0.02
#: the least gain in fit (twice the log-likelihood) for another term. Short inputs alone hardly
#: distinguish a cost per input from a cost per token. Confusing the two would make long inputs
#: look cheap.
WORTH = 10.0


class ObservedBatch(Protocol):
    """The attributes of a batch that a fit reads, such as those of a `BatchRecord`."""

    @property
    def lengths(self) -> Sequence[int]:
        """Length of each input."""

    @property
    def seconds(self) -> float:
        """Duration of the batch."""


@runtime_checkable
class TimedBatch(ObservedBatch, Protocol):
    """An observed batch with a known start time."""

    @property
    def started(self) -> float:
        """Start time in seconds, on any clock."""


@dataclass(frozen=True)
class CostModel:
    """Seconds of a batch as a function of the lengths of its inputs.

    For `n` inputs, padded to the longest of them, that is ``fixed + per_item * n + per_token * n *
    longest + per_square * n * longest**2``. The terms are the cost of every call, of every input,
    of the layers that process each token separately, and of attention. A simulation adds the
    overheads of a server: `turnaround`, `handling`, `answering`, `per_answer` and `per_arrival`.

    >>> cost = CostModel(fixed=0.005, per_token=0.0002)
    >>> round(cost([10, 40]), 6)
    0.021
    """

    fixed: float = 0.0
    per_item: float = 0.0
    per_token: float = 0.0
    per_square: float = 0.0
    #: seconds between two batches of which the second waited for the first
    turnaround: float = 0.0
    #: seconds from the arrival of a request until it may run, even if the queue is empty
    handling: float = 0.0
    #: seconds from the end of a batch until its answers are delivered, plus `per_answer` for each
    answering: float = 0.0
    per_answer: float = 0.0
    #: seconds by which each arrival delays the running batch: both need the GIL
    per_arrival: float = 0.0
    #: the typical error as a share of a batch's seconds (root mean square, of logarithms if the
    #: clock is fine enough); not-a-number if the model was not fitted
    error: float = math.nan
    #: the share of the error that lasts from one batch to the next, and for how many seconds
    autocorrelation: float = 0.0
    correlation_time: float = 0.0
    #: number of batches that the model was fitted to
    batches: int = 0
    #: reasons to doubt the fit
    warnings: tuple[str, ...] = ()
    #: the largest batch and the longest input of the fit; 0 if the model was not fitted
    largest: int = 0
    longest: int = 0

    def __post_init__(self) -> None:
        for name in (*TERMS, *OVERHEADS):
            normalize_number(self, name, "a number of seconds >= 0")
        _check_fit(self)

    def __call__(self, lengths: Sequence[int]) -> float:
        """Return the seconds of one batch of inputs of these lengths; 0 for an empty batch."""
        return self.seconds(len(lengths), max(lengths)) if lengths else 0.0

    def seconds(self, size: int, longest: int) -> float:
        """Return the seconds of `size` inputs of which the longest has `longest` tokens."""
        if longest < 0:
            raise OptionError(f"lengths must be >= 0, got {longest!r}")
        each = self.per_item + longest * (self.per_token + longest * self.per_square)
        return self.fixed + size * each

    @classmethod
    def fit(cls, batches: Iterable[ObservedBatch]) -> CostModel:
        """Fit non-negative terms to the durations of `batches`.

        Errors are relative to the expected duration, so short batches count as much as long ones:
        least squares, with new weights after each of three rounds. Rare batches that took several
        times their expected duration are left out as outliers. `per_item` and `per_square` are
        left out if they do not improve the fit. `error` and `warnings` say how far to trust it. If
        batches have a `started` time, the autocorrelation of the residuals is estimated too.
        Raises `OptionError` if `batches` is empty.
        """
        kept = [batch for batch in batches if batch.lengths]
        model: CostModel | None = None
        for _ in range(3):
            if model is not None:
                kept = _drop_outliers(model, kept)
            fit = Fit()
            for batch in kept:
                size, longest, seconds = len(batch.lengths), max(batch.lengths), batch.seconds
                expected = seconds if model is None else model.seconds(size, longest)
                fit.add(size, longest, seconds, expected)
            model = fit.solve()
        assert model is not None
        return _with_noise(model, kept, fit)

    @property
    def fits(self) -> bool:
        """True unless the typical error is above 25%; then only the first digit is known."""
        return not self.error > MOST_ERROR

    @property
    def factor(self) -> float:
        """Typical factor by which a batch is faster or slower than predicted; 1 if not fitted."""
        return 1.0 if math.isnan(self.error) else math.exp(min(self.error, LIMITS["spread"]))

    def doubts(self, size: int = 0, longest: int = 0) -> tuple[str, ...]:
        """Return warnings for results that use this model, the most serious first.

        `size` and `longest` are the largest batch and the longest input of those results. A warning
        says so if they are well beyond those of the fit.
        """
        doubts = [
            f"The cost model is in doubt: {each}." for each in self.warnings if NO_FIT not in each
        ]
        if 0 < BEYOND * self.largest < size:
            doubts.append(
                f"Batches were larger than the {self.largest} requests that the cost model was "
                "fitted to: their cost is extrapolated."
            )
        if 0 < BEYOND * self.longest < longest:
            doubts.append(
                f"Inputs were longer than the {self.longest} tokens that the cost model was fitted "
                "to: their cost is extrapolated."
            )
        return (*self._misfit(), *doubts)

    def _misfit(self) -> tuple[str, ...]:
        if self.fits:
            return ()
        return (
            f"The cost model does not fit: its typical error is {self.error:.0%}, so these figures "
            f"may be off by a factor of {self.factor:.2g}.",
        )

    @property
    def noise(self) -> Noise:
        """Variation of batches around the model, as fitted; none if the model was not fitted."""
        if math.isnan(self.error):
            return Noise()
        return Noise(min(self.error, LIMITS["spread"]), self.autocorrelation, self.correlation_time)

    def to_json(self) -> str:
        """Return the model as JSON text, for `from_json`."""
        values = asdict(self)
        values["error"] = None if math.isnan(self.error) else self.error
        return json.dumps(values)

    @classmethod
    @entry_point
    def from_json(cls, text: str) -> CostModel:
        """Return the model of which `to_json` made `text`. Raises `OptionError` for any other."""
        try:
            values: dict[str, Any] = json.loads(text)
        except (TypeError, ValueError) as error:
            raise OptionError(f"a saved cost model must be valid JSON: {error}") from error
        if not isinstance(values, dict):
            raise OptionError(f"a saved cost model must be a JSON object, got {text[:40]}")
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise OptionError(f"a cost model has no field {min(unknown)!r}")
        if not values.keys() & set(TERMS):
            raise OptionError(f"a cost model must have one of {', '.join(TERMS)}, got {text[:40]}")
        values["warnings"] = values.get("warnings") or ()
        if values.get("error") is None:
            values["error"] = math.nan
        return cls(**values)

    def __str__(self) -> str:
        terms = [
            f"{getattr(self, name) * 1e3:.3g} ms{unit}"
            for name, unit in UNITS.items()
            if getattr(self, name)
        ]
        text = " + ".join(terms) or "nothing"
        if self.batches:
            text += f" (typical error {self.error:.0%} over {self.batches} batches)"
        if self.turnaround or self.handling:
            text += (
                f"; and {self.turnaround * 1e3:.2g} ms between two batches, "
                f"{self.handling * 1e3:.2g} ms to accept a request"
            )
        if self.per_arrival:
            text += f", which delays a running batch by {self.per_arrival * 1e3:.2g} ms"
        if self.answering or self.per_answer:
            text += (
                f"; and {self.answering * 1e3:.2g} ms + {self.per_answer * 1e3:.2g} ms per request "
                "to answer a batch"
            )
        return "\n".join([text, *(f"warning: {warning}" for warning in self.warnings)])

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str]:
        return described(type(self).__name__, *str(self).splitlines())


def check_cost(cost: Any) -> None:
    """Raise `OptionError` unless `cost` is a cost model or a function of lengths."""
    if callable(cost) and not isinstance(cost, type):
        return
    if hasattr(cost, "fit_cost"):
        raise OptionError(
            f"cost must be a CostModel, got {type(cost).__name__}; write server.fit_cost()"
        )
    hint = f"CostModel(fixed={cost})" if is_number(cost) else "CostModel(fixed=0.01)"
    raise OptionError(
        f"cost must be a CostModel or a function of lengths, got {safe_repr(cost)}; write {hint}"
    )


def _check_fit(model: CostModel) -> None:
    """Check the fields that describe a fit."""
    for name, most in (
        ("error", math.inf),
        *((name, LIMITS[name]) for name in ("autocorrelation", "correlation_time")),
    ):
        value = getattr(model, name)
        if name == "error" and is_number(value) and math.isnan(plain_number(value)):
            continue
        as_number(name, value, f"a number from 0 to {most:g}", most=most)
    for name in ("batches", "largest", "longest"):
        as_whole_number(name, getattr(model, name), least=0)
    object.__setattr__(model, "warnings", as_warnings(model.warnings))


def as_warnings(warnings: Any) -> tuple[str, ...]:
    """Return `warnings` as a tuple of texts. Raises `OptionError` for anything else."""
    several = isinstance(warnings, Iterable) and not isinstance(warnings, str)
    texts: tuple[Any, ...] = tuple(warnings) if several else (None,)
    if not all(isinstance(text, str) for text in texts):
        raise OptionError(f"warnings must be a list of sentences, got {safe_repr(warnings)}")
    return texts


def _drop_outliers(model: CostModel, batches: list[ObservedBatch]) -> list[ObservedBatch]:
    """Return `batches` without rare ones that something else must have delayed."""
    kept = [batch for batch in batches if batch.seconds <= OUTLIER * model(batch.lengths)]
    # If slow batches are not rare, they are part of the cost.
    return kept if len(kept) >= (1 - RARE) * len(batches) else batches


def _with_noise(model: CostModel, batches: Sequence[ObservedBatch], fit: Fit) -> CostModel:
    """Return `model` with the size and the autocorrelation of its residuals."""
    # In logarithms, one batch that took three times as long does not outweigh all others.
    if any(batch.seconds <= 0 or model(batch.lengths) <= 0 for batch in batches):
        return model  # the clock is too coarse
    logs = [math.log(batch.seconds) - math.log(model(batch.lengths)) for batch in batches]
    error = math.sqrt(math.fsum(value * value for value in logs) / len(logs))
    known = sorted(
        (batch.started, value)
        for batch, value in zip(batches, logs, strict=True)
        if isinstance(batch, TimedBatch)
    )
    share, time = fit_autocorrelation([at for at, _ in known], [value for _, value in known])
    return replace(
        model,
        error=error,
        autocorrelation=share,
        correlation_time=time,
        warnings=fit.warnings(error),
    )


UNITS = {
    "fixed": "",
    "per_item": " per item",
    "per_token": " per padded token",
    "per_square": " per item and squared length",
}

#: factors that bring the terms of common batches to one scale
SCALES = (1.0, 1e-2, 1e-1, 1e-4)


class Fit:
    """Incremental least squares with non-negative terms.

    Keeps only sums, so its cost does not depend on the number of batches. With `memory`, older
    batches are forgotten exponentially: it is the effective number of batches remembered.
    """

    def __init__(self, memory: float = math.inf) -> None:
        self._keep = 1.0 - 1.0 / memory
        self._products = [[0.0] * len(TERMS) for _ in TERMS]
        self._targets = [0.0] * len(TERMS)
        self._square = 0.0
        self._weight = 0.0
        self._largest = self._longest = 1
        self.batches = 0

    def add(self, size: int, longest: int, seconds: float, expected: float) -> None:
        """Add a batch that took `seconds`; its error counts relative to `expected`."""
        weight = 1.0 / max(expected, 1e-9) ** 2
        tokens = size * longest
        terms = (1.0, tokens * 1e-2, size * 1e-1, tokens * longest * 1e-4)
        keep = self._keep
        for i, term in enumerate(terms):
            row, weighted = self._products[i], weight * term
            for j in range(i + 1):
                row[j] = keep * row[j] + weighted * terms[j]
            self._targets[i] = keep * self._targets[i] + weighted * seconds
        self._square = keep * self._square + weight * seconds * seconds
        self._weight = keep * self._weight + 1.0
        self._largest = max(self._largest, size)
        self._longest = max(self._longest, longest)
        self.batches += 1

    def solve(self) -> CostModel:
        """Return the best terms for the batches added, with the error and warnings."""
        if not self.batches:
            raise OptionError("there are no batches to fit a cost model to; serve some requests")
        # Inputs that have no length all have the length 1.
        choices = [TERMS[:2], TERMS[:3], TERMS] if self._longest > 1 else [("fixed", "per_item")]
        terms, error = self._best(choices[0])
        # The error is at least the rounding error of a sum of squares, and above 0: on a coarse
        # clock all batches may take 0 seconds.
        floor = max(1e-12 * self._square, sys.float_info.min)
        for allowed in choices[1:]:
            more, less_error = self._best(allowed)
            if self._weight * math.log((error + floor) / (less_error + floor)) > WORTH:
                terms, error = more, less_error
        typical = math.sqrt(max(0.0, error) / self._weight)
        return CostModel(
            **terms,
            error=typical,
            batches=self.batches,
            warnings=self.warnings(typical),
            largest=self._largest,
            longest=self._longest,
        )

    def _best(self, allowed: Sequence[str]) -> tuple[dict[str, float], float]:
        """Return the set of terms with the least squares of all sets with non-negative terms."""
        best: tuple[dict[str, float], float] = {}, self._square
        for count in range(1, len(allowed) + 1):
            for names in combinations(allowed, count):
                solved = self._solve([TERMS.index(name) for name in names])
                if solved is None or min(solved[0]) < 0:
                    continue
                # A larger set must be better by more than rounding.
                if solved[1] < best[1] - 1e-9 * self._square:
                    values = dict(zip(names, solved[0], strict=True))
                    best = values, solved[1]
        return best

    def _solve(self, which: Sequence[int]) -> tuple[list[float], float] | None:
        """Return the terms `which` and the squared error; None if they are collinear."""
        rows = [[self._product(i, j) for j in which] + [self._targets[i]] for i in which]
        if not _eliminate(rows):
            return None
        values = [row[-1] for row in rows]
        explained = sum(v * self._targets[i] for v, i in zip(values, which, strict=True))
        scaled = [v * SCALES[i] for v, i in zip(values, which, strict=True)]
        return scaled, max(0.0, self._square - explained)

    def _product(self, i: int, j: int) -> float:
        return self._products[i][j] if j <= i else self._products[j][i]

    def warnings(self, error: float) -> tuple[str, ...]:
        """Return the reasons to doubt a fit with this typical error."""
        warnings = []
        if self.batches < FEW:
            warnings.append(f"only {self.batches} batches; at least {FEW} are needed")
        same = self._indistinct()
        if same:
            warnings.append(
                f"the batches do not distinguish {' from '.join(same)} (all of one size or one "
                "length?), so batches of another shape may cost something else; calibrate() "
                "measures them"
            )
        if error > MOST_ERROR:
            warnings.append(f"the typical error is {error:.0%}: {NO_FIT}")
        return tuple(warnings)

    @property
    def tells_apart(self) -> bool:
        """True if the batches vary enough to determine each term, and not only their sum."""
        return not self._indistinct()

    def _indistinct(self) -> list[str]:
        """Return the linear terms that other terms explain."""
        terms = range(3) if self._longest > 1 else (0, 2)
        pairs = [(i, j) for i, j in combinations(terms, 2) if self._rest(i, [j]) < OWN]
        found = {i for pair in pairs for i in pair}
        if not found:
            rest = [self._rest(i, [j for j in terms if j != i]) for i in terms]
            found = {i for i, own in zip(terms, rest, strict=True) if own < OWN}
        return [TERMS[i] for i in sorted(found)]

    def _rest(self, i: int, others: Sequence[int]) -> float:
        """Return the share of a term's squares that a fit of the `others` leaves unexplained."""
        rows = [[self._product(j, k) for k in others] + [self._product(j, i)] for j in others]
        if not _eliminate(rows):
            return 1.0
        explained = sum(row[-1] * self._product(j, i) for row, j in zip(rows, others, strict=True))
        squares = self._product(i, i)
        return 1.0 - explained / squares if squares else 0.0


def _eliminate(rows: list[list[float]]) -> bool:
    """Solve a symmetric positive system in place; return False if it is singular.

    The last column is the right side, and then the solution.
    """
    count = len(rows)
    sizes = [rows[i][i] for i in range(count)]
    for i in range(count):
        pivot = rows[i][i]
        if pivot <= 1e-9 * sizes[i] or pivot <= 0:
            return False
        rows[i] = [value / pivot for value in rows[i]]
        for j in range(count):
            if j != i and rows[j][i]:
                factor = rows[j][i]
                rows[j] = [a - factor * b for a, b in zip(rows[j], rows[i], strict=True)]
    return True
