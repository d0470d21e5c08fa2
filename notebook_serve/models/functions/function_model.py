"""The model of a plain batch function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...errors import InvalidInput, OptionError
from ..base import Prepared, check_one_input, group_name
from ..parameters import Parameters
from .batch_functions import check_batch_function
from .batch_outputs import to_output_list
from .each import Each
from .signatures import signature_of


class FunctionModel:
    """A callable that takes a list of inputs and returns a list of as many outputs.

    Requests may set keyword parameters of the function. If inputs differ in cost, give the function
    an attribute ``length``, a function from one input to a whole number. Policies can then group
    inputs of similar length.
    """

    accepts = frozenset({"text", "json", "bytes"})
    task = "function"
    batched = True
    why = "the function takes a list of inputs"

    def __init__(self, function: Callable[..., Any]) -> None:
        self.name = str(getattr(function, "__name__", type(function).__name__))
        if isinstance(function, Each):
            self.why = "each: the items of a batch run one after another"
        else:
            check_batch_function(function, self.name)
        self._is_each = isinstance(function, Each)
        self._function = function.outcomes if isinstance(function, Each) else function
        self._length: Callable[[Any], int] | None = getattr(function, "length", None)
        if self._length is not None and not callable(self._length):
            raise OptionError(
                f"{self.name}.length must be a function from one input to a whole number"
            )
        self._parameters = _parameters(function, self.name)
        self.prepares = self._length is not None

    def split(self, inputs: Any, parameters: Mapping[str, Any]) -> list[Any] | None:
        """Return the items of a list; any other value is one input."""
        if isinstance(inputs, list):
            return inputs
        if not isinstance(inputs, str):
            check_one_input(inputs)
        return None

    def prepare(self, inputs: Any, parameters: Mapping[str, Any]) -> Prepared:
        """Check the parameter names; compute the length if the function has ``length``."""
        if parameters or self._parameters.required:
            self._parameters.check(parameters)
        length = 1
        if self._length is not None:
            try:
                length = int(self._length(inputs))
            except Exception as error:
                raise InvalidInput(f"{self.name}.length failed for this input: {error}") from error
            if length < 0:
                raise InvalidInput(f"{self.name}.length must return 0 or more, got {length}")
        return Prepared(inputs, length, group_name(parameters), parameters)

    def run(self, items: Sequence[Prepared]) -> list[Any]:
        """Call the function once. Raises `ValueError` unless it returns one output per input."""
        outputs = self._function([item.inputs for item in items], **items[0].parameters)
        if self._is_each:
            return list(outputs)  # one for each input, and owned
        return to_output_list(outputs, len(items), self.name)

    def finish(self, item: Prepared, output: Any) -> Any:
        """Return the output unchanged."""
        return output


def _accept_anything(value: Any) -> str:
    return ""


def _reject_inputs_name(value: Any) -> str:
    return "left out: the function receives its inputs under this name"


def _parameters(function: Callable[..., Any], name: str) -> Parameters:
    """Return the parameters of a function that a request may set by name."""
    try:
        signature = signature_of(function.function if isinstance(function, Each) else function)
    except (TypeError, ValueError):
        return Parameters(name, {})
    parameters = list(signature.parameters.values())
    by_keyword = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    # The first positional parameter takes the inputs.
    first = next((item for item in parameters if item.kind is not by_keyword[1]), None)
    named = [item for item in parameters if item.kind in by_keyword and item is not first]
    allowed = dict.fromkeys((item.name for item in named), _accept_anything)
    others = any(item.kind is item.VAR_KEYWORD for item in parameters)
    if others and first is not None and first.kind is first.POSITIONAL_OR_KEYWORD:
        allowed[first.name] = _reject_inputs_name
    required = tuple(item.name for item in named if item.default is item.empty)
    return Parameters(name, allowed, required, others)
