"""Synthetic traffic: when requests arrive, how long their inputs are, and texts to send.

Arrival times are seconds from the start, rates are arrivals per second, lengths are whole numbers
of tokens or words. Everything here is a frozen value whose ``repr`` pastes back, unless it holds
more than 50 recorded numbers. Iterating always starts from the beginning, and the same seed gives
the same traffic on every version of Python.
"""

from __future__ import annotations

import json
import math
import operator
import random
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, cycle, islice, repeat, takewhile
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from .errors import OptionError

if TYPE_CHECKING:
    from .records import RequestRecord

#: the least positive number that can still be divided by
TINY = sys.float_info.min
#: recorded numbers that a repr still lists
MOST_SHOWN = 50

# -- when requests arrive -----------------------------------------------------------------


@runtime_checkable
class Traffic(Protocol):
    """When requests arrive."""

    @property
    def rate(self) -> float:
        """The mean arrivals per second over a long time."""

    def __iter__(self) -> Iterator[float]:
        """The arrival times from the first on, never falling; each call starts anew."""

    def times(self, duration: float | None = None) -> list[float]:
        """The arrivals before `duration` seconds, or all where there is an end to them."""


@dataclass(frozen=True)
class Constant:
    """Evenly spaced arrivals, the first at 0, `n` of them or without end.

    >>> Constant(4.0, n=3).times()
    [0.0, 0.25, 0.5]
    """

    rate: float
    n: int | None = None

    def __post_init__(self) -> None:
        _check_rate(self, "rate")
        _check_n(self)

    def __iter__(self) -> Iterator[float]:
        # Divided, not added up: the millionth is as exact as the first.
        return (k / self.rate for k in islice(count(), self.n))

    def times(self, duration: float | None = None) -> list[float]:
        """The arrivals before `duration` seconds; raises `OptionError` if there is no end."""
        return _times(self, duration, self.n)


@dataclass(frozen=True)
class Poisson:
    """Independent users: a Poisson process, whose gaps are exponential, the first one too.

    At another rate the same seed gives the same pattern, only faster or slower.

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
        """The arrivals before `duration` seconds; raises `OptionError` if there is no end."""
        return _times(self, duration, self.n)


@dataclass(frozen=True)
class Bursty:
    """Bursts of `peak` arrivals per second with silence between, `rate` per second on average.

    A burst and the silence after it last `period` seconds together on average, of which the burst
    takes ``rate / peak``; both are exponential, and the traffic may begin in either. The mean rate
    is exact: `rate` times t arrivals are expected in the first t seconds, for every t.

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
        _check(self, "peak", self.rate, f"a number from rate ({self.rate}) up")
        _check(self, "period", 1e-6, "a number of seconds from 1e-06 up")
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
            # A gap that the end cuts off may be drawn anew: an exponential has no memory.
            end = now + _exponential(draw, burst)
            while (now := now + _exponential(draw, 1.0 / self.peak)) < end:
                yield now
            now = end + _exponential(draw, silence)

    def times(self, duration: float | None = None) -> list[float]:
        """The arrivals before `duration` seconds; raises `OptionError` if there is no end."""
        return _times(self, duration, self.n)


@dataclass(frozen=True)
class Ramp:
    """Days and nights: random arrivals whose rate swings from `low` to `high` and back.

    The rate is a cosine that begins at `low`, reaches `high` after half a `period` (seconds) and
    starts over: a Poisson process of varying rate, made by thinning (Lewis and Shedler, Simulation
    of nonhomogeneous Poisson processes by thinning, Naval Research Logistics Quarterly 26(3),
    1979).

    >>> Ramp(10.0, 90.0, period=60.0).rate_at(30.0)
    90.0
    """

    low: float
    high: float
    period: float = 60.0
    seed: int = 0
    n: int | None = None

    def __post_init__(self) -> None:
        _check(self, "low", 0.0, "a number of arrivals per second from 0 up")
        _check_rate(self, "high")
        _check(self, "high", self.low, f"a number from low ({self.low}) up")
        _check(self, "period", 1e-6, "a number of seconds from 1e-06 up")
        _check_seed(self)
        _check_n(self)

    @property
    def rate(self) -> float:
        """The mean arrivals per second over whole periods."""
        return (self.low + self.high) / 2

    def rate_at(self, at: float) -> float:
        """The arrivals per second, `at` seconds from the start."""
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
        """The arrivals before `duration` seconds; raises `OptionError` if there is no end."""
        return _times(self, duration, self.n)


@dataclass(frozen=True, init=False, repr=False)
class Trace:
    """Recorded arrivals: `times` in seconds from the start, each at or after the one before.

    >>> Trace([0.0, 0.5, 0.5, 2.0]).scaled(2)
    Trace([0.0, 0.25, 0.25, 1.0])
    """

    #: the arrival times, as they were given
    arrivals: tuple[float, ...]

    def __init__(self, times: Iterable[float]) -> None:
        object.__setattr__(self, "arrivals", _rising(times))

    def __repr__(self) -> str:
        count = len(self.arrivals)
        if count > MOST_SHOWN:
            return f"<Trace: {count} arrivals from {self.arrivals[0]:g} to {self.arrivals[-1]:g} s>"
        return f"Trace({list(self.arrivals)})"

    @classmethod
    def from_records(cls, records: Iterable[RequestRecord]) -> Trace:
        """When the recorded requests arrived, whatever became of them; the first is at 0."""
        arrived = sorted(record.arrived for record in records)
        return cls([at - arrived[0] for at in arrived])

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """The trace in a JSON file: a list of times, as `save` writes it."""
        return cls(json.loads(Path(path).read_text("utf-8")))

    def save(self, path: str | Path) -> None:
        """Write the times to a file, as a JSON list; every one is read back exactly."""
        Path(path).write_text(json.dumps(self.arrivals), "utf-8")

    @property
    def rate(self) -> float:
        """The mean arrivals per second from the first to the last; NaN if no time is between."""
        span = self.arrivals[-1] - self.arrivals[0] if self.arrivals else 0.0
        return (len(self.arrivals) - 1) / span if span else math.nan

    def scaled(self, factor: float) -> Trace:
        """The same pattern, `factor` times as fast."""
        factor = _number(factor, TINY, "factor is a number above 0")
        return Trace([at / factor for at in self.arrivals])

    def __iter__(self) -> Iterator[float]:
        return iter(self.arrivals)

    def times(self, duration: float | None = None) -> list[float]:
        """The arrivals before `duration` seconds, or all."""
        return _times(self, duration, len(self.arrivals))


@dataclass(frozen=True)
class ClosedLoop:
    """A fixed number of clients, each of which asks again once it was answered.

    The load follows the server: a slow one is asked less often. Each client thinks for `think`
    seconds before it asks again. No traffic with times of its own, so only what says so takes it.
    """

    clients: int
    think: float = 0.0

    def __post_init__(self) -> None:
        _check_whole(self, "clients", 1, "a whole number from 1 up")
        _check(self, "think", 0.0, "a number of seconds from 0 up")


def as_traffic(value: object) -> Traffic:
    """The traffic that was meant: a `Traffic` as it is, a sequence of arrival times as a `Trace`.

    Raises `OptionError` for anything else, a number too: a rate does not say how arrivals vary.

    >>> as_traffic([0, 0.1])
    Trace([0.0, 0.1])
    """
    if isinstance(value, Traffic) and not isinstance(value, type):
        return value
    if isinstance(value, Real):
        raise OptionError(
            f"traffic of {value} per second may be random or even: "
            f"write Poisson({value}) or Constant({value})"
        )
    if isinstance(value, Collection):
        return Trace(value)
    raise OptionError(
        f"traffic is such as Poisson(50) or a sequence of arrival times, not {value!r}"
    )


def bounded(value: object, duration: float | None, otherwise: float) -> tuple[list[float], float]:
    """The arrival times that were meant, and the seconds that they cover.

    Without a `duration` that is all of them, or `otherwise` seconds of what has no end.
    """
    traffic = as_traffic(value)
    if duration is None:
        try:
            times = traffic.times()
            return times, times[-1] if times else 0.0
        except OptionError:  # it has no end
            duration = otherwise
    return traffic.times(duration), duration


def _times(traffic: Iterable[float], duration: float | None, n: int | None) -> list[float]:
    if duration is None:
        if n is None:
            raise OptionError(f"{traffic!r} has no end: give it n, or times a duration in seconds")
        return list(traffic)
    limit = _number(duration, 0.0, "duration is a number of seconds from 0 up")
    return list(takewhile(lambda at: at < limit, traffic))


def _poisson(draw: Callable[[], float], rate: float) -> Iterator[float]:
    now, log = 0.0, math.log
    while True:
        now -= log(1.0 - draw()) / rate
        yield now


def _exponential(draw: Callable[[], float], mean: float) -> float:
    return -math.log(1.0 - draw()) * mean


def _rising(times: Iterable[float]) -> tuple[float, ...]:
    kept, before = [], 0.0
    for index, at in enumerate(_items(times, "times")):
        second = float(_plain(at))
        if not before <= second < math.inf:
            raise OptionError(
                "times are numbers of seconds from 0 up, each at or after the one before, "
                f"but times[{index}] is {at!r}" + (f" after {before}" if index else "")
            )
        kept.append(before := second)
    return tuple(kept)


# -- how long their inputs are ------------------------------------------------------------


@runtime_checkable
class Lengths(Protocol):
    """How long the inputs are, in tokens or words."""

    def __iter__(self) -> Iterator[int]:
        """The length of each input in turn, from 1 up and without end; each call starts anew."""

    def sample(self, n: int) -> list[int]:
        """The first `n` lengths."""


@dataclass(frozen=True)
class Fixed:
    """All of one length."""

    length: int

    def __post_init__(self) -> None:
        _check_whole(self, "length", 1, "a whole number from 1 up")

    def __iter__(self) -> Iterator[int]:
        return repeat(self.length)

    def sample(self, n: int) -> list[int]:
        """The first `n` lengths."""
        return _sample(self, n)


@dataclass(frozen=True)
class Uniform:
    """Every length from `low` to `high`, both included, as likely as the next.

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
        """The first `n` lengths."""
        return _sample(self, n)


@dataclass(frozen=True)
class LogNormal:
    """Many short inputs and few long ones, as people write them.

    The logarithm of a length is normal around that of `median`, with the standard deviation
    `sigma`. Lengths are rounded, and clipped to `low` and `high`, as a tokenizer truncates: what
    would be longer than `high` is `high` long. So the median stays, and the mean may fall.

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
        what = f"a number from low ({self.low}) to high ({self.high})"
        _check(self, "median", self.low, what, self.high)
        _check(self, "sigma", 0.0, "a number from 0 up")
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
        """The first `n` lengths."""
        return _sample(self, n)


@dataclass(frozen=True)
class Empirical:
    """Lengths that were seen, drawn at random with replacement."""

    #: kept as a tuple
    data: Sequence[int]
    seed: int = 0

    def __post_init__(self) -> None:
        _check_data(self)
        _check_seed(self)

    def __iter__(self) -> Iterator[int]:
        draw, data, size = _draws("lengths", self.seed), self.data, len(self.data)
        return (data[int(draw() * size)] for _ in repeat(None))

    def __repr__(self) -> str:
        return f"Empirical({_shown(self.data)}, seed={self.seed})"

    def sample(self, n: int) -> list[int]:
        """The first `n` lengths."""
        return _sample(self, n)


@dataclass(frozen=True)
class Cycle:
    """Lengths in the order given, over and over.

    >>> Cycle([3, 5]).sample(5)
    [3, 5, 3, 5, 3]
    """

    #: kept as a tuple
    data: Sequence[int]

    def __post_init__(self) -> None:
        _check_data(self)

    def __iter__(self) -> Iterator[int]:
        return cycle(self.data)

    def __repr__(self) -> str:
        return f"Cycle({_shown(self.data)})"

    def sample(self, n: int) -> list[int]:
        """The first `n` lengths."""
        return _sample(self, n)


def as_lengths(value: object) -> Lengths:
    """The lengths that were meant: `Lengths` as they are, a number for all, a sequence in turn.

    Raises `OptionError` for anything else.

    >>> as_lengths(16), as_lengths([3, 5])
    (Fixed(length=16), Cycle(data=(3, 5)))
    """
    if isinstance(value, Lengths) and not isinstance(value, type):
        return value
    if isinstance(value, Real):
        return Fixed(_whole(value, 1, "lengths are whole numbers from 1 up"))
    if isinstance(value, Collection) and not isinstance(value, (str, bytes)):
        return Cycle(_lengths(value, "lengths"))
    raise OptionError(
        f"lengths are such as LogNormal(20, 0.8), a whole number or a sequence, not {value!r}"
    )


def _shown(data: Sequence[int]) -> str:
    if len(data) > MOST_SHOWN:
        return f"<{len(data)} lengths from {min(data)} to {max(data)}>"
    return f"data={data}"


def _sample(lengths: Iterable[int], n: int) -> list[int]:
    return list(islice(lengths, _whole(n, 0, "n is a whole number from 0 up")))


def _normal(draw: Callable[[], float]) -> float:
    """A standard normal number (Box and Muller, 1958); Python's own have changed over time."""
    radius = math.sqrt(-2.0 * math.log(1.0 - draw()))
    return radius * math.cos(2.0 * math.pi * draw())


# -- texts to send ------------------------------------------------------------------------

# fmt: off
#: plain words, each a single token to most large tokenizers
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
    """`n` texts of plain English words, as many in each as `lengths` has it.

    With `holding`, one word of each text, at random, is that one: ``"[MASK]"`` for fill-mask.
    A tokenizer adds its special tokens, mostly two, to the number of words; one with a small
    vocabulary, such as the demo's, makes several tokens of some words.

    >>> texts(6, 2, seed=1)
    ['the green last the tree from', 'first in large to one road']
    """
    draw = _draws("texts", _whole(seed, 0, "seed is a whole number from 0 up"))
    return [_text(draw, length, holding) for length in as_lengths(lengths).sample(n)]


def _text(draw: Callable[[], float], length: int, holding: str) -> str:
    words = [WORDS[int(draw() * len(WORDS))] for _ in range(length)]
    if holding:
        words[int(draw() * length)] = holding
    return " ".join(words)


# -- what the options may be --------------------------------------------------------------


def _draws(use: str, seed: int) -> Callable[[], float]:
    """Numbers from 0 up to 1 (never 1) that depend on the seed and on what they are for.

    Were it on the seed alone, arrivals and lengths of one seed would be the same numbers in two
    forms, and the longest inputs would all come after the longest gaps. Only ``random()`` is the
    same in every version of Python; its distributions are free to change.
    """
    return random.Random(f"{use} {seed}").random  # noqa: S311  # no secret is made of them


def _check(owner: object, name: str, least: float, what: str, most: float = math.inf) -> None:
    """Hold a field to a number, kept as a plain one, whose repr is plain."""
    value = _number(getattr(owner, name), least, f"{name} is {what}", most)
    object.__setattr__(owner, name, value)


def _check_rate(owner: object, name: str) -> None:
    _check(owner, name, TINY, "a number of arrivals per second above 0")


def _check_whole(owner: object, name: str, least: int, what: str) -> None:
    object.__setattr__(owner, name, _whole(getattr(owner, name), least, f"{name} is {what}"))


def _check_n(owner: Constant | Poisson | Bursty | Ramp) -> None:
    if owner.n is not None:
        _check_whole(owner, "n", 1, "a whole number from 1 up, or None for no end")


def _check_seed(owner: object) -> None:
    _check_whole(owner, "seed", 0, "a whole number from 0 up")


def _check_bounds(owner: Uniform | LogNormal) -> None:
    _check_whole(owner, "low", 1, "a whole number from 1 up")
    _check_whole(owner, "high", owner.low, f"a whole number from low ({owner.low}) up")


def _check_data(owner: Empirical | Cycle) -> None:
    object.__setattr__(owner, "data", _lengths(owner.data, "data"))


def _lengths(values: Iterable[Any], name: str) -> tuple[int, ...]:
    items = _items(values, name)
    if not items:
        raise OptionError(f"{name} must have at least one length, got {values!r}")
    what = "is a whole number from 1 up"
    return tuple(_whole(item, 1, f"{name}[{i}] {what}") for i, item in enumerate(items))


def _number(value: Any, least: float, what: str, most: float = math.inf) -> float:
    number = _plain(value)
    if not least <= number <= min(most, sys.float_info.max):
        raise OptionError(f"{what}, not {value!r}")
    return number


def _plain(value: Any) -> float:
    """A number of Python's or of numpy's as one of Python's; NaN for what is none."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return math.nan
    return int(value) if isinstance(value, Integral) else float(value)


def _whole(value: Any, least: int, what: str) -> int:
    try:
        whole = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        whole = least - 1
    if whole < least:
        raise OptionError(f"{what}, not {value!r}")
    return whole


def _items(values: Iterable[Any], name: str) -> tuple[Any, ...]:
    try:
        return tuple(values)
    except TypeError as error:
        raise OptionError(f"{name} are a sequence of numbers, not {values!r}") from error
