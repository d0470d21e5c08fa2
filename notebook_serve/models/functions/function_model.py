"""A plain batch function as a model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...errors import InvalidInput, OptionError
from ..base import Prepared, check_one_input, group_name
from ..parameters import Parameters
from .batch_functions import check_batch_function
from .batch_outputs import one_per_input
from .each import Each
from .signatures import signature_of


class FunctionModel:
    """A callable that takes a list of inputs and returns a list of as many outputs.

    Keyword parameters of the function may be given by requests. Where inputs differ in cost, give
    the function an attribute ``length``, itself a function from one input to a whole number: then
    policies can put inputs of like length together.
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
        self._function = function.outcomes if isinstance(function, Each) else function
        self._length: Callable[[Any], int] | None = getattr(function, "length", None)
        if self._length is not None and not callable(self._length):
            raise OptionError(f"{self.name}.length is a function from one input to a whole number")
        self._parameters = _parameters(function, self.name)
        self.prepares = self._length is not None

    def split(self, inputs: Any, parameters: Mapping[str, Any]) -> list[Any] | None:
        """A list is many inputs; anything else is one."""
        if isinstance(inputs, list):
            return inputs
        check_one_input(inputs)
        return None

    def prepare(self, inputs: Any, parameters: Mapping[str, Any]) -> Prepared:
        """Check the names of the parameters, and measure the input if the function can."""
        self._parameters.check(parameters)
        length = 1
        if self._length is not None:
            try:
                length = int(self._length(inputs))
            except Exception as error:
                raise InvalidInput(f"its length cannot be told: {error}") from error
            if length < 0:
                raise InvalidInput(f"its length cannot be {length}")
        return Prepared(inputs, length, group_name(parameters), parameters)

    def run(self, items: Sequence[Prepared]) -> list[Any]:
        """Call the function once; it must return as many outputs as it was given inputs."""
        outputs = self._function([item.inputs for item in items], **items[0].parameters)
        return one_per_input(outputs, len(items), self.name)

    def finish(self, item: Prepared, output: Any) -> Any:
        """The output as it is."""
        return output


def _anything(value: Any) -> str:
    return ""


def _is_the_input(value: Any) -> str:
    return "left out: the function has its inputs there"


def _parameters(function: Callable[..., Any], name: str) -> Parameters:
    """Return the parameters that a request may give by name to a function."""
    try:
        signature = signature_of(function.function if isinstance(function, Each) else function)
    except (TypeError, ValueError):
        return Parameters(name, {})
    parameters = list(signature.parameters.values())
    by_keyword = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    # The first positional parameter takes the inputs.
    first = next((item for item in parameters if item.kind is not by_keyword[1]), None)
    named = [item for item in parameters if item.kind in by_keyword and item is not first]
    allowed = dict.fromkeys((item.name for item in named), _anything)
    others = any(item.kind is item.VAR_KEYWORD for item in parameters)
    if others and first is not None and first.kind is first.POSITIONAL_OR_KEYWORD:
        allowed[first.name] = _is_the_input
    required = tuple(item.name for item in named if item.default is item.empty)
    return Parameters(name, allowed, required, others)
