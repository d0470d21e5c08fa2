"""Choice of the number of torch's threads, with the times of a simulated machine."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

import pytest

from notebook_serve.queueing.cost_model import FEW
from notebook_serve.workers.torch_threads import RECENT, SLOW, TorchThreads

#: time of a forward pass by number of threads, relative to one thread
IDLE = {1: 1.0, 2: 0.6, 4: 0.4, 8: 0.3}
#: the same beside another program that uses a core: threads spin for each other
BUSY = {1: 1.1, 2: 5.0, 4: 9.0, 8: 9.0}
#: the same on a machine with many cores
HALF = {1: 1.0, 2: 0.6, 4: 0.4, 8: 4.0}


@dataclass
class Machine:
    """A simulated machine that runs batches of mixed texts, with other programs beside it."""

    threads: TorchThreads
    seed: int
    noise: float = 0.1
    seconds: float = 0.0
    ran: Counter[int] = field(default_factory=Counter)
    changes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)

    def run(self, batches: int, slowness: dict[int, float], scale: float = 1.0) -> float:
        """Run so many batches; return their time relative to one idle thread."""
        took = alone = 0.0
        for _ in range(batches):
            size, longest = self._rng.randint(1, 16), self._rng.randint(4, 128)
            seconds = scale * (0.003 + 0.00005 * size * longest)
            real = seconds * slowness[self.threads.number] * self._rng.lognormvariate(0, self.noise)
            self.ran[self.threads.number] += 1
            took, alone = took + real, alone + seconds
            if self.threads.learn(size, longest, real):
                self.changes.append(self.threads.chosen)
        return took / alone


@pytest.fixture
def seed() -> int:
    """Return a new seed each time; pytest shows it if a test fails."""
    return random.randrange(10**6)


def test_an_idle_machine_keeps_all_threads(seed: int) -> None:
    """All trials together cost at most two percent."""
    machine = Machine(TorchThreads(2), seed)

    assert machine.run(5000, IDLE) < 1.02 * IDLE[2] * 1.01
    assert machine.changes == []
    assert machine.threads.warning == ""
    assert machine.ran[1] < 100


def test_a_machine_that_is_busy_from_the_start_gets_one_thread(seed: int) -> None:
    """The first trial decides; later trials of two threads cost two percent at most."""
    machine = Machine(TorchThreads(2), seed)

    machine.run(20, BUSY)
    assert machine.changes == [1]
    assert machine.run(3000, BUSY) < 1.02 * BUSY[1] * 1.02
    assert machine.changes == [1]


def test_a_neighbour_comes_and_goes(seed: int) -> None:
    """Use fewer threads within 24 batches, and all of them again in less than a minute."""
    machine = Machine(TorchThreads(2), seed)
    machine.run(1000, IDLE)

    machine.run(24, BUSY)
    assert machine.threads.chosen == 1
    machine.run(500, BUSY)
    before = machine.ran[1]
    while machine.threads.chosen == 1:
        assert machine.ran[1] - before < 60 / 0.03
        machine.run(1, IDLE)
    assert machine.run(500, IDLE) < 1.05 * IDLE[2]


def test_only_a_new_slowness_is_an_alarm(seed: int) -> None:
    """If one thread is as slow, the number stays, and is not tried over and over."""
    machine = Machine(TorchThreads(2), seed)
    machine.run(1000, IDLE)
    machine.ran.clear()

    machine.run(1000, IDLE, scale=5.0)
    assert machine.changes == []
    assert machine.ran[1] < 50


def test_threads_are_halved_step_by_step(seed: int) -> None:
    """Of eight threads four may be the best; then the number stays at four."""
    machine = Machine(TorchThreads(8), seed)

    machine.run(2000, HALF)
    assert machine.threads.chosen == 4
    assert machine.run(2000, HALF) < 1.1 * HALF[4]
    machine.run(4000, BUSY)
    assert machine.threads.chosen == 1
    machine.run(8000, IDLE)
    assert machine.threads.chosen == 8


def test_noise_alone_changes_nothing_for_long(seed: int) -> None:
    """Generated texts vary in length by chance; two threads that help stay in use."""
    machine = Machine(TorchThreads(2), seed, noise=0.7)

    machine.run(3000, IDLE)
    assert machine.ran[2] > 0.6 * 3000


def test_a_large_slowdown_is_seen_through_noise(seed: int) -> None:
    """Ten times the time is more than noise."""
    machine = Machine(TorchThreads(2), seed, noise=0.7)

    machine.run(3000, {1: 1.0, 2: 10.0})
    assert machine.ran[1] > 0.6 * 3000


def test_odd_numbers_are_halved_too(seed: int) -> None:
    """Three threads become one, and three again."""
    machine = Machine(TorchThreads(3), seed)

    machine.run(50, {1: 1.0, 2: 5.0, 3: 9.0})
    assert machine.threads.chosen == 1
    machine.run(5000, {1: 1.0, 2: 0.6, 3: 0.4})
    assert machine.threads.chosen == 3


def test_one_thread_stays(seed: int) -> None:
    """There is no smaller number to try, and nothing to warn of."""
    machine = Machine(TorchThreads(1), seed)

    machine.run(200, BUSY)
    assert machine.ran == {1: 200}
    assert machine.threads.warning == ""


def test_batches_of_one_size_and_of_no_time() -> None:
    """The cost model needs neither different sizes nor a fine clock."""
    threads = TorchThreads(2)

    for _ in range(100):
        threads.learn(1, 1, 0.0)
    assert threads.number == 2
    for _ in range(13):
        threads.learn(1, 1, 0.3 if threads.number == 2 else 0.03)
    assert threads.chosen == 1
    assert threads.slowdown == pytest.approx(10)


def test_the_warning_explains_the_choice() -> None:
    """It has the number of threads, the reason, and the option that fixes it."""
    threads = TorchThreads(2)
    for _ in range(13):
        threads.learn(4, 10, 0.42 if threads.number == 2 else 0.1)

    assert threads.warning.startswith("torch runs this model on 1 of 2 threads. With more, ")
    assert "took 4.2 times as long" in threads.warning
    assert "`serve(..., threads=2)` keeps 2" in threads.warning


def test_a_fixed_number_leads_to_a_warning_only(seed: int) -> None:
    """The warning comes when forward passes become far slower, and goes when they recover."""
    machine = Machine(TorchThreads(2, adapts=False), seed)

    machine.run(1 + RECENT, IDLE)
    assert machine.threads.warning == ""
    machine.run(FEW, BUSY)
    assert machine.ran == {2: 1 + RECENT + FEW}
    assert machine.threads.slowdown > SLOW
    assert "times as long as at first" in machine.threads.warning
    assert "`serve(..., threads=1)`" in machine.threads.warning
    machine.run(FEW, IDLE)
    assert machine.threads.warning == ""
