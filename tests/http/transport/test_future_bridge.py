"""Results of other threads reach the event loop once, in order, with few wake-ups."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future

import pytest

from notebook_serve.http.transport.future_bridge import FutureBridge


class CountingLoop(asyncio.SelectorEventLoop):
    """A real loop that counts its wake-ups from other threads."""

    woken = 0

    def _write_to_self(self) -> None:
        self.woken += 1
        super()._write_to_self()  # type: ignore[misc]


def test_results_and_errors_arrive() -> None:
    """The loop's future gets the result or the error of the thread's."""

    async def main() -> None:
        bridge = FutureBridge(asyncio.get_running_loop())
        good, bad = Future[int](), Future[int]()
        waiting = [bridge.wrap(good), bridge.wrap(bad)]
        thread = threading.Thread(target=good.set_result, args=(1,))
        thread.start()
        assert await waiting[0] == 1
        thread.join()
        bad.set_exception(OSError("no"))
        with pytest.raises(OSError, match="no"):
            await waiting[1]

    asyncio.run(main())


def test_a_batch_wakes_the_loop_once() -> None:
    """Fifty results in one go are one wake-up."""
    loop = CountingLoop()

    async def main() -> None:
        bridge = FutureBridge(loop)
        sources = [Future[int]() for _ in range(50)]
        waiting = [bridge.wrap(future) for future in sources]
        before = loop.woken
        for number, future in enumerate(sources):  # the loop does not run in between
            future.set_result(number)
        assert loop.woken - before == 1
        assert await asyncio.gather(*waiting) == list(range(50))
        late = Future[int]()
        waits = bridge.wrap(late)
        late.set_result(7)  # the bridge is empty again, so this wakes the loop again
        assert await waits == 7

    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def test_every_result_of_many_threads_arrives() -> None:
    """No result is lost between a delivery and the next wake-up."""

    async def main() -> None:
        bridge = FutureBridge(asyncio.get_running_loop())
        sources = [[Future[int]() for _ in range(300)] for _ in range(4)]
        waiting = [bridge.wrap(future) for part in sources for future in part]

        def answer(part: list[Future[int]]) -> None:
            for future in part:
                future.set_result(1)

        threads = [threading.Thread(target=answer, args=(part,)) for part in sources]
        for thread in threads:
            thread.start()
        assert sum(await asyncio.wait_for(asyncio.gather(*waiting), 30)) == 1200
        for thread in threads:
            thread.join()

    asyncio.run(main())


def test_a_cancelled_source_is_cancelled_on_the_loop() -> None:
    """A request that the engine cancels ends the wait for it."""

    async def main() -> None:
        bridge = FutureBridge(asyncio.get_running_loop())
        source = Future[int]()
        target = bridge.wrap(source)
        source.cancel()
        with pytest.raises(asyncio.CancelledError):
            await target

    asyncio.run(main())


def test_a_result_for_a_cancelled_wait_is_dropped() -> None:
    """If the loop's future is cancelled first, a result is ignored, and later ones arrive."""

    async def main() -> None:
        bridge = FutureBridge(asyncio.get_running_loop())
        first, second = Future[int](), Future[int]()
        cancelled, waiting = bridge.wrap(first), bridge.wrap(second)
        cancelled.cancel()
        first.set_result(1)
        second.set_result(2)
        assert await waiting == 2
        assert cancelled.cancelled()

    asyncio.run(main())


def test_a_result_after_the_loop_closed_is_ignored() -> None:
    """A thread that answers after the server has stopped gets no error."""
    loop = asyncio.new_event_loop()
    source = Future[int]()

    async def main() -> None:
        FutureBridge(loop).wrap(source)

    loop.run_until_complete(main())
    loop.close()
    source.set_result(1)
