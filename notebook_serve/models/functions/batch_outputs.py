"""Conversion of a batch function's return value to a list with one output per input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

from .ownership import IMMUTABLE, own

#: containers of parts that are not outputs, or have no order
NOT_OUTPUTS = (str, bytes, bytearray, memoryview, Mapping, Set, Iterator, type)


def to_output_list(outputs: Any, count: int, name: str) -> list[Any]:
    """Return the `count` outputs of the batch function `name`, in order.

    Each item of a list, tuple, array, tensor or series is an output. Each row of a table (of
    pandas, polars or pyarrow) is an output, as a dict. Raises `TypeError` for any other type, and
    `ValueError` for another number of outputs.
    """
    if type(outputs) is tuple and _is_columns(outputs, count):
        raise TypeError(
            f"{name} returned a tuple of {len(outputs)} columns, not one output per input; "
            "return list(zip(...)) of them, or a list if each is the output of one input"
        )
    rows = list(outputs) if type(outputs) is list else _rows(outputs, name)
    if len(rows) != count:
        raise ValueError(
            f"{name} returned {len(rows)} outputs for {count} inputs; "
            "it must return one per input, in order"
        )
    # No row may change with the function's next call, nor with another row.
    return rows if IMMUTABLE.issuperset(map(type, rows)) else [own(row) for row in rows]


def _rows(outputs: Any, name: str) -> list[Any]:
    kind = type(outputs).__name__
    if is_table(outputs):
        return table_rows(outputs, name)
    no_rows = _is_struct(outputs) or _is_groups(outputs) or not _is_sized(outputs)
    if isinstance(outputs, NOT_OUTPUTS) or no_rows:
        hint = _hint(outputs)
        raise TypeError(
            f"{name} returned a {kind}, not a list of one output per input"
            + (f"; {hint}" if hint else "")
        )
    if hasattr(outputs, "to_pylist"):  # an array of pyarrow
        return list(outputs.to_pylist())
    return list(outputs)


def _is_columns(outputs: tuple[Any, ...], count: int) -> bool:
    """Return True for a tuple of several columns, each with one item for each of `count` inputs.

    With as many columns as inputs, each column would pass for an output. A tuple of one item may
    hold the only output. A list is taken as outputs.
    """
    return len(outputs) > 1 and all(_length(column) == count for column in outputs)


def _length(column: Any) -> int:
    """Return the length of a list, tuple, array, tensor or series; -1 for any other type."""
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


def table_rows(table: Any, name: str = "the model") -> list[dict[Any, Any]]:
    """Return the rows of a table as dicts by column. Raises `TypeError` for unknown tables."""
    columns = list(getattr(table, "column_names", table.columns))
    if len(set(map(str, columns))) < len(columns):
        raise TypeError(f"{name} returned a table with two columns of the same name; rename one")
    for method in ("to_pylist", "to_dicts"):
        if hasattr(table, method):
            return list(getattr(table, method)())
    if hasattr(table, "to_dict"):
        return list(table.to_dict(orient="records"))
    raise TypeError(
        f"{name} returned a {type(table).__name__}, which is not a known kind of table; "
        "return a list of dicts, one per input"
    )


def _is_struct(value: Any) -> bool:
    """Return True for a tuple with named fields, which are not one per input."""
    return isinstance(value, tuple) and (hasattr(value, "_fields") or hasattr(value, "n_fields"))


def _is_groups(value: Any) -> bool:
    """Return True for groups of a pandas table; their number is that of the keys."""
    return any(base.__name__ == "BaseGroupBy" for base in type(value).__mro__)


def _is_sized(value: Any) -> bool:
    """Return True for a sequence, or an array of at least one dimension."""
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
    """Return a suggestion for the author of the function, or an empty string."""
    if outputs is None:
        return "is a `return` missing?"
    if isinstance(outputs, Iterator):
        return "return list(...) of it"
    if isinstance(outputs, Mapping):
        return "return [{...}, {...}], a dict for each input"
    if isinstance(outputs, Set):
        return "a set has no order"
    if _is_struct(outputs):
        return "return the field that holds an answer for each input"
    if _is_groups(outputs):
        return "groups are not one per input"
    if hasattr(outputs, "shape"):
        return "it must have a row for each input"
    return ""
