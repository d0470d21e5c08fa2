"""What batches of a model cost, measured on purpose: every size at every length, in turn."""

from __future__ import annotations

import math
import random
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import cycle, islice
from typing import Any

from ..errors import InvalidInput, OptionError
from ..models.base import Model, Prepared
from ..models.factory import as_model
from ..models.functions.function_model import FunctionModel
from ..models.text import CHUNKED, TextPipeline
from ..queueing.cost_model import CostModel
from ..validation.tracebacks import entry_point

#: what texts are made of: words so common that most vocabularies have a token for each
WORDS = ("the", "people", "of", "this", "world", "have", "one", "more", "day", "and", "many", "do")
#: what a text may be called, for a zero-shot pipeline that was made without labels
LABELS = ("good", "bad")
#: the warning about inputs of which a server would run each by itself
ALONE = "such inputs never share a batch, so only batches of one were measured"

Make = Callable[[int], Any]
Prepare = Callable[[Any], Prepared]


@dataclass(frozen=True, slots=True)
class Timing:
    """How long one batch took."""

    lengths: tuple[int, ...]
    seconds: float


@entry_point
def calibrate(
    model: Any,
    lengths: Sequence[int] = (8, 16, 32, 64, 128),
    sizes: Sequence[int] = (1, 2, 4, 8, 16),
    *,
    make: Make | None = None,
    parameters: Mapping[str, Any] | None = None,
    repeats: int = 3,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> CostModel:
    """Measure what batches of a model cost, and fit a law to that.

    `model` is what `serve` takes: a pipeline, or a function from a list to a list. A batch of every
    size at every length runs once to warm up, and then `repeats` times, in an order shuffled by
    `seed`, so that a machine that slows down does not look like a term of the law. `clock` gives
    seconds; they include what turns a batch's output into answers, as a server's do.

    ``make(length)`` gives one input of about that length; what counts is the length that a server
    would see. Without it a text pipeline gets plain words, and a function with a ``length`` gets
    strings of so many characters. `parameters` are those that requests would send; a zero-shot
    pipeline without labels gets two, and its lengths are sums over them. A length that the model
    does not take is left out, and `CostModel.warnings` says so.

    All of it runs on the calling thread, with the caller's number of torch threads, and nothing
    else should run meanwhile: a server of the same pipeline must be paused or stopped. Raises
    `OptionError` for options that make no sense, `InvalidInput` if no length is taken, and
    whatever the model raises.
    """
    for name, values in [("lengths", lengths), ("sizes", sizes), ("repeats", [repeats])]:
        _check(name, values)
    served = as_model(model)
    prepare = partial(served.prepare, parameters=_with_labels(served, parameters or {}))
    make = _within(_most_tokens(served), make or _maker(served, prepare))
    batches, warnings = _batches(make, prepare, lengths, sizes)
    timings = _timings(served, batches, repeats, seed, clock)
    fitted = CostModel.fit(timings)
    return replace(fitted, warnings=(*fitted.warnings, *warnings))


def _check(name: str, values: Sequence[int]) -> None:
    whole = [isinstance(value, int) and value is not True and value > 0 for value in values]
    if not whole or not all(whole):
        raise OptionError(f"{name} must be whole numbers from 1 up, not {values!r}")


def _with_labels(served: Model, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """The parameters of a request, with the labels that a zero-shot pipeline cannot do without."""
    if isinstance(served, TextPipeline) and "candidate_labels" in served._parameters.required:
        return {"candidate_labels": list(LABELS), **parameters}
    return parameters


# -- inputs -------------------------------------------------------------------------------


def _most_tokens(served: Model) -> float:
    """The longest input that a pipeline says it takes; infinity where nothing says so."""
    # Inputs in chunks have the length of all of them, and are cut to size by their pipeline.
    if not isinstance(served, TextPipeline) or served.task in CHUNKED:
        return math.inf
    pipe = served._runner
    said = (
        getattr(pipe.tokenizer, "model_max_length", None),
        getattr(pipe.model.config, "max_position_embeddings", None),
    )
    return min((value for value in said if isinstance(value, int)), default=math.inf)


def _within(most: float, make: Make) -> Make:
    """Like `make`, but lengths above `most` are refused before anything is made of them."""

    def within(length: int) -> Any:
        if length > most:
            raise InvalidInput(f"the model takes {most} tokens at most")
        return make(length)

    return within


def _maker(served: Model, prepare: Prepare) -> Make:
    """Makes inputs of a given length for what is known well enough."""
    if isinstance(served, FunctionModel) and served.prepares:
        return lambda length: "x" * length
    if isinstance(served, TextPipeline):
        mask = served._reader.tokenizer.mask_token if served.task == "fill-mask" else ""
        return cache(partial(_text, prepare, mask))
    raise OptionError(
        f"nothing tells what inputs {served.name} takes; give make, a function from a length to "
        "an input of that length"
    )


def _text(prepare: Prepare, mask: str, length: int) -> str:
    """Words, and then the mask, that come nearest to `length` tokens."""

    def words(count: int) -> str:
        return " ".join([*islice(cycle(WORDS), count), mask]).strip()

    def tokens(count: int) -> int:
        try:
            return prepare(words(count)).length
        except InvalidInput:
            return sys.maxsize

    enough = 1 + bisect_left(range(1, length + 1), length, key=tokens)
    reached = prepare(words(enough)).length  # the model itself says what is too long
    if reached < length:
        raise InvalidInput(f"a text of {enough} words has only {reached} tokens; is it cut?")
    return words(min(max(1, enough - 1), enough, key=lambda count: abs(tokens(count) - length)))


def _batches(
    make: Make, prepare: Prepare, lengths: Sequence[int], sizes: Sequence[int]
) -> tuple[list[list[Prepared]], list[str]]:
    """A batch of every size at every length that the model takes, and warnings about the rest."""
    batches: list[list[Prepared]] = []
    warnings: list[str] = []
    refused: InvalidInput | None = None
    for length in lengths:
        try:
            items = [prepare(make(length)) for _ in range(max(sizes))]
        except InvalidInput as error:
            refused = refused or error
            warnings.append(f"length {length} is left out: {error}")
            continue
        together = len({item.group for item in items}) == 1
        batches += [items[:size] for size in (sizes if together else [1])]
        if not together and ALONE not in warnings:
            warnings.append(ALONE)
    if refused is not None and not batches:
        raise refused
    return batches, warnings


# -- runs ---------------------------------------------------------------------------------


def _timings(
    served: Model,
    batches: Sequence[list[Prepared]],
    repeats: int,
    seed: int,
    clock: Callable[[], float],
) -> list[Timing]:
    """Each batch once untimed, then all of them `repeats` times, each time in another order."""
    for batch in batches:
        _run(served, batch)
    shuffled = random.Random(seed)  # noqa: S311 - an order is no secret
    timings = []
    for _ in range(repeats):
        for batch in shuffled.sample(batches, len(batches)):
            begun = clock()
            _run(served, batch)
            seconds = clock() - begun
            timings.append(Timing(tuple(item.length for item in batch), seconds))
    return timings


def _run(served: Model, batch: list[Prepared]) -> None:
    """Compute a batch's answers, as a server's worker would."""
    for item, output in zip(batch, served.run(batch), strict=True):
        served.finish(item, output)
