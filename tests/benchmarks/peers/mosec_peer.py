"""mosec: a front end in Rust and one worker process."""

from __future__ import annotations

import sys

import mosec

from tests.benchmarks.peers.model import BATCH, PORT, WAIT, Classifier


class Worker(mosec.Worker):
    """The classifier; mosec calls it with a list if the batch size is above one."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = Classifier()

    def deserialize(self, data: bytes) -> str:
        """Decode the body, which is the text."""
        return data.decode()

    def forward(self, data: list[str] | str) -> object:
        """Return the answers, or the one answer."""
        return self.classifier([data])[0] if isinstance(data, str) else self.classifier(data)


if __name__ == "__main__":
    sys.argv[1:] = ["--address", "127.0.0.1", "--port", str(PORT), "--timeout", "120000"]
    server = mosec.Server()
    server.append_worker(Worker, num=1, max_batch_size=BATCH, max_wait_time=round(1000 * WAIT))
    server.run()
