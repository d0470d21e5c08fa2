"""Calibration: time batches of every size at every length, and fit a cost model."""

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

#: words of the generated texts, so common that most vocabularies have a token for each
WORDS = ("the", "people", "of", "this", "world", "have", "one", "more", "day", "and", "many", "do")
#: labels for a zero-shot pipeline without labels of its own
LABELS = ("good", "bad")
#: warning about inputs that a server would run one at a time
UNBATCHED = "such inputs never share a batch, so only batches of one were measured"

Make = Callable[[int], Any]
Prepare = Callable[[Any], Prepared]


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one batch, and the lengths of its inputs."""

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
    """Measure the seconds of a model's batches and fit a cost model to them.

    `model` is a pipeline or a function from a list to a list, as for `serve`. A batch of every size
    at every length runs once to warm up and then `repeats` times. The order is shuffled by `seed`:
    a machine that slows down must not look like a term of the cost model. `clock` returns seconds.
    A timing includes postprocessing, as in a server.

    ``make(length)`` returns one input of about that length; the fit uses the length that a server
    would see. Without `make`, a text pipeline gets common words, and a function with a ``length``
    gets strings of that many characters. `parameters` are those of a request. A zero-shot pipeline
    without labels gets two, and its lengths are sums over the labels. If the model rejects a
    length, the length is left out and named in `CostModel.warnings`.

    Everything runs on the calling thread with the caller's number of torch threads. Run nothing
    else at the same time: pause or stop a server of the same pipeline. Raises `OptionError` for an
    invalid option, `InvalidInput` if the model rejects every length, and any error of the model.
    """
    for name, values in [("lengths", lengths), ("sizes", sizes), ("repeats", [repeats])]:
        _check(name, values)
    served = as_model(model)
    prepare = partial(served.prepare, parameters=_add_labels(served, parameters or {}))
    make = _limit(_find_most_tokens(served), make or _choose_maker(served, prepare))
    batches, warnings = _make_batches(make, prepare, lengths, sizes)
    timings = _time_batches(served, batches, repeats, seed, clock)
    fitted = CostModel.fit(timings)
    return replace(fitted, warnings=(*fitted.warnings, *warnings))


def _check(name: str, values: Sequence[int]) -> None:
    whole = [isinstance(value, int) and value is not True and value > 0 for value in values]
    if not whole or not all(whole):
        raise OptionError(f"{name} must be whole numbers >= 1, got {values!r}")


def _add_labels(served: Model, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the parameters of a request, with the labels that a zero-shot pipeline requires."""
    if isinstance(served, TextPipeline) and "candidate_labels" in served._parameters.required:
        return {"candidate_labels": list(LABELS), **parameters}
    return parameters


# -- inputs -------------------------------------------------------------------------------


def _find_most_tokens(served: Model) -> float:
    """Return a pipeline's maximum input length in tokens; infinity if it has none."""
    # A chunked pipeline splits long inputs itself.
    if not isinstance(served, TextPipeline) or served.task in CHUNKED:
        return math.inf
    pipe = served._runner
    limits = (
        getattr(pipe.tokenizer, "model_max_length", None),
        getattr(pipe.model.config, "max_position_embeddings", None),
    )
    return min((value for value in limits if isinstance(value, int)), default=math.inf)


def _limit(most: float, make: Make) -> Make:
    """Return `make` with a check that rejects lengths above `most`."""

    def limited(length: int) -> Any:
        if length > most:
            raise InvalidInput(f"the model accepts at most {most} tokens, got {length}")
        return make(length)

    return limited


def _choose_maker(served: Model, prepare: Prepare) -> Make:
    """Return a function that makes inputs of a given length. Raises `OptionError` if unknown."""
    if isinstance(served, FunctionModel) and served.prepares:
        return lambda length: "x" * length
    if isinstance(served, TextPipeline):
        mask = served._reader.tokenizer.mask_token if served.task == "fill-mask" else ""
        return cache(partial(_make_text, prepare, mask))
    raise OptionError(
        f"the inputs of {served.name} are unknown; pass make=..., a function from a length to an "
        "input of that length"
    )


def _make_text(prepare: Prepare, mask: str, length: int) -> str:
    """Return words, followed by the mask, with a number of tokens closest to `length`."""

    def words(count: int) -> str:
        return " ".join([*islice(cycle(WORDS), count), mask]).strip()

    def tokens(count: int) -> int:
        try:
            return prepare(words(count)).length
        except InvalidInput:
            return sys.maxsize

    enough = 1 + bisect_left(range(1, length + 1), length, key=tokens)
    reached = prepare(words(enough)).length  # raises if the text is too long
    if reached < length:
        raise InvalidInput(
            f"a text of {enough} words has only {reached} tokens; the pipeline seems to truncate it"
        )
    return words(min(max(1, enough - 1), enough, key=lambda count: abs(tokens(count) - length)))


def _make_batches(
    make: Make, prepare: Prepare, lengths: Sequence[int], sizes: Sequence[int]
) -> tuple[list[list[Prepared]], list[str]]:
    """Return a batch of every size at every length, and warnings about rejected lengths."""
    batches: list[list[Prepared]] = []
    warnings: list[str] = []
    rejected: InvalidInput | None = None
    for length in lengths:
        try:
            items = [prepare(make(length)) for _ in range(max(sizes))]
        except InvalidInput as error:
            rejected = rejected or error
            warnings.append(f"length {length} is left out: {error}")
            continue
        batchable = len({item.group for item in items}) == 1
        batches += [items[:size] for size in (sizes if batchable else [1])]
        if not batchable and UNBATCHED not in warnings:
            warnings.append(UNBATCHED)
    if rejected is not None and not batches:
        raise rejected
    return batches, warnings


# -- runs ---------------------------------------------------------------------------------


def _time_batches(
    served: Model,
    batches: Sequence[list[Prepared]],
    repeats: int,
    seed: int,
    clock: Callable[[], float],
) -> list[Timing]:
    """Run each batch once untimed, then time all of them `repeats` times, each time reordered."""
    for batch in batches:
        _run(served, batch)
    shuffled = random.Random(seed)  # noqa: S311 - not for cryptography
    timings = []
    for _ in range(repeats):
        for batch in shuffled.sample(batches, len(batches)):
            begun = clock()
            _run(served, batch)
            seconds = clock() - begun
            timings.append(Timing(tuple(item.length for item in batch), seconds))
    return timings


def _run(served: Model, batch: list[Prepared]) -> None:
    """Run a batch and its postprocessing, as a server's worker does."""
    for item, output in zip(batch, served.run(batch), strict=True):
        served.finish(item, output)
