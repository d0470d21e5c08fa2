"""A model as the engine knows it, and the simplest of them: a plain batch function."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence, Set, ValuesView
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from ..display import Table
from ..errors import InvalidInput


@dataclass(slots=True)
class Prepared:
    """One input, ready to be run with others of its group."""

    #: what `Model.run` needs of it
    inputs: Any
    #: how long it is: tokens for text
    length: int = 1
    #: only inputs of one group may share a batch
    group: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    #: the input as the client gave it
    source: Any = None
    #: the parameters as text, where the model keeps them so
    key: str = ""

    def __reduce__(self) -> Any:
        # A batch of them goes to another process: pickle itself would look the fields up each time.
        fields = (self.inputs, self.length, self.group, self.parameters, self.source, self.key)
        return Prepared, fields


@runtime_checkable
class Model(Protocol):
    """What the engine asks of a model.

    `prepare` and `finish` run on one thread (the desk), `run` on another (the worker), so what both
    use must be safe to share: a tokenizer is not. `split` runs on any thread.
    """

    #: what a card or a table calls it
    name: str
    task: str
    #: whether `prepare` and `finish` do work worth a thread of their own; else the caller's thread
    #: prepares, and the worker's finishes
    prepares: bool
    #: the kinds of body that an input may come in: ``text``, ``json``, ``bytes``
    accepts: frozenset[str]

    def split(self, inputs: Any, parameters: Mapping[str, Any]) -> list[Any] | None:
        """The single inputs that `inputs` stands for, or None if it is one itself."""

    def prepare(self, inputs: Any, parameters: Mapping[str, Any]) -> Prepared:
        """Check one input and make it ready. Raises `InvalidInput` where the task rejects it."""

    def run(self, items: Sequence[Prepared]) -> list[Any]:
        """One raw output for each of `items`, which are all of one group."""

    def finish(self, item: Prepared, output: Any) -> Any:
        """The answer to one input, from its raw output."""


@dataclass(frozen=True)
class ServedModel:
    """What a server serves: a table in a cell, a frozen object in code."""

    name: str
    task: str
    #: whether several requests may share a forward
    batched: bool
    #: why they may, or may not
    why: str
    #: the kinds of body that a request may have: ``bytes``, ``json``, ``text``
    accepts: tuple[str, ...]
    #: where a pipeline's weights come from: a folder, or a name and its revision
    source: str = ""

    @classmethod
    def of(cls, model: Model) -> ServedModel:
        """What there is to say about `model`."""
        batched = bool(getattr(model, "batched", True))
        why = str(getattr(model, "why", "its author says that it takes a list of inputs"))
        source = str(getattr(model, "source", ""))
        return cls(model.name, model.task, batched, why, tuple(sorted(model.accepts)), source)

    def table(self) -> Table:
        """A row for each of what there is to say."""
        return Table(
            "Model",
            ("", ""),
            [
                ("name", self.name),
                ("task", self.task),
                ("batched", "yes" if self.batched else "no, one at a time"),
                ("why", self.why),
                ("accepts", ", ".join(self.accepts)),
                *([("weights", self.source)] if self.source else []),
            ],
        )

    def __repr__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


_unique = itertools.count(1)


def group_name(parameters: Mapping[str, Any]) -> str:
    """A name that only equal parameters share; the empty string for none."""
    if not parameters:
        return ""
    with contextlib.suppress(TypeError, ValueError):
        name = json.dumps(parameters, sort_keys=True)
        if json.loads(name) == parameters:
            return name
    # Objects that only Python knows: nothing says that two of them are equal.
    return next_alone()


def next_alone() -> str:
    """The name of a group that nothing else is in."""
    return f"alone {next(_unique)}"


def check_one_input(inputs: Any) -> None:
    """Raise `InvalidInput` for texts that are in no list, which may be meant as several inputs.

    Only Python can ask for such; what JSON has in their place is a list.
    """
    once = isinstance(inputs, Iterator) and not hasattr(inputs, "read")
    if once or _holds_texts(inputs):
        raise InvalidInput(
            f"a {type(inputs).__name__} may be one input or several; write list(...) of it for "
            "its items, or [...] around it for one input"
        )


def _holds_texts(inputs: Any) -> bool:
    """Return True for a tuple, a set, an array or a series of texts only."""
    if type(inputs) is not tuple and not isinstance(inputs, (Set, ValuesView)):
        kind = getattr(getattr(inputs, "dtype", None), "kind", "")  # numpy's and pandas's
        if kind not in ("U", "O", "T") or getattr(inputs, "ndim", 0) != 1:
            return False
    return len(inputs) > 0 and all(isinstance(item, str) for item in inputs)
