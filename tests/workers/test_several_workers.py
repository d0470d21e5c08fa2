"""Several workers and one queue: an idle worker takes the next batch."""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from notebook_serve import (
    Greedy,
    NoBatching,
    Policy,
    ServeError,
    Server,
    Window,
    WorkerDead,
)
from notebook_serve.queueing.policies import label

from ..helpers import small_models
from ..helpers.compare_answers import assert_same

Make = Callable[..., Server]


def test_two_threads_run_at_the_same_time(make: Make) -> None:
    """The loader is called for each; a batch that waits for another one meets it."""
    together = threading.Barrier(2)
    made = []

    def loader() -> Callable[[list[Any]], list[Any]]:
        def model(inputs: list[Any]) -> list[Any]:
            together.wait(60)
            return [threading.get_ident() for _ in inputs]

        made.append(model)
        return model

    server = make(loader=loader, workers=2, policy=NoBatching())
    server.wait_ready(60)
    assert len(set(server.predict(list(range(8))))) == 2
    assert len(made) == 2
    workers = server.stats().workers
    assert [worker.requests for worker in workers] == [4, 4]
    assert Counter(batch.worker for batch in server.batches()) == {0: 4, 1: 4}
    assert server.limits["replicas"] == 2


def meeting(folder: Path) -> Callable[[list[Any]], list[Any]]:
    """Return a model that waits until a second process runs it: each opens one end of a pipe."""

    def model(inputs: list[Any]) -> list[Any]:
        try:
            (folder / "first").touch(exist_ok=False)
        except FileExistsError:
            with (folder / "pipe").open("w"):
                return [os.getpid() for _ in inputs]
        with (folder / "pipe").open("r"):
            return [os.getpid() for _ in inputs]

    return model


def test_two_processes_run_at_the_same_time(make: Make, tmp_path: Path) -> None:
    """The same model is sent to both."""
    os.mkfifo(tmp_path / "pipe")
    server = make(meeting(tmp_path), worker="process", workers=2, policy=NoBatching())
    pids = server.predict([1, 2])
    assert set(pids) == {worker.pid for worker in server.stats().workers}


@pytest.mark.parametrize("task", ["fill-mask", "text-generation"])
def test_threads_share_weights_and_never_a_tokenizer(make: Make, task: str) -> None:
    """With different parameters at once, each answer is that of the pipeline alone."""
    pipe = small_models.pipeline(task)
    server = make(pipe, workers=3, policy=Greedy(4))
    texts = small_models.inputs(task, 24, seed=2)
    parameters = small_models.PARAMETERS[task]
    expected = [[pipe(text, **each) for text in texts] for each in parameters]
    found: dict[int, Any] = {}

    def ask(number: int) -> None:
        found[number] = server.predict(texts, **parameters[number])

    threads = [threading.Thread(target=ask, args=[n]) for n in range(len(parameters))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, answers in enumerate(expected):
        assert_same(answers, found[number])
    executors: Any = server._engine.runner.executors
    runners = [executor._model._runner for executor in executors]
    assert len({id(runner.tokenizer) for runner in runners}) == 3
    assert {id(runner.model) for runner in runners} == {id(pipe.model)}


def test_if_one_worker_dies_all_end_until_the_next_start(make: Make) -> None:
    """Every request is answered, and start() makes new workers."""
    deadly = [True]

    def loader() -> Callable[[list[Any]], list[Any]]:
        def model(inputs: list[Any]) -> list[Any]:
            if deadly[0] and inputs[0] == "die":
                raise SystemExit("enough")
            return inputs

        return model

    server = make(loader=loader, workers=2)
    server.wait_ready(60)
    with pytest.raises(WorkerDead, match="SystemExit: enough"):
        server.predict("die")
    with pytest.raises(WorkerDead):
        server.predict("x")
    deadly[0] = False
    server.start()
    assert server.predict("die") == "die"


@pytest.mark.parametrize("worker", ["thread", "process"])
def test_everything_at_once_loses_nothing(make: Make, worker: str) -> None:
    """Combine clients, errors, new policies and pauses; each request has the right answer."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - to repeat a failure
    rng = random.Random(seed)

    def loader() -> Callable[[list[int]], list[int]]:
        def model(inputs: list[int]) -> list[int]:
            if any(value % 17 == 0 for value in inputs):
                raise ValueError("seventeen")
            return [value * 2 for value in inputs]

        return model

    server = make(loader=loader, worker=worker, workers=3)
    server.wait_ready(60)
    server._engine.admission.breaker.threshold = 10_000
    outcomes = Counter[str]()
    lock = threading.Lock()

    def client(mine: random.Random) -> None:
        for _ in range(60):
            value = mine.randrange(1000)
            try:
                right = server.predict(value) == value * 2
            except ServeError as error:
                right = value % 17 == 0 and "seventeen" in str(error)
            with lock:
                outcomes["right" if right else "wrong"] += 1

    clients = [threading.Thread(target=client, args=[random.Random(rng.random())]) for _ in "abcd"]
    for thread in clients:
        thread.start()
    policies: list[Policy] = [Greedy(3), NoBatching(), Window(5, 0.001)]
    while any(thread.is_alive() for thread in clients):
        server.policy = rng.choice(policies)
        server.pause()
        server.resume()
        clients[0].join(0.005)
    assert outcomes == {"right": 240}
    assert sum(server.stats().outcomes.values()) == 240
    assert server.stats().queue_depth == 0
    assert server.stats().policy == label(server.policy)
    assert sum(worker.requests for worker in server.stats().workers) == 240
    server.stop()


def test_stop_answers_the_queue_with_all_workers(make: Make) -> None:
    """A hundred paused requests have their answers when stop() returns."""
    server = make(loader=lambda: list, workers=2, policy=NoBatching())
    server.wait_ready(60)
    server.pause()
    futures, _ = server._submit([*range(100)], {}, None)
    server.stop()
    assert [future.result(0).value for future in futures] == [*range(100)]
