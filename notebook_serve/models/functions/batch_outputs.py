"""What a batch function returns, as a list of one output for each input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

#: containers of which the parts are no answers, or have no order
WRONG = (str, bytes, bytearray, memoryview, Mapping, Set, Iterator, type)


def one_per_input(outputs: Any, count: int, name: str) -> list[Any]:
    """Return the `count` outputs of the batch function `name`, in order.

    Lists, tuples, arrays, tensors and series have one output for each place; tables (of pandas,
    polars or pyarrow) one for each row, which becomes a dict. Raises `TypeError` for anything else,
    and `ValueError` for another number of outputs.
    """
    if _is_columns(outputs, count):
        raise TypeError(
            f"{name} returned a tuple of {len(outputs)} columns, not one output per input; "
            "return list(zip(...)) of them, or a list if each is the output of one input"
        )
    rows = _rows(outputs, name)
    if len(rows) != count:
        raise ValueError(
            f"{name} returned {len(rows)} outputs for {count} inputs; "
            "it must return one per input, in order"
        )
    return rows


def _rows(outputs: Any, name: str) -> list[Any]:
    kind = type(outputs).__name__
    if is_table(outputs):
        return records(outputs, name)
    no_rows = _is_struct(outputs) or _is_groups(outputs) or not _is_sized(outputs)
    if isinstance(outputs, WRONG) or no_rows:
        hint = _hint(outputs)
        raise TypeError(
            f"{name} returned a {kind}, not a list of one output per input"
            + (f"; {hint}" if hint else "")
        )
    if hasattr(outputs, "to_pylist"):  # an array of pyarrow
        return list(outputs.to_pylist())
    return list(outputs)


def _is_columns(outputs: Any, count: int) -> bool:
    """Return True for a tuple of several results, each with an item for each of `count` inputs.

    Where there are as many of them as inputs, they would be taken for the outputs. A tuple of one
    may hold the only output; a list is what a function that means outputs returns.
    """
    if type(outputs) is not tuple or len(outputs) < 2:
        return False
    return all(_length(column) == count for column in outputs)


def _length(column: Any) -> int:
    """Return the items of a list, a tuple, an array, a tensor or a series; -1 for another thing."""
    if isinstance(column, (list, tuple)):
        return len(column)
    is_array = hasattr(type(column), "shape") and hasattr(type(column), "__len__")
    if not is_array or is_table(column) or getattr(column, "ndim", 0) < 1:
        return -1
    return len(column)


def is_table(value: Any) -> bool:
    """Return True for a data frame of pandas or polars, or a table of pyarrow."""
    names = {base.__name__ for base in type(value).__mro__}
    return bool(names & {"DataFrame", "Table", "RecordBatch"}) and hasattr(value, "columns")


def records(table: Any, name: str = "the model") -> list[dict[Any, Any]]:
    """Return the rows of a table, each as a dict by column; raise `TypeError` if that cannot be."""
    columns = list(getattr(table, "column_names", table.columns))
    if len(set(map(str, columns))) < len(columns):
        raise TypeError(f"{name} returned a table with two columns of one name; rename one")
    for method in ("to_pylist", "to_dicts"):
        if hasattr(table, method):
            return list(getattr(table, method)())
    if hasattr(table, "to_dict"):
        return list(table.to_dict(orient="records"))
    raise TypeError(
        f"{name} returned a {type(table).__name__}, whose rows are not known; "
        "return a list of dicts, one per input"
    )


def _is_struct(value: Any) -> bool:
    """Return True for a tuple with named fields: several results, and not one per input."""
    return isinstance(value, tuple) and (hasattr(value, "_fields") or hasattr(value, "n_fields"))


def _is_groups(value: Any) -> bool:
    """Return True for the groups of a table of pandas: there are as many as it has keys."""
    return any(base.__name__ == "BaseGroupBy" for base in type(value).__mro__)


def _is_sized(value: Any) -> bool:
    """Return True for a sequence or an array of at least one dimension."""
    if isinstance(value, Sequence):
        return True
    if getattr(value, "shape", None) == ():
        return False
    try:
        len(value)
    except TypeError:
        return False
    return hasattr(value, "__getitem__") or hasattr(value, "__iter__")


def _hint(outputs: Any) -> str:
    """Return what to write instead, or nothing."""
    if outputs is None:
        return "is there a `return` missing?"
    if isinstance(outputs, Iterator):
        return "return list(...) of it"
    if isinstance(outputs, Mapping):
        return "return [{...}, {...}], a dict for each input"
    if isinstance(outputs, Set):
        return "a set has no order"
    if _is_struct(outputs):
        return "return the part of it that has an answer for each input"
    if _is_groups(outputs):
        return "groups are not one per input"
    if hasattr(outputs, "shape"):
        return "it must have a row for each input"
    return ""
