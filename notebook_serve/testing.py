"""Rehearsal: a model with faults on demand, to see what a server makes of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from .models.base import Prepared, ServedModel
from .models.factory import as_model


class Faulty:
    """Wraps a pipeline or a batch function, and goes wrong where an input holds a marker.

    Serve it like any model. A marker is looked for in the text of an input::

        server = serve(Faulty(pipe, fail_on="poison", out_of_memory_over=2000))

    Args:
        model: What `serve` takes.
        fail_on: The whole batch raises if one of its inputs holds this.
        out_of_memory_over: A batch of more padded tokens runs out of memory.
        slow_on: A batch takes `seconds` longer if one of its inputs holds this.
        seconds: How much longer.
        die_on: The worker dies of a batch with an input that holds this.
        miscount_on: A batch with an input that holds this has an output too few.
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
        said = "".join(f", {name}={value!r}" for name, value in given.items() if value is not None)
        return f"<Faulty: {self._model.name}{said}>"

    def split(self, inputs: Any, parameters: Mapping[str, Any]) -> list[Any] | None:
        """As the model does."""
        return self._model.split(inputs, parameters)

    def prepare(self, inputs: Any, parameters: Mapping[str, Any]) -> Prepared:
        """As the model does; the input's text is kept, to look for markers in it."""
        made = self._model.prepare(inputs, parameters)
        return Prepared((str(inputs), made), made.length, made.group, parameters)

    def run(self, items: Sequence[Prepared]) -> list[Any]:
        """Go wrong where a marker says so, else run."""
        texts = [item.inputs[0] for item in items]

        def marked(marker: str | None) -> bool:
            return marker is not None and any(marker in text for text in texts)

        if marked(self.die_on):
            raise SystemExit("the worker's death, rehearsed")
        if marked(self.slow_on):
            time.sleep(self.seconds)
        padded = len(items) * max(item.length for item in items)
        if self.out_of_memory_over is not None and padded > self.out_of_memory_over:
            raise MemoryError(f"{padded} padded tokens do not fit, rehearsed")
        if marked(self.fail_on):
            raise RuntimeError("a failing forward, rehearsed")
        outputs = self._model.run([item.inputs[1] for item in items])
        return outputs[:-1] if marked(self.miscount_on) else outputs

    def finish(self, item: Prepared, output: Any) -> Any:
        """As the model does."""
        return self._model.finish(item.inputs[1], output)
