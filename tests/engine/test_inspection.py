"""Warnings about what slows a server down."""

from __future__ import annotations

from notebook_serve import (
    Greedy,
)
from notebook_serve.engine.failures import FAILING_AFTER

from ..helpers.engines import MakeEngine, double


def test_warnings_say_what_slows_it_down(engine: MakeEngine) -> None:
    """A server without trouble has none; one that ran out of memory says the limit it learned."""
    one = engine(double)
    assert one.warnings == []
    one.runner.memory.failed(1000)

    assert one.warnings == ["A batch ran out of memory: batches are limited to 500 padded tokens."]
    assert one.stats().warnings == tuple(one.warnings)
    one.stop()
    assert one.warnings == []


def test_a_function_that_fails_on_batches_only_is_told_to_its_author(engine: MakeEngine) -> None:
    """Each input is answered alone, so nothing else would tell; a batch that runs ends it."""
    whole = False

    def one_output(inputs: list[int]) -> list[int]:
        return double(inputs) if whole else [sum(inputs)]

    one = engine(one_output, policy=Greedy(4))

    def batch(size: int = 4) -> None:
        one.pause()
        futures = one.submit(list(range(size)), {})
        one.pause(False)
        for future in futures:
            future.result(30)

    for _ in range(FAILING_AFTER):
        assert one.warnings == []
        batch()
        batch(1)
    (said,) = one.warnings
    assert "one_output fails on batches and answers single inputs" in said
    assert "return one output per input, or serve(each(one_output))" in said
    assert "one_output returned 1 outputs for 2 inputs" in said
    whole = True
    batch()
    assert one.warnings == []


def test_want_of_memory_and_bad_inputs_are_no_failures_of_batches(engine: MakeEngine) -> None:
    """They have a warning of their own, and an error for those who sent them."""

    def small(inputs: list[int]) -> list[int]:
        if len(inputs) > 1:
            raise MemoryError
        return inputs

    def strict(inputs: list[int]) -> list[int]:
        if 0 in inputs:
            raise ValueError("no zero")
        return inputs

    for function in (small, strict):
        one = engine(function, policy=Greedy(2))
        for _ in range(FAILING_AFTER + 1):
            one.pause()
            futures = one.submit([0, 1], {})
            one.pause(False)
            for future in futures:
                future.exception(30)
        assert not any("fails on batches" in said for said in one.warnings)
