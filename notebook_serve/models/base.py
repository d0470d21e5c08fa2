"""The `Model` protocol that the engine runs, and `ServedModel`, the description of one."""

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
    """One input, ready to run in a batch with others of its group."""

    #: the input as `Model.run` takes it
    inputs: Any
    #: its length: tokens for text
    length: int = 1
    #: only inputs of the same group may share a batch
    group: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    #: the input as the client sent it
    source: Any = None
    #: the parameters as JSON text, for models that cache by them
    key: str = ""

    def __reduce__(self) -> Any:
        # Batches are pickled for the worker process; by default pickle looks up each field by name.
        fields = (self.inputs, self.length, self.group, self.parameters, self.source, self.key)
        return Prepared, fields


@runtime_checkable
class Model(Protocol):
    """The interface between the engine and a model.

    `prepare` and `finish` run on the pre- and postprocessing thread, `run` on the worker thread.
    Objects that both use must be thread-safe; a tokenizer is not. `split` runs on any thread.
    """

    #: the name that cards and tables show
    name: str
    task: str
    #: True if `prepare` and `finish` need a thread of their own; otherwise the caller's thread
    #: prepares and the worker thread finishes
    prepares: bool
    #: kinds of request body that can hold an input: ``text``, ``json``, ``bytes``
    accepts: frozenset[str]

    def split(self, inputs: Any, parameters: Mapping[str, Any]) -> list[Any] | None:
        """Return the inputs in `inputs` if it is a list of them, or None if it is one input."""

    def prepare(self, inputs: Any, parameters: Mapping[str, Any]) -> Prepared:
        """Check and preprocess one input. Raises `InvalidInput` if the task rejects it."""

    def run(self, items: Sequence[Prepared]) -> list[Any]:
        """Return one raw output for each of `items`, which all belong to one group."""

    def finish(self, item: Prepared, output: Any) -> Any:
        """Return the answer to one input from its raw output."""


@dataclass(frozen=True)
class ServedModel:
    """Description of a served model: a table in a cell, a frozen object in code."""

    name: str
    task: str
    #: True if several requests may share a forward pass
    batched: bool
    #: the reason for `batched`
    why: str
    #: kinds of request body: ``bytes``, ``json``, ``text``
    accepts: tuple[str, ...]
    #: origin of a pipeline's weights: a folder, or a name and its revision
    source: str = ""

    @classmethod
    def of(cls, model: Model) -> ServedModel:
        """Describe `model`."""
        batched = bool(getattr(model, "batched", True))
        why = str(getattr(model, "why", "its class implements `Model`"))
        source = str(getattr(model, "source", ""))
        return cls(model.name, model.task, batched, why, tuple(sorted(model.accepts)), source)

    def table(self) -> Table:
        """Return a table with one row for each field."""
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
    """Return a group name that equal parameters share; the empty string for no parameters."""
    if not parameters:
        return ""
    with contextlib.suppress(TypeError, ValueError):
        name = json.dumps(parameters, sort_keys=True)
        if json.loads(name) == parameters:
            return name
    # These parameters are not plain JSON, so equality cannot be established.
    return unique_group_name()


def unique_group_name() -> str:
    """Return the name of a group with a single member."""
    return f"alone {next(_unique)}"


def check_one_input(inputs: Any) -> None:
    """Raise `InvalidInput` for a tuple, set, array or iterator of texts: their number is unclear.

    Only calls from Python can contain these; JSON has lists in their place.
    """
    once = isinstance(inputs, Iterator) and not hasattr(inputs, "read")
    if once or _holds_texts(inputs):
        raise InvalidInput(
            f"a {type(inputs).__name__} may be one input or several; write list(...) of it for "
            "its items, or [...] around it for one input"
        )


def _holds_texts(inputs: Any) -> bool:
    """Return True for a tuple, set, view, array or series with texts only."""
    if type(inputs) is not tuple and not isinstance(inputs, (Set, ValuesView)):
        kind = getattr(getattr(inputs, "dtype", None), "kind", "")  # of numpy and pandas
        if kind not in ("U", "O", "T") or getattr(inputs, "ndim", 0) != 1:
            return False
    return len(inputs) > 0 and all(isinstance(item, str) for item in inputs)
