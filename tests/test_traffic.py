from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notebook_serve import traffic
from notebook_serve.errors import OptionError
from notebook_serve.records import RequestRecord
from notebook_serve.traffic import (
    Bursty,
    Constant,
    Cycle,
    Empirical,
    Fixed,
    Lengths,
    LogNormal,
    Poisson,
    Ramp,
    Trace,
    Traffic,
    Uniform,
    as_lengths,
    as_traffic,
    texts,
)

rates = st.floats(0.1, 1000.0)
seeds = st.integers(0, 10**6)
limits = st.integers(1, 50)
wholes = st.integers(1, 600)

#: endless traffic
endless: st.SearchStrategy[Any] = st.one_of(
    st.builds(Constant, rates),
    st.builds(Poisson, rates, seeds),
    st.builds(
        lambda rate, times, period, seed: Bursty(rate, rate * times, period, seed),
        rates,
        st.floats(1.0, 20.0),
        st.floats(0.1, 10.0),
        seeds,
    ),
    st.builds(
        lambda low, more, period, seed: Ramp(low, low + more, period, seed),
        st.floats(0.0, 100.0),
        st.floats(0.5, 100.0),
        st.floats(0.1, 100.0),
        seeds,
    ),
)
traces = st.lists(st.floats(0.0, 1e6), max_size=20).map(lambda times: Trace(sorted(times)))
lengths: st.SearchStrategy[Any] = st.one_of(
    st.builds(Fixed, wholes),
    st.builds(lambda low, more, seed: Uniform(low, low + more, seed), wholes, wholes, seeds),
    st.builds(
        lambda median, sigma, seed: LogNormal(median, sigma, 1, 600, seed),
        st.floats(1.0, 600.0),
        st.floats(0.0, 3.0),
        seeds,
    ),
    st.builds(Empirical, st.lists(wholes, min_size=1, max_size=20), seeds),
    st.builds(Cycle, st.lists(wholes, min_size=1, max_size=20)),
)


def with_end(arrivals: Any, n: int) -> Any:
    """Return the same traffic, limited to `n` arrivals."""
    return type(arrivals)(**{**vars(arrivals), "n": n})


def first(values: Iterable[Any], n: int) -> list[Any]:
    return list(itertools.islice(values, n))


# -- arrivals -----------------------------------------------------------------------------


@given(endless)
def test_arrival_times_never_fall(arrivals: Traffic) -> None:
    """Arrivals are finite floats of at least 0, in order."""
    times = first(arrivals, 100)

    assert len(times) == 100
    assert all(type(at) is float and 0.0 <= at < math.inf for at in times)
    assert times == sorted(times)


@given(endless)
def test_each_iteration_starts_anew(arrivals: Traffic) -> None:
    """Iterators are independent: alternating between two does not change either."""
    alone = first(arrivals, 30)
    turns = first(zip(arrivals, arrivals, strict=False), 30)

    assert turns == [(at, at) for at in alone]


@given(endless, limits)
def test_n_ends_the_traffic(arrivals: Any, n: int) -> None:
    """With n, the arrivals are the first n of the same endless traffic."""
    ended = with_end(arrivals, n)

    assert list(ended) == ended.times() == first(arrivals, n)


@given(endless, limits, st.floats(0.0, 2.0))
def test_a_duration_ends_the_traffic(arrivals: Any, n: int, share: float) -> None:
    """All arrivals before the duration are returned, and none at it or after it."""
    times = first(arrivals, n + 1)
    duration = times[-1] * share
    before = [at for at in times if at < duration]

    assert with_end(arrivals, n + 1).times(duration) == before
    if share <= 1.0:
        assert arrivals.times(duration) == before


@given(endless)
def test_without_an_end_there_must_be_a_duration(arrivals: Traffic) -> None:
    """Endless traffic raises an error that says what to pass."""
    with pytest.raises(OptionError, match=r"is endless; set n=, or pass a duration"):
        arrivals.times()


@given(st.one_of(endless, endless.map(lambda arrivals: with_end(arrivals, 5)), traces, lengths))
def test_reprs_paste_back(value: Any) -> None:
    """The repr makes an equal value, with an equal hash."""
    again = eval(repr(value), vars(traffic))

    assert again == value
    assert hash(again) == hash(value)


@given(rates, seeds)
def test_another_seed_is_other_traffic(rate: float, seed: int) -> None:
    """Two seeds have no arrivals in common."""
    assert not set(first(Poisson(rate, seed), 20)) & set(first(Poisson(rate, seed + 1), 20))


def test_constant_does_not_drift() -> None:
    """The millionth arrival is exact, without an accumulated rounding error."""
    assert Constant(10.0, n=10**6 + 1).times()[-1] == 1e5


# The deviations: that of a Poisson count is the root of its mean; that of an interrupted one is
# larger by the root of its index of dispersion, 1 + 2 peak a / (a + b)^2 with a and b the rates
# of leaving a burst and a silence.
@pytest.mark.parametrize(
    ("arrivals", "dispersion"),
    [
        (Constant(50.0), 0.001),
        (Poisson(50.0, seed=1), 1.0),
        (Poisson(50.0, seed=2), 1.0),
        (Bursty(50.0, 50.0, seed=1), 1.0),
        (Bursty(50.0, 200.0, seed=1), 1 + 2 * 200 * 4 / (4 + 4 / 3) ** 2),
        (Bursty(50.0, 200.0, seed=2), 1 + 2 * 200 * 4 / (4 + 4 / 3) ** 2),
        (Bursty(50.0, 100.0, period=0.1, seed=3), 1 + 2 * 100 * 20 / (20 + 20) ** 2),
        (Ramp(10.0, 90.0, period=10.0, seed=1), 1.0),
        (Ramp(0.0, 100.0, period=10.0, seed=2), 1.0),
    ],
    ids=repr,
)
def test_the_mean_rate_is_the_rate(arrivals: Traffic, dispersion: float) -> None:
    """Over 2000 seconds, the count is within four standard deviations of the rate."""
    expected = arrivals.rate * 2000.0
    count = len(arrivals.times(2000.0))

    assert arrivals.rate == 50.0
    assert abs(count - expected) <= 4.0 * math.sqrt(dispersion * expected)


def test_poisson_gaps_are_exponential() -> None:
    """Gaps are within the Kolmogorov-Smirnov bound of the exponential (a chance of 1 in 1000)."""
    times = [0.0, *Poisson(50.0, seed=4, n=20_000)]
    gaps = sorted(b - a for a, b in itertools.pairwise(times))
    apart = max(
        max(abs(1 - math.exp(-50.0 * gap) - (k + side) / len(gaps)) for side in (0, 1))
        for k, gap in enumerate(gaps)
    )

    assert apart < 1.95 / math.sqrt(len(gaps))


def test_bursty_is_as_bursty_as_it_says() -> None:
    """Counts per second vary like those of an interrupted Poisson process."""
    a, b, seconds = 4.0, 4.0 / 3.0, 5000
    counts = np.bincount(np.array(Bursty(50.0, 200.0, seed=5).times(seconds), int))
    lasting = 1.0 - (1.0 - math.exp(-(a + b))) / (a + b)
    expected = 1.0 + 2.0 * 200.0 * a / (a + b) ** 2 * lasting
    dispersion = counts.var() / counts.mean()

    assert dispersion == pytest.approx(expected, rel=0.1)
    assert max(counts) <= 200 + 5 * math.sqrt(200)


def test_bursty_begins_as_it_goes_on() -> None:
    """Over many seeds, the first tenth of a second has its share of arrivals."""
    counts = [len(Bursty(50.0, 200.0, seed=seed).times(0.1)) for seed in range(4000)]
    error = np.std(counts) / math.sqrt(len(counts))

    assert abs(np.mean(counts) - 5.0) < 4.0 * error


def test_bursty_without_silence_is_poisson() -> None:
    """If the peak is the rate, no gap is longer than chance allows."""
    times = Bursty(50.0, 50.0, seed=1).times(1000.0)
    gaps = [b - a for a, b in itertools.pairwise(times)]

    assert np.std(gaps) / np.mean(gaps) == pytest.approx(1.0, abs=0.03)


def test_a_ramp_swings_from_low_to_high() -> None:
    """Each tenth of the period has the arrivals of its rate."""
    ramp = Ramp(10.0, 90.0, period=20.0, seed=6)
    counts, _ = np.histogram(np.array(ramp.times(4000.0)) % 20.0, bins=10, range=(0.0, 20.0))
    middles = [ramp.rate_at(2.0 * k + 1.0) for k in range(10)]
    # The mean of a cosine over a bin is that of its middle, flattened by sin(x)/x.
    flat = math.sin(math.pi / 10) / (math.pi / 10)
    expected = np.array([(50.0 + (rate - 50.0) * flat) * 400.0 for rate in middles])

    assert (np.abs(counts - expected) < 4.0 * np.sqrt(expected)).all()
    assert [ramp.rate_at(at) for at in (0.0, 10.0, 20.0)] == pytest.approx([10.0, 90.0, 10.0])


def test_the_same_seed_gives_the_same_traffic_everywhere() -> None:
    """Golden numbers; no version of Python may give others."""
    assert Poisson(50.0, 3, 3).times() == pytest.approx(
        [0.01191942560804114, 0.04041187678019453, 0.08873089392128841], rel=1e-12
    )
    assert Bursty(2.0, 10.0, 1.0, 3, 3).times() == pytest.approx(
        [1.1771647822190443, 1.183689860973905, 1.5556833238378132], rel=1e-12
    )
    assert Ramp(1.0, 9.0, 60.0, 3, 3).times() == pytest.approx(
        [2.2898760976186523, 2.769208913195847, 2.8298187933089247], rel=1e-12
    )
    assert Uniform(1, 1000, 3).sample(6) == [260, 345, 228, 466, 153, 236]
    assert LogNormal(100, 1.0, seed=3).sample(6) == [65, 50, 106, 27, 83, 27]
    assert Empirical(range(1, 1000), 3).sample(6) == [260, 345, 228, 466, 153, 235]


# -- recorded arrivals --------------------------------------------------------------------


@given(traces)
def test_a_trace_gives_its_times(trace: Trace) -> None:
    """A trace can be iterated or listed, in full or up to a duration."""
    assert list(trace) == trace.times() == list(trace.arrivals)
    assert trace.times(1000.0) == [at for at in trace.arrivals if at < 1000.0]


@pytest.mark.parametrize(
    ("times", "rate"),
    [([0, 1, 2, 3], 1.0), ([5.0, 5.5], 2.0), ([0.0, 0.0, 0.0, 1.5], 2.0)],
)
def test_the_rate_of_a_trace(times: list[float], rate: float) -> None:
    """The rate is arrivals per second from the first to the last."""
    assert Trace(times).rate == rate


@pytest.mark.parametrize("times", [[], [3.0], [3.0, 3.0]])
def test_a_trace_without_a_span_has_no_rate(times: list[float]) -> None:
    """The rate is NaN, not an error, so that a report can be made."""
    assert math.isnan(Trace(times).rate)


@pytest.mark.parametrize(
    "times", [(0, 1, 2), np.array([0, 1, 2]), np.array([0, 1, 2], np.float32), range(3)], ids=repr
)
def test_a_trace_of_any_sequence(times: Any) -> None:
    """The times become plain floats, of any type of number."""
    trace = Trace(times)

    assert trace == Trace([0.0, 1.0, 2.0])
    assert [type(at) for at in trace] == [float] * 3


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([0.0, 2.0, 1.0], r"times\[2\] is 1.0 after 2.0"),
        ([-1.0], r"times\[0\] is -1.0$"),
        ([0.0, math.nan], r"times\[1\] is nan"),
        ([math.inf], r"times\[0\] is inf"),
        ([0.0, "1"], r"times\[1\] is '1'"),
        ([0.0, True], r"times\[1\] is True"),
        ([0.0, None], r"times\[1\] is None"),
        (5, r"times must be a sequence of numbers, got 5"),
        ("12", r"times\[0\] is '1'"),
    ],
)
def test_times_that_are_none(times: Any, message: str) -> None:
    """The error has the index and the value."""
    with pytest.raises(OptionError, match=message):
        Trace(times)


@given(traces, st.floats(0.1, 10.0))
def test_a_scaled_trace_has_the_same_pattern(trace: Trace, factor: float) -> None:
    """Every time is divided by the factor, so the rate is multiplied by it."""
    scaled = trace.scaled(factor)

    assert list(scaled) == [at / factor for at in trace]
    assert scaled.scaled(1 / factor).times() == pytest.approx(trace.times())


@given(traces)
@settings(max_examples=20)
def test_a_trace_is_saved_exactly(tmp_path_factory: pytest.TempPathFactory, trace: Trace) -> None:
    """A loaded trace equals the saved one, and the file is a plain list."""
    path = tmp_path_factory.mktemp("trace") / "trace.json"
    trace.save(path)

    assert Trace.load(str(path)) == trace
    assert json.loads(path.read_text("utf-8")) == list(trace)


@pytest.mark.parametrize("text", ["5", "[1, 0]", '{"times": [1]}', "[NaN]", "{"])
def test_a_file_that_holds_no_trace(tmp_path: Path, text: str) -> None:
    """The content of another file is rejected as a value."""
    path = tmp_path / "trace.json"
    path.write_text(text, "utf-8")

    with pytest.raises(ValueError, match=r"times|Expecting"):
        Trace.load(path)


def record(arrived: float) -> RequestRecord:
    return RequestRecord(1, arrived, None, arrived + 1.0, "rejected")


def test_a_trace_from_records() -> None:
    """The first arrival is at 0, although records are in the order of their end."""
    assert Trace.from_records(map(record, [12.5, 10.0, 11.0])) == Trace([0.0, 1.0, 2.5])
    assert Trace.from_records([]) == Trace([])


# -- lengths ------------------------------------------------------------------------------


@given(lengths, limits)
def test_lengths_are_whole_numbers_from_1_up(drawn: Lengths, n: int) -> None:
    """The sample has the given size, is the same each time, and iterators are independent."""
    sample = drawn.sample(n)

    assert len(sample) == n
    assert all(type(length) is int and length >= 1 for length in sample)
    assert drawn.sample(n) == sample
    assert first(zip(drawn, drawn, strict=False), n) == [(length, length) for length in sample]


def test_uniform_has_every_length() -> None:
    """Both bounds are included, with equal frequencies."""
    counts = np.bincount(Uniform(3, 7, seed=1).sample(50_000))

    assert len(counts) == 8
    assert list(counts[:3]) == [0, 0, 0]
    assert (np.abs(counts[3:] - 10_000) < 4 * math.sqrt(50_000 * 0.2 * 0.8)).all()


def test_log_normal_has_its_median_and_its_spread() -> None:
    """Half are below the median, and a sixth above it times the exponential of sigma."""
    sample = np.array(LogNormal(200.5, 0.5, high=10**6, seed=1).sample(40_000))

    assert abs(np.mean(sample > 200.5) - 0.5) < 4 * math.sqrt(0.25 / 40_000)
    above = (1 - math.erf(1 / math.sqrt(2))) / 2
    assert abs(np.mean(sample > 200.5 * math.exp(0.5)) - above) < 4 * math.sqrt(above / 40_000)


def test_log_normal_is_clipped() -> None:
    """Lengths beyond a bound are clipped to it."""
    sample = LogNormal(20, 500.0, low=4, high=64, seed=1).sample(1000)

    assert min(sample) == 4
    assert max(sample) == 64
    assert sample.count(64) > 400


def test_log_normal_without_spread_is_its_median() -> None:
    """Lengths are rounded to whole numbers."""
    assert LogNormal(19.6, 0.0).sample(3) == [20, 20, 20]


def test_empirical_draws_what_was_seen() -> None:
    """Each length is as frequent as in the data."""
    sample = Empirical([5, 5, 5, 9], seed=1).sample(10_000)

    assert set(sample) == {5, 9}
    assert abs(sample.count(5) - 7500) < 4 * math.sqrt(10_000 * 0.75 * 0.25)


def test_lengths_do_not_follow_the_arrivals_of_the_same_seed() -> None:
    """Long inputs follow long gaps no more often than by chance."""
    times = [0.0, *Poisson(50.0, seed=0, n=10_000)]
    gaps = np.diff(times)
    correlation = np.corrcoef(gaps, Uniform(1, 1000, seed=0).sample(10_000))[0, 1]

    assert abs(correlation) < 4 / math.sqrt(10_000)


# -- options ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("Constant(0)", "rate must be a positive number of arrivals per second, got 0"),
        ("Constant(-1.5)", "rate must be .* got -1.5"),
        ("Poisson(math.nan)", "rate must be .* got nan"),
        ("Poisson(math.inf)", "rate must be .* got inf"),
        ("Poisson(10**400)", "rate must be a positive number"),
        ("Poisson('5')", "rate must be .* got '5'"),
        ("Poisson(True)", "rate must be .* got True"),
        ("Poisson(5, seed=1.5)", "seed must be a whole number >= 0, got 1.5"),
        ("Poisson(5, seed=-1)", "seed must be .* got -1"),
        ("Poisson(5, seed=None)", "seed must be .* got None"),
        ("Poisson(5, n=0)", "n must be a whole number >= 1, or None for endless traffic, got 0"),
        ("Constant(5, n=2.5)", "n must be .* got 2.5"),
        ("Bursty(5, 4)", r"peak must be a number >= rate \(5\), got 4"),
        ("Bursty(5, math.inf)", "peak must be .* got inf"),
        ("Bursty(5, 9, period=0)", "period must be a number of seconds >= 1e-06, got 0"),
        ("Ramp(-1, 5)", "low must be a number of arrivals per second >= 0, got -1"),
        ("Ramp(0, 0)", "high must be a positive number of arrivals per second, got 0"),
        ("Ramp(5, 4)", r"high must be a number >= low \(5\), got 4"),
        ("Ramp(4, 5, period=-1)", "period must be .* got -1"),
        ("Trace([0, 1]).scaled(0)", "factor must be a positive number, got 0"),
        ("Constant(5).times(-1)", "duration must be a number of seconds >= 0, got -1"),
        ("Constant(5).times(math.inf)", "duration must be .* got inf"),
        ("Fixed(0)", "length must be a whole number >= 1, got 0"),
        ("Fixed(1.5)", "length must be .* got 1.5"),
        ("Fixed(3).sample(-1)", "n must be a whole number >= 0, got -1"),
        ("Uniform(0, 5)", "low must be a whole number >= 1, got 0"),
        ("Uniform(5, 4)", r"high must be a whole number >= low \(5\), got 4"),
        ("LogNormal(0, 1)", r"median must be a number from low \(1\) to high \(512\), got 0"),
        ("LogNormal(1000, 1)", r"median must be .* to high \(512\), got 1000"),
        ("LogNormal(20, -1)", "sigma must be a number >= 0, got -1"),
        ("LogNormal(20, 1, seed=-1)", "seed must be .* got -1"),
        ("Empirical([])", "data must have at least one length"),
        ("Empirical([4, 0])", r"data\[1\] must be a whole number >= 1, got 0"),
        ("Cycle([1.5])", r"data\[0\] must be .* got 1.5"),
        ("Cycle('12')", r"data\[0\] must be .* got '1'"),
        ("Cycle(5)", "data must be a sequence of numbers, got 5"),
        ("texts(4, -1)", "n must be .* got -1"),
        ("texts(4, 1, seed=-1)", "seed must be .* got -1"),
    ],
)
def test_options_that_make_no_sense(code: str, message: str) -> None:
    """Wrong options raise at once, with the field, its bounds and the value."""
    with pytest.raises(OptionError, match=message):
        eval(code, vars(traffic))


def test_options_of_numpy_become_plain() -> None:
    """Numbers of numpy become plain ones, so that the repr pastes back without numpy."""
    made: list[Any] = [
        Poisson(np.float64(5.0), np.int64(3), np.int32(7)),
        Constant(np.float32(0.5)),
        Constant(Fraction(1, 2)),  # type: ignore[arg-type]
        Empirical(np.array([3, 4])),  # type: ignore[arg-type]
        Fixed(np.int64(3)),
    ]

    assert [repr(value) for value in made] == [
        "Poisson(rate=5.0, seed=3, n=7)",
        "Constant(rate=0.5, n=None)",
        "Constant(rate=0.5, n=None)",
        "Empirical(data=(3, 4), seed=0)",
        "Fixed(length=3)",
    ]


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        (Poisson(5.0), Poisson(5.0)),
        (Trace([1.0]), Trace([1.0])),
        ([0, 1], Trace([0.0, 1.0])),
        ((), Trace([])),
        (np.array([0.5]), Trace([0.5])),
    ],
)
def test_as_traffic(value: object, meant: Traffic) -> None:
    """Traffic is unchanged, and times become a trace."""
    assert as_traffic(value) == meant


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (50, r"write Poisson\(50\) for random or Constant\(50\)"),
        (2.5, r"write Poisson\(2.5\) for random or Constant\(2.5\)"),
        (None, "traffic must be a Traffic .* got None"),
        (Poisson, "traffic must be a Traffic .* got <class"),
        (Ramp, "traffic must be a Traffic .* got <class"),
        (iter([1.0]), "traffic must be a Traffic .* got <list_iterator"),
        ("50", r"times\[0\] is '5'"),
        (LogNormal(20, 1.0), "traffic must be a Traffic"),
    ],
)
def test_other_values_are_not_traffic(value: object, message: str) -> None:
    """A number is rejected: it does not say whether arrivals are even or random."""
    with pytest.raises(OptionError, match=message):
        as_traffic(value)


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        (16, Fixed(16)),
        (np.int64(16), Fixed(16)),
        ([3, 5], Cycle((3, 5))),
        (np.array([3, 5]), Cycle((3, 5))),
        (Uniform(1, 2), Uniform(1, 2)),
    ],
)
def test_as_lengths(value: object, meant: Lengths) -> None:
    """A distribution is unchanged, a number is for all, and a sequence repeats."""
    assert as_lengths(value) == meant


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1.5, "lengths must be whole numbers >= 1, got 1.5"),
        (True, "lengths must be .* got True"),
        ([], "at least one"),
        (None, "lengths must be such as .* got None"),
        (LogNormal, "lengths must be such as .* got <class"),
        (Poisson(5.0), "lengths must be such as"),
    ],
)
def test_other_values_are_not_lengths(value: object, message: str) -> None:
    """Wrong lengths raise at once."""
    with pytest.raises(OptionError, match=message):
        as_lengths(value)


def test_own_traffic_and_lengths_are_taken() -> None:
    """Any object with the methods is accepted, without inheritance."""

    class Own:
        rate = 1.0

        def __iter__(self) -> Any:
            return itertools.count(1)

        def times(self, duration: float | None = None) -> list[float]:
            return [1.0]

        def sample(self, n: int) -> list[int]:
            return [1] * n

    own = Own()

    assert as_traffic(own) is own
    assert as_lengths(own) is own


# -- texts --------------------------------------------------------------------------------


@given(lengths, st.integers(0, 10), seeds)
def test_texts_have_as_many_words_as_the_lengths_say(drawn: Lengths, n: int, seed: int) -> None:
    """All words are built in, and the same for the same seed."""
    made = texts(drawn, n, seed)

    assert [len(text.split()) for text in made] == drawn.sample(n)
    assert set(" ".join(made).split()) <= set(traffic.WORDS)
    assert made == texts(drawn, n, seed)


@given(lengths, st.integers(1, 10), seeds)
def test_one_word_of_each_text_is_the_one_held(drawn: Lengths, n: int, seed: int) -> None:
    """Exactly one word is replaced, so the text has the same length."""
    made = [text.split() for text in texts(drawn, n, seed, holding="[MASK]")]

    assert [words.count("[MASK]") for words in made] == [1] * n
    assert [len(words) for words in made] == drawn.sample(n)


def test_the_held_word_is_anywhere() -> None:
    """The place is first, last and between, each in its share of the texts."""
    made = texts(4, 4000, seed=1, holding="[MASK]")
    places = np.bincount([text.split().index("[MASK]") for text in made])

    assert len(places) == 4
    assert (np.abs(places - 1000) < 4 * math.sqrt(4000 * 0.25 * 0.75)).all()


def test_texts_take_a_number_or_a_sequence() -> None:
    """Lengths are converted by `as_lengths`."""
    assert [len(text.split()) for text in texts([1, 3], 4)] == [1, 3, 1, 3]
    assert [len(text.split()) for text in texts(2, 2)] == [2, 2]
