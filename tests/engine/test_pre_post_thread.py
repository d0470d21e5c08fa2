"""The desk: urgent work first, the rest in order, and what escapes is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from notebook_serve.engine.pre_post_thread import PrePostThread


@pytest.fixture
def died() -> list[BaseException]:
    return []


@pytest.fixture
def desk(died: list[BaseException]) -> Iterator[PrePostThread]:
    desk = PrePostThread(died.append, "a desk")
    yield desk
    desk.close()
    desk.join(10)


def test_urgent_work_goes_first_and_the_rest_in_order(desk: PrePostThread) -> None:
    done: list[str] = []
    # Nothing runs before the start, so all of it is there to choose from.
    for name in "abc":
        desk.put(lambda name=name: done.append(name))  # type: ignore[misc]
    for name in "xyz":
        desk.put_urgent(lambda name=name: done.append(name))  # type: ignore[misc]
    desk.start()
    desk.close()
    desk.join(10)
    assert done == ["x", "y", "z", "a", "b", "c"]


def test_work_that_is_put_by_work_is_done(desk: PrePostThread) -> None:
    done = threading.Event()
    desk.start()
    desk.put(lambda: desk.put_urgent(done.set))
    assert done.wait(10)


def test_it_knows_its_own_thread(desk: PrePostThread) -> None:
    found: list[bool] = []
    desk.put(lambda: found.append(desk.is_current()))
    desk.start()
    desk.close()
    desk.join(10)
    assert found == [True]
    assert not desk.is_current()


def test_what_escapes_is_told_and_ends_the_thread(
    desk: PrePostThread, died: list[BaseException]
) -> None:
    done: list[str] = []

    def leave() -> None:
        raise SystemExit(3)

    desk.put(leave)
    desk.put(lambda: done.append("after"))
    desk.start()
    desk.join(10)
    assert [type(error) for error in died] == [SystemExit]
    assert done == []


def test_to_join_it_from_itself_or_before_its_start_does_not_block(desk: PrePostThread) -> None:
    desk.join(10)
    desk.put(lambda: desk.join(10))
    desk.start()
    desk.close()
    desk.join(10)
