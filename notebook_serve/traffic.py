"""Synthetic traffic: arrival times of requests, lengths of their inputs, and texts to send.

Arrival times are seconds from the start, rates are arrivals per second, lengths are whole numbers
of tokens or words. All values are frozen, and their ``repr`` pastes back unless they hold more
than 50 recorded numbers. Iterating always starts from the beginning. The same seed gives the same
traffic on every version of Python.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, cycle, islice, repeat, takewhile
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from .errors import OptionError
from .validation.numbers import (
    TINY,
    as_number,
    as_whole_number,
    normalize_number,
    normalize_whole_number,
    plain_number,
)

if TYPE_CHECKING:
    from .records import RequestRecord

#: a repr lists at most so many recorded numbers
MOST_SHOWN = 50

# -- arrival times ------------------------------------------------------------------------


@runtime_checkable
class Traffic(Protocol):
    """Arrival times of requests."""

    @property
    def rate(self) -> float:
        """Mean arrivals per second over a long time."""

    def __iter__(self) -> Iterator[float]:
        """Yield the arrival times in ascending order; each call starts from the beginning."""

    def times(self, duration: float | None = None) -> list[float]:
        """Return the arrivals before `duration` seconds; without it all, if they end."""


@dataclass(frozen=True)
class Constant:
    """Evenly spaced arrivals, the first at 0; `n` of them, or endless.

    >>> Constant(4.0, n=3).times()
    [0.0, 0.25, 0.5]
    """

    rate: float
    n: int | None = None

    def __post_init__(self) -> None:
        _check_rate(self, "rate")
        _check_n(self)

    def __iter__(self) -> Iterator[float]:
        # Division instead of a running sum: rounding errors do not add up.
        return (k / self.rate for k in islice(count(), self.n))

    def times(self, duration: float | None = None) -> list[float]:
        """Return the arrivals before `duration` seconds; raise `OptionError` if they never end."""
        return _times(self, duration, self.n)


@dataclass(frozen=True)
class Poisson:
    """Arrivals of independent users: a Poisson process, with exponential gaps from the start.

    At another rate the same seed gives the same pattern, faster or slower.

    >>> [round(at, 3) for at in Poisson(50.0, seed=7, n=3)]
    [0.014, 0.064, 0.069]
    """

    rate: float
    seed: int = 0
    n: int | None = None

    def __post_init__(self) -> None:
        _check_rate(self, "rate")
        _check_seed(self)
        _check_n(self)

    def __iter__(self) -> Iterator[float]:
        return islice(_poisson(_draws("arrivals", self.seed), self.rate), self.n)

    def times(self, duration: float | None = None) -> list[float]:
        """Return the arrivals before `duration` seconds; raise `OptionError` if they never end."""
        return _times(self, duration, self.n)


@dataclass(frozen=True)
class Bursty:
    """Bursts of `peak` arrivals per second separated by silence, `rate` per second on average.

    A burst and the silence after it last `period` seconds on average, and the burst is the share
    ``rate / peak`` of that. Both have exponential durations, and the traffic may start in either.
    The mean rate is exact: for every t, ``rate * t`` arrivals are expected in the first t seconds.

    This is the interrupted Poisson process (Kuczura, The interrupted Poisson process as an
    overflow process, Bell System Technical Journal 52(3), 1973).

    >>> [round(at, 1) for at in Bursty(2.0, peak=10.0, seed=5).times(5.0)]
    [0.6, 0.6, 0.7, 0.9, 0.9, 0.9, 0.9, 1.0, 2.2, 2.5, 4.6, 4.6, 4.6, 4.7]
    """

    rate: float
    peak: float
    period: float = 1.0
    seed: int = 0
    n: int | None = None

    def __post_init__(self) -> None:
        _check_rate(self, "rate")
        normalize_number(self, "peak", f"a number >= rate ({self.rate})", least=self.rate)
        normalize_number(self, "period", "a number of seconds >= 1e-06", least=1e-6)
        _check_seed(self)
        _check_n(self)

    def __iter__(self) -> Iterator[float]:
        return islice(self._arrivals(), self.n)

    def _arrivals(self) -> Iterator[float]:
        draw = _draws("arrivals", self.seed)
        share = self.rate / self.peak
        burst, silence = share * self.period, (1.0 - share) * self.period
        now = 0.0 if draw() < share else _exponential(draw, silence)
        while True:
            # A gap cut off by the end of a burst is drawn again: the exponential has no memory.
            end = now + _exponential(draw, burst)
            while (now := now + _exponential(draw, 1.0 / self.peak)) < end:
                yield now
            now = end + _exponential(draw, silence)

    def times(self, duration: float | None = None) -> list[float]:
        """Return the arrivals before `duration` seconds; raise `OptionError` if they never end."""
        return _times(self, duration, self.n)


@dataclass(frozen=True)
class Ramp:
    """Random arrivals with a rate that swings from `low` to `high` and back, like days and nights.

    The rate is a cosine that begins at `low` and reaches `high` after half a `period` (seconds).
    The arrivals are a Poisson process of varying rate, drawn by thinning (Lewis and Shedler,
    Simulation of nonhomogeneous Poisson processes by thinning, Naval Research Logistics Quarterly
    26(3), 1979).

    >>> Ramp(10.0, 90.0, period=60.0).rate_at(30.0)
    90.0
    """

    low: float
    high: float
    period: float = 60.0
    seed: int = 0
    n: int | None = None

    def __post_init__(self) -> None:
        normalize_number(self, "low", "a number of arrivals per second >= 0")
        _check_rate(self, "high")
        normalize_number(self, "high", f"a number >= low ({self.low})", least=self.low)
        normalize_number(self, "period", "a number of seconds >= 1e-06", least=1e-6)
        _check_seed(self)
        _check_n(self)

    @property
    def rate(self) -> float:
        """Mean arrivals per second over whole periods."""
        return (self.low + self.high) / 2

    def rate_at(self, at: float) -> float:
        """Return the arrivals per second, `at` seconds from the start."""
        risen = (1.0 - math.cos(2.0 * math.pi * at / self.period)) / 2
        return self.low + (self.high - self.low) * risen

    def __iter__(self) -> Iterator[float]:
        return islice(self._arrivals(), self.n)

    def _arrivals(self) -> Iterator[float]:
        draw = _draws("arrivals", self.seed)
        for at in _poisson(draw, self.high):
            if draw() * self.high < self.rate_at(at):
                yield at

    def times(self, duration: float | None = None) -> list[float]:
        """Return the arrivals before `duration` seconds; raise `OptionError` if they never end."""
        return _times(self, duration, self.n)


@dataclass(frozen=True, init=False, repr=False)
class Trace:
    """Recorded arrivals: `times` in seconds from the start, in ascending order.

    >>> Trace([0.0, 0.5, 0.5, 2.0]).scaled(2)
    Trace([0.0, 0.25, 0.25, 1.0])
    """

    #: the arrival times
    arrivals: tuple[float, ...]

    def __init__(self, times: Iterable[float]) -> None:
        object.__setattr__(self, "arrivals", _as_arrivals(times))

    def __repr__(self) -> str:
        count = len(self.arrivals)
        if count > MOST_SHOWN:
            return f"<Trace: {count} arrivals from {self.arrivals[0]:g} to {self.arrivals[-1]:g} s>"
        return f"Trace({list(self.arrivals)})"

    @classmethod
    def from_records(cls, records: Iterable[RequestRecord]) -> Trace:
        """Return the arrivals of recorded requests with any outcome; the first is at 0."""
        arrived = sorted(record.arrived for record in records)
        return cls([at - arrived[0] for at in arrived])

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """Read a trace from a JSON file that `save` wrote: a list of times."""
        return cls(json.loads(Path(path).read_text("utf-8")))

    def save(self, path: str | Path) -> None:
        """Write the times to a file as a JSON list, without loss of precision."""
        Path(path).write_text(json.dumps(self.arrivals), "utf-8")

    @property
    def rate(self) -> float:
        """Mean arrivals per second from the first to the last; NaN if those coincide."""
        span = self.arrivals[-1] - self.arrivals[0] if self.arrivals else 0.0
        return (len(self.arrivals) - 1) / span if span else math.nan

    def scaled(self, factor: float) -> Trace:
        """Return the same pattern, `factor` times as fast."""
        factor = as_number("factor", factor, "a positive number", least=TINY)
        return Trace([at / factor for at in self.arrivals])

    def __iter__(self) -> Iterator[float]:
        return iter(self.arrivals)

    def times(self, duration: float | None = None) -> list[float]:
        """Return the arrivals before `duration` seconds, or all."""
        return _times(self, duration, len(self.arrivals))


@dataclass(frozen=True)
class ClosedLoop:
    """A fixed number of clients, each of which sends again after its answer.

    The load adapts to the server: a slow server gets fewer requests. Each client waits `think`
    seconds before it sends again. The arrival times depend on the answers, so this is not a
    `Traffic`; only functions that mention it accept it.
    """

    clients: int
    think: float = 0.0

    def __post_init__(self) -> None:
        normalize_whole_number(self, "clients")
        normalize_number(self, "think", "a number of seconds >= 0")


def as_traffic(value: object) -> Traffic:
    """Return a `Traffic` unchanged, and a sequence of arrival times as a `Trace`.

    Raises `OptionError` for anything else. A number is rejected too, because a rate alone does not
    determine the variation of arrivals.

    >>> as_traffic([0, 0.1])
    Trace([0.0, 0.1])
    """
    if isinstance(value, Traffic) and not isinstance(value, type):
        return value
    if isinstance(value, Real):
        raise OptionError(
            f"traffic must be a Traffic, got {value!r}; "
            f"write Poisson({value}) for random or Constant({value}) for even arrivals"
        )
    if isinstance(value, Collection):
        return Trace(value)
    raise OptionError(
        "traffic must be a Traffic such as Poisson(50), or a sequence of arrival times, "
        f"got {value!r}"
    )


def bounded(value: object, duration: float | None, otherwise: float) -> tuple[list[float], float]:
    """Return the arrival times of `value`, and the seconds that they cover.

    Without a `duration` these are all arrivals, or `otherwise` seconds of endless traffic.
    """
    traffic = as_traffic(value)
    if duration is None:
        try:
            times = traffic.times()
            return times, times[-1] if times else 0.0
        except OptionError:  # the traffic is endless
            duration = otherwise
    return traffic.times(duration), duration


def _times(traffic: Iterable[float], duration: float | None, n: int | None) -> list[float]:
    if duration is None:
        if n is None:
            raise OptionError(f"{traffic!r} is endless; set n=, or pass a duration in seconds")
        return list(traffic)
    limit = as_number("duration", duration, "a number of seconds >= 0")
    return list(takewhile(lambda at: at < limit, traffic))


def _poisson(draw: Callable[[], float], rate: float) -> Iterator[float]:
    now, log = 0.0, math.log
    while True:
        now -= log(1.0 - draw()) / rate
        yield now


def _exponential(draw: Callable[[], float], mean: float) -> float:
    return -math.log(1.0 - draw()) * mean


def _as_arrivals(times: Iterable[float]) -> tuple[float, ...]:
    kept, before = [], 0.0
    for index, at in enumerate(_as_tuple(times, "times")):
        second = float(plain_number(at))
        if not before <= second < math.inf:
            raise OptionError(
                "times must be numbers of seconds >= 0 in ascending order, "
                f"but times[{index}] is {at!r}" + (f" after {before}" if index else "")
            )
        kept.append(before := second)
    return tuple(kept)


# -- lengths of inputs --------------------------------------------------------------------


@runtime_checkable
class Lengths(Protocol):
    """Lengths of inputs, in tokens or words."""

    def __iter__(self) -> Iterator[int]:
        """Yield lengths of at least 1, endlessly; each call starts from the beginning."""

    def sample(self, n: int) -> list[int]:
        """Return the first `n` lengths."""


@dataclass(frozen=True)
class Fixed:
    """Inputs of one length."""

    length: int

    def __post_init__(self) -> None:
        normalize_whole_number(self, "length")

    def __iter__(self) -> Iterator[int]:
        return repeat(self.length)

    def sample(self, n: int) -> list[int]:
        """Return the first `n` lengths."""
        return _sample(self, n)


@dataclass(frozen=True)
class Uniform:
    """Lengths from `low` to `high`, both included, with equal probability.

    >>> Uniform(4, 8, seed=1).sample(6)
    [8, 6, 6, 5, 7, 4]
    """

    low: int
    high: int
    seed: int = 0

    def __post_init__(self) -> None:
        _check_bounds(self)
        _check_seed(self)

    def __iter__(self) -> Iterator[int]:
        draw, span = _draws("lengths", self.seed), self.high - self.low + 1
        return (self.low + int(draw() * span) for _ in repeat(None))

    def sample(self, n: int) -> list[int]:
        """Return the first `n` lengths."""
        return _sample(self, n)


@dataclass(frozen=True)
class LogNormal:
    """Many short inputs and few long ones, as people write them.

    The logarithm of a length is normal around that of `median`, with the standard deviation
    `sigma`. Lengths are rounded and clipped to `low` and `high`, as by a tokenizer that truncates.
    Clipping keeps the median, but may lower the mean.

    >>> LogNormal(20, 0.8, high=128).sample(6)
    [12, 29, 35, 55, 15, 20]
    """

    median: float
    sigma: float
    low: int = 1
    high: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        _check_bounds(self)
        kind = f"a number from low ({self.low}) to high ({self.high})"
        normalize_number(self, "median", kind, least=self.low, most=self.high)
        normalize_number(self, "sigma", "a number >= 0")
        _check_seed(self)

    def __iter__(self) -> Iterator[int]:
        draw, middle, most = (
            _draws("lengths", self.seed),
            math.log(self.median),
            math.log(self.high),
        )
        while True:
            length = round(math.exp(min(middle + self.sigma * _normal(draw), most)))
            yield max(self.low, min(self.high, length))

    def sample(self, n: int) -> list[int]:
        """Return the first `n` lengths."""
        return _sample(self, n)


@dataclass(frozen=True)
class Empirical:
    """Observed lengths, drawn at random with replacement."""

    #: stored as a tuple
    data: Sequence[int]
    seed: int = 0

    def __post_init__(self) -> None:
        _check_data(self)
        _check_seed(self)

    def __iter__(self) -> Iterator[int]:
        draw, data, size = _draws("lengths", self.seed), self.data, len(self.data)
        return (data[int(draw() * size)] for _ in repeat(None))

    def __repr__(self) -> str:
        return f"Empirical({_abbreviate(self.data)}, seed={self.seed})"

    def sample(self, n: int) -> list[int]:
        """Return the first `n` lengths."""
        return _sample(self, n)


@dataclass(frozen=True)
class Cycle:
    """Lengths in the given order, repeated endlessly.

    >>> Cycle([3, 5]).sample(5)
    [3, 5, 3, 5, 3]
    """

    #: stored as a tuple
    data: Sequence[int]

    def __post_init__(self) -> None:
        _check_data(self)

    def __iter__(self) -> Iterator[int]:
        return cycle(self.data)

    def __repr__(self) -> str:
        return f"Cycle({_abbreviate(self.data)})"

    def sample(self, n: int) -> list[int]:
        """Return the first `n` lengths."""
        return _sample(self, n)


def as_lengths(value: object) -> Lengths:
    """Return `Lengths` unchanged, a number as `Fixed`, and a sequence as `Cycle`.

    Raises `OptionError` for anything else.

    >>> as_lengths(16), as_lengths([3, 5])
    (Fixed(length=16), Cycle(data=(3, 5)))
    """
    if isinstance(value, Lengths) and not isinstance(value, type):
        return value
    if isinstance(value, Real):
        return Fixed(as_whole_number("lengths", value, "whole numbers >= 1"))
    if isinstance(value, Collection) and not isinstance(value, (str, bytes)):
        return Cycle(_as_lengths(value, "lengths"))
    raise OptionError(
        f"lengths must be such as LogNormal(20, 0.8), a whole number or a sequence, got {value!r}"
    )


def _abbreviate(data: Sequence[int]) -> str:
    if len(data) > MOST_SHOWN:
        return f"<{len(data)} lengths from {min(data)} to {max(data)}>"
    return f"data={data}"


def _sample(lengths: Iterable[int], n: int) -> list[int]:
    return list(islice(lengths, as_whole_number("n", n, least=0)))


def _normal(draw: Callable[[], float]) -> float:
    """Draw a standard normal number (Box and Muller, 1958).

    The algorithm of `random.gauss` may change between versions of Python.
    """
    radius = math.sqrt(-2.0 * math.log(1.0 - draw()))
    return radius * math.cos(2.0 * math.pi * draw())


# -- texts to send ------------------------------------------------------------------------

# fmt: off
#: common words, each a single token in most large vocabularies
WORDS = (
    "the", "a", "of", "and", "to", "in", "on", "at", "by", "with",
    "from", "near", "over", "under", "one", "two", "red", "blue", "green", "small",
    "large", "old", "new", "house", "river", "road", "tree", "stone", "water", "paper",
    "table", "window", "morning", "evening", "summer", "winter", "is", "has", "first", "last",
)
# fmt: on


def texts(
    lengths: Lengths | int | Sequence[int], n: int, seed: int = 0, holding: str = ""
) -> list[str]:
    """Return `n` texts of common English words; `lengths` are their numbers of words.

    `holding` replaces one random word of each text, such as ``"[MASK]"`` for fill-mask. A tokenizer
    adds its special tokens, usually two, to the number of words. A small vocabulary, such as the
    demo's, splits some words into several tokens.

    >>> texts(6, 2, seed=1)
    ['the green last the tree from', 'first in large to one road']
    """
    draw = _draws("texts", as_whole_number("seed", seed, least=0))
    return [_text(draw, length, holding) for length in as_lengths(lengths).sample(n)]


def _text(draw: Callable[[], float], length: int, holding: str) -> str:
    words = [WORDS[int(draw() * len(WORDS))] for _ in range(length)]
    if holding:
        words[int(draw() * length)] = holding
    return " ".join(words)


# -- random numbers and checks ------------------------------------------------------------


def _draws(use: str, seed: int) -> Callable[[], float]:
    """Return a generator of numbers in [0, 1) that depends on the seed and on its use.

    If it depended on the seed alone, arrivals and lengths would be the same numbers in two forms,
    and the longest inputs would all follow the longest gaps. Only ``random()`` is the same in every
    version of Python; its distributions may change.
    """
    return random.Random(f"{use} {seed}").random  # noqa: S311  # not used for secrets


def _check_rate(owner: object, name: str) -> None:
    normalize_number(owner, name, "a positive number of arrivals per second", least=TINY)


def _check_n(owner: Constant | Poisson | Bursty | Ramp) -> None:
    if owner.n is not None:
        normalize_whole_number(owner, "n", "a whole number >= 1, or None for endless traffic")


def _check_seed(owner: object) -> None:
    normalize_whole_number(owner, "seed", least=0)


def _check_bounds(owner: Uniform | LogNormal) -> None:
    normalize_whole_number(owner, "low")
    kind = f"a whole number >= low ({owner.low})"
    normalize_whole_number(owner, "high", kind, least=owner.low)


def _check_data(owner: Empirical | Cycle) -> None:
    object.__setattr__(owner, "data", _as_lengths(owner.data, "data"))


def _as_lengths(values: Iterable[Any], name: str) -> tuple[int, ...]:
    items = _as_tuple(values, name)
    if not items:
        raise OptionError(f"{name} must have at least one length, got {values!r}")
    return tuple(as_whole_number(f"{name}[{i}]", item) for i, item in enumerate(items))


def _as_tuple(values: Iterable[Any], name: str) -> tuple[Any, ...]:
    try:
        return tuple(values)
    except TypeError as error:
        raise OptionError(f"{name} must be a sequence of numbers, got {values!r}") from error
