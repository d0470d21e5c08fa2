"""The cost of a batch: a law of its size and its longest input, fitted to batches that ran."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import combinations
from numbers import Integral, Real
from typing import Any, Protocol, runtime_checkable

from ..display import make_bundle, safe_repr
from ..errors import OptionError
from ..validation.tracebacks import entry_point
from .noise import LIMITS, Noise, spells

#: the terms of the law, in the order in which they are preferred where the data cannot tell
TERMS = ("fixed", "per_token", "per_item", "per_square")
#: what a server takes besides running
BESIDES = ("turnaround", "handling", "answering", "per_answer", "per_arrival")
#: fewer batches than this are too few to trust what was fitted to them
FEW = 20
#: a typical error of more than this share is too large to trust
MOST_ERROR = 0.25
#: the warning of a larger one, and by how much larger than those it was fitted to batches may be
NO_FIT = "no law here fits these batches well"
BEYOND = 1.5
#: what of a term must be its own, the other terms taken away, for the data to tell it from them
OWN = 1e-4
#: a batch that took more than so many times what it should have is no measure of the law, where
#: no more than this share of them did
HELD_UP, RARE = 5.0, 0.02
#: how much better (in the logarithm of its likelihood, twice) another term must make a fit: short
#: inputs alone hardly tell what comes with their number from what comes with their tokens, and to
#: take the one for the other is to think that long ones cost as little
WORTH = 10.0


class Ran(Protocol):
    """What is to be known of a batch that ran: a `BatchRecord`, or the like."""

    @property
    def lengths(self) -> Sequence[int]:
        """The length of each input."""

    @property
    def seconds(self) -> float:
        """How long it took."""


@runtime_checkable
class Started(Ran, Protocol):
    """One of which it is known when it ran, too."""

    @property
    def started(self) -> float:
        """When, in seconds on any clock."""


@dataclass(frozen=True)
class CostModel:
    """Seconds that a batch takes, from the lengths of its inputs.

    For `n` inputs, padded to the longest of them, that is ``fixed + per_item * n + per_token * n *
    longest + per_square * n * longest**2``: what every call costs, what every input costs, the
    layers that see one token at a time, and attention. A server takes `turnaround`, `handling`,
    `answering`, `per_answer` and `per_arrival` besides, which a simulation adds.

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
    #: seconds until a request may run though nobody is before it
    handling: float = 0.0
    #: seconds from the end of a batch until its answers are there, and more of them for each answer
    answering: float = 0.0
    per_answer: float = 0.0
    #: seconds by which each request that comes while a batch runs holds that up: it is taken in by
    #: the same interpreter
    per_arrival: float = 0.0
    #: the typical error as a share of a batch's seconds (root mean square, of logarithms where the
    #: clock allows); not-a-number where the model was not fitted
    error: float = math.nan
    #: the share of the error that lasts from one batch to the next, and for how many seconds
    autocorrelation: float = 0.0
    correlation_time: float = 0.0
    #: how many batches it was fitted to
    batches: int = 0
    #: what makes the fit doubtful
    warnings: tuple[str, ...] = ()
    #: the largest batch that it was fitted to, and the longest input; 0 where it was not fitted
    largest: int = 0
    longest: int = 0

    def __post_init__(self) -> None:
        for name in (*TERMS, *BESIDES):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not 0 <= value < math.inf:
                raise OptionError(f"{name} is a number of seconds from 0 up, not {value!r}")
        _check_fit(self)

    def __call__(self, lengths: Sequence[int]) -> float:
        """Seconds for one batch of inputs of these lengths; 0 for none."""
        return self.seconds(len(lengths), max(lengths)) if lengths else 0.0

    def seconds(self, size: int, longest: int) -> float:
        """Seconds for `size` inputs of which the longest has `longest` tokens."""
        if longest < 0:
            raise OptionError(f"lengths must be >= 0, got {longest!r}")
        each = self.per_item + longest * (self.per_token + longest * self.per_square)
        return self.fixed + size * each

    @classmethod
    def fit(cls, batches: Iterable[Ran]) -> CostModel:
        """The non-negative terms that come nearest to what `batches` took.

        Errors count relative to what a batch is expected to take (least squares, weighted again
        after each of three rounds), so that short batches count as much as long ones; those that
        took several times what they should have were held up by something else, and are left out.
        What comes with each input, and the quadratic term, are left out where they do not help.
        `error` and `warnings` tell how far to trust it. Where batches say when they `started`, what
        is left is looked through for spells in which the machine was slow or fast. Raises
        `OptionError` if there is nothing to fit to.
        """
        ran = [batch for batch in batches if batch.lengths]
        model: CostModel | None = None
        for _ in range(3):
            if model is not None:
                ran = _not_held_up(model, ran)
            fit = Fit()
            for batch in ran:
                size, longest, seconds = len(batch.lengths), max(batch.lengths), batch.seconds
                expected = seconds if model is None else model.seconds(size, longest)
                fit.add(size, longest, seconds, expected)
            model = fit.solve()
        assert model is not None
        return _with_noise(model, ran, fit)

    @property
    def fits(self) -> bool:
        """Return False if the typical error is above 25%: then no digit but the first is known."""
        return not self.error > MOST_ERROR

    @property
    def factor(self) -> float:
        """By how many times a batch may be faster or slower than it says; 1 if not fitted."""
        return 1.0 if math.isnan(self.error) else math.exp(min(self.error, LIMITS["spread"]))

    def doubts(self, size: int = 0, longest: int = 0) -> tuple[str, ...]:
        """Sentences on how far to trust what rests on it, the gravest first; none if all is well.

        `size` and `longest` are those of the largest batch and the longest input that were reckoned
        with: what it was fitted to may have been smaller.
        """
        said = [
            f"The cost model is in doubt: {each}." for each in self.warnings if NO_FIT not in each
        ]
        if 0 < BEYOND * self.largest < size:
            said.append(
                f"Batches were larger than the {self.largest} requests that the cost model was "
                "fitted to: their cost is extrapolated."
            )
        if 0 < BEYOND * self.longest < longest:
            said.append(
                f"Inputs were longer than the {self.longest} tokens that the cost model was fitted "
                "to: their cost is extrapolated."
            )
        return (*self._misfit(), *said)

    def _misfit(self) -> tuple[str, ...]:
        if self.fits:
            return ()
        return (
            f"The cost model does not fit: its typical error is {self.error:.0%}, so these figures "
            f"may be off by a factor of {self.factor:.2g}.",
        )

    @property
    def noise(self) -> Noise:
        """How batches vary around it, as far as the fit tells; none where it was not fitted."""
        if math.isnan(self.error):
            return Noise()
        return Noise(min(self.error, LIMITS["spread"]), self.autocorrelation, self.correlation_time)

    def to_json(self) -> str:
        """As JSON text, for `from_json`."""
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
            raise OptionError(f"a cost model is kept as JSON, and this is none: {error}") from error
        if not isinstance(values, dict):
            raise OptionError(f"a cost model is a JSON object, not {text[:40]}")
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise OptionError(f"a cost model has no {min(unknown)!r}")
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
                f"{self.handling * 1e3:.2g} ms to take a request in"
            )
        if self.per_arrival:
            text += f", which holds a running batch up by {self.per_arrival * 1e3:.2g} ms"
        if self.answering or self.per_answer:
            text += (
                f"; and {self.answering * 1e3:.2g} ms + {self.per_answer * 1e3:.2g} ms per request "
                "to answer a batch"
            )
        return "\n".join([text, *(f"warning: {said}" for said in self.warnings)])

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str]:
        return make_bundle(type(self).__name__, *str(self).splitlines())


def check_cost(cost: Any) -> None:
    """Raise `OptionError` unless `cost` can say what a batch costs: a model, or a function."""
    if callable(cost) and not isinstance(cost, type):
        return
    if hasattr(cost, "fit_cost"):
        raise OptionError(
            f"cost must be a CostModel, got {type(cost).__name__}; write server.fit_cost()"
        )
    number = isinstance(cost, Real) and not isinstance(cost, bool)
    hint = f"CostModel(fixed={cost})" if number else "CostModel(fixed=0.01)"
    raise OptionError(
        f"cost must be a CostModel or a function of lengths, got {safe_repr(cost)}; write {hint}"
    )


def _check_fit(model: CostModel) -> None:
    """Check what a fit says of itself."""
    most = {
        "error": math.inf,
        **{name: LIMITS[name] for name in ("autocorrelation", "correlation_time")},
    }
    for name, limit in most.items():
        value = getattr(model, name)
        number = isinstance(value, Real) and not isinstance(value, bool)
        if not number or value < 0 or value > limit:
            raise OptionError(f"{name} must be a number from 0 to {limit:g}, got {value!r}")
    for name in ("batches", "largest", "longest"):
        value = getattr(model, name)
        if isinstance(value, bool) or not isinstance(value, Integral) or value < 0:
            raise OptionError(f"{name} must be a whole number >= 0, got {value!r}")
    object.__setattr__(model, "warnings", sentences(model.warnings))


def sentences(warnings: Any) -> tuple[str, ...]:
    """Return `warnings` as a tuple of texts. Raises `OptionError` for anything else."""
    several = isinstance(warnings, Iterable) and not isinstance(warnings, str)
    said: tuple[Any, ...] = tuple(warnings) if several else (None,)
    if not all(isinstance(each, str) for each in said):
        raise OptionError(f"warnings must be a list of sentences, got {safe_repr(warnings)}")
    return said


def _not_held_up(model: CostModel, batches: list[Ran]) -> list[Ran]:
    """Without the few that something else than they themselves must have made take so long."""
    kept = [batch for batch in batches if batch.seconds <= HELD_UP * model(batch.lengths)]
    # Where there are many of them, they are what this model is like.
    return kept if len(kept) >= (1 - RARE) * len(batches) else batches


def _with_noise(model: CostModel, batches: Sequence[Ran], fit: Fit) -> CostModel:
    """`model` with what its residuals tell: how large they are, and what of it comes in spells."""
    # As logarithms, of which a batch that took three times as long does not drown all others.
    if any(batch.seconds <= 0 or model(batch.lengths) <= 0 for batch in batches):
        return model  # the clock is too coarse to say
    logs = [math.log(batch.seconds) - math.log(model(batch.lengths)) for batch in batches]
    error = math.sqrt(math.fsum(value * value for value in logs) / len(logs))
    known = sorted(
        (batch.started, value)
        for batch, value in zip(batches, logs, strict=True)
        if isinstance(batch, Started)
    )
    share, time = spells([at for at, _ in known], [value for _, value in known])
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

#: brings the terms of common batches to one scale
SCALES = (1.0, 1e-2, 1e-1, 1e-4)


class Fit:
    """Least squares with non-negative terms, fed one batch at a time.

    Keeps sums only, so it costs the same however many batches there were. With `memory`, what is
    older than about so many batches is forgotten.
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
        """Learn from a batch that took `seconds`; its error counts relative to `expected`."""
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
        """The best terms for what was added, with the error and what makes them doubtful."""
        if not self.batches:
            raise OptionError("there are no batches to fit a cost model to; serve some requests")
        # Where length means nothing, every input has the length 1.
        laws = [TERMS[:2], TERMS[:3], TERMS] if self._longest > 1 else [("fixed", "per_item")]
        terms, error = self._best(laws[0])
        # Errors are at least what rounding leaves of a sum of squares, and never nothing: on a
        # coarse clock every batch may take no time at all.
        floor = max(1e-12 * self._square, sys.float_info.min)
        for allowed in laws[1:]:
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
        """Of all sets of terms that come out non-negative, the one with the least squares."""
        best: tuple[dict[str, float], float] = {}, self._square
        for count in range(1, len(allowed) + 1):
            for names in combinations(allowed, count):
                solved = self._solve([TERMS.index(name) for name in names])
                if solved is None or min(solved[0]) < 0:
                    continue
                # A larger set must be truly better, not by rounding.
                if solved[1] < best[1] - 1e-9 * self._square:
                    values = dict(zip(names, solved[0], strict=True))
                    best = values, solved[1]
        return best

    def _solve(self, which: Sequence[int]) -> tuple[list[float], float] | None:
        """The terms `which` by elimination, and the squares left; None if they are as one."""
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
        """What makes a fit doubtful whose typical error is this."""
        said = []
        if self.batches < FEW:
            said.append(f"only {self.batches} batches; {FEW} or more are wanted")
        same = self._indistinct()
        if same:
            said.append(
                f"the batches cannot tell {' from '.join(same)} (all of one size or one length?), "
                "so batches of another shape may cost something else; calibrate() measures them"
            )
        if error > MOST_ERROR:
            said.append(f"the typical error is {error:.0%}: {NO_FIT}")
        return tuple(said)

    @property
    def tells_apart(self) -> bool:
        """Whether the batches are so different that each term is known, and not only their sum."""
        return not self._indistinct()

    def _indistinct(self) -> list[str]:
        """Those of the linear terms that others explain."""
        terms = range(3) if self._longest > 1 else (0, 2)
        pairs = [(i, j) for i, j in combinations(terms, 2) if self._rest(i, [j]) < OWN]
        found = {i for pair in pairs for i in pair}
        if not found:
            rest = [self._rest(i, [j for j in terms if j != i]) for i in terms]
            found = {i for i, own in zip(terms, rest, strict=True) if own < OWN}
        return [TERMS[i] for i in sorted(found)]

    def _rest(self, i: int, others: Sequence[int]) -> float:
        """The share of a term's squares that a fit of the `others` to it leaves."""
        rows = [[self._product(j, k) for k in others] + [self._product(j, i)] for j in others]
        if not _eliminate(rows):
            return 1.0
        explained = sum(row[-1] * self._product(j, i) for row, j in zip(rows, others, strict=True))
        squares = self._product(i, i)
        return 1.0 - explained / squares if squares else 0.0


def _eliminate(rows: list[list[float]]) -> bool:
    """Solve a symmetric positive system, its right side the last column; False if singular."""
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
