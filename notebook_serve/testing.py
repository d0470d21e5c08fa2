"""A model with faults on demand, to test how a server handles them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from .models.base import Prepared, ServedModel
from .models.factory import as_model


class Faulty:
    """A wrapper of a pipeline or a batch function that fails if an input contains a marker.

    Serve it like any model. A marker is a substring of the input's text::

        server = serve(Faulty(pipe, fail_on="poison", out_of_memory_over=2000))

    Args:
        model: A model as `serve` takes it.
        fail_on: Raise for the whole batch if an input contains this text.
        out_of_memory_over: Raise `MemoryError` for a batch of more padded tokens.
        slow_on: Take `seconds` longer if an input contains this text.
        seconds: Extra seconds of a slow batch.
        die_on: Kill the worker if an input contains this text.
        miscount_on: Return one output too few if an input contains this text.
    """

    def __init__(
        self,
        model: Any,
        *,
        fail_on: str | None = None,
        out_of_memory_over: int | None = None,
        slow_on: str | None = None,
        seconds: float = 1.0,
        die_on: str | None = None,
        miscount_on: str | None = None,
    ) -> None:
        self._model = as_model(model)
        self.task, self.name = self._model.task, f"{self._model.name} (faulty)"
        self.prepares, self.accepts = self._model.prepares, self._model.accepts
        about = ServedModel.of(self._model)
        self.batched, self.why = about.batched, about.why
        self.writes = bool(getattr(self._model, "writes", False))
        self.fail_on = fail_on
        self.out_of_memory_over = out_of_memory_over
        self.slow_on = slow_on
        self.seconds = seconds
        self.die_on = die_on
        self.miscount_on = miscount_on

    def __repr__(self) -> str:
        names = ("fail_on", "out_of_memory_over", "slow_on", "die_on", "miscount_on")
        given = {name: getattr(self, name) for name in names}
        faults = [f", {name}={value!r}" for name, value in given.items() if value is not None]
        return f"<Faulty: {self._model.name}{''.join(faults)}>"

    def split(self, inputs: Any, parameters: Mapping[str, Any]) -> list[Any] | None:
        """Split as the model does."""
        return self._model.split(inputs, parameters)

    def prepare(self, inputs: Any, parameters: Mapping[str, Any]) -> Prepared:
        """Prepare as the model does; keep the text of the input to search it for markers."""
        prepared = self._model.prepare(inputs, parameters)
        return Prepared((str(inputs), prepared), prepared.length, prepared.group, parameters)

    def run(self, items: Sequence[Prepared]) -> list[Any]:
        """Fail if an input contains a marker, else run."""
        texts = [item.inputs[0] for item in items]

        def marked(marker: str | None) -> bool:
            return marker is not None and any(marker in text for text in texts)

        if marked(self.die_on):
            raise SystemExit("Faulty: the worker dies")
        if marked(self.slow_on):
            time.sleep(self.seconds)
        padded = len(items) * max(item.length for item in items)
        if self.out_of_memory_over is not None and padded > self.out_of_memory_over:
            raise MemoryError(f"Faulty: {padded} padded tokens exceed {self.out_of_memory_over}")
        if marked(self.fail_on):
            raise RuntimeError("Faulty: the forward pass fails")
        outputs = self._model.run([item.inputs[1] for item in items])
        return outputs[:-1] if marked(self.miscount_on) else outputs

    def finish(self, item: Prepared, output: Any) -> Any:
        """Finish as the model does."""
        return self._model.finish(item.inputs[1], output)
