"""The mailbox: what threads answer reaches the loop, once, in order, with few wake-ups."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future

import pytest

from notebook_serve.http.transport.future_bridge import FutureBridge


class CountingLoop(asyncio.SelectorEventLoop):
    """A real loop that counts how often it is woken from elsewhere."""

    woken = 0

    def _write_to_self(self) -> None:
        self.woken += 1
        super()._write_to_self()  # type: ignore[misc]


def test_results_and_errors_arrive() -> None:
    async def main() -> None:
        mailbox = FutureBridge(asyncio.get_running_loop())
        good, bad = Future[int](), Future[int]()
        waiting = [mailbox.expect(good), mailbox.expect(bad)]
        thread = threading.Thread(target=good.set_result, args=(1,))
        thread.start()
        assert await waiting[0] == 1
        thread.join()
        bad.set_exception(OSError("no"))
        with pytest.raises(OSError, match="no"):
            await waiting[1]

    asyncio.run(main())


def test_a_batch_wakes_the_loop_once() -> None:
    loop = CountingLoop()

    async def main() -> None:
        mailbox = FutureBridge(loop)
        theirs = [Future[int]() for _ in range(50)]
        waiting = [mailbox.expect(future) for future in theirs]
        before = loop.woken
        for number, future in enumerate(theirs):  # the loop does not get to look meanwhile
            future.set_result(number)
        assert loop.woken - before == 1
        assert await asyncio.gather(*waiting) == list(range(50))
        late = Future[int]()
        waits = mailbox.expect(late)
        late.set_result(7)  # it has looked; it is told again
        assert await waits == 7

    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def test_nothing_is_left_in_it_under_many_threads() -> None:
    async def main() -> None:
        mailbox = FutureBridge(asyncio.get_running_loop())
        theirs = [[Future[int]() for _ in range(300)] for _ in range(4)]
        waiting = [mailbox.expect(future) for part in theirs for future in part]

        def answer(part: list[Future[int]]) -> None:
            for future in part:
                future.set_result(1)

        threads = [threading.Thread(target=answer, args=(part,)) for part in theirs]
        for thread in threads:
            thread.start()
        assert sum(await asyncio.wait_for(asyncio.gather(*waiting), 30)) == 1200
        for thread in threads:
            thread.join()

    asyncio.run(main())


def test_to_cancel_one_side_cancels_the_other() -> None:
    async def main() -> None:
        mailbox = FutureBridge(asyncio.get_running_loop())
        theirs = Future[int]()
        ours = mailbox.expect(theirs)
        ours.cancel()
        await asyncio.sleep(0)
        assert theirs.cancelled()
        theirs = Future[int]()
        ours = mailbox.expect(theirs)
        theirs.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ours

    asyncio.run(main())


def test_an_answer_after_the_loop_closed_is_nobodys() -> None:
    loop = asyncio.new_event_loop()
    theirs = Future[int]()

    async def main() -> None:
        FutureBridge(loop).expect(theirs)

    loop.run_until_complete(main())
    loop.close()
    theirs.set_result(1)
