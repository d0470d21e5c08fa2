"""Ray Serve: its proxy, and one replica."""

from __future__ import annotations

import threading

import ray
from ray import serve
from starlette.requests import Request

from tests.benchmarks.peers.model import BATCH, PORT, WAIT, Classifier


@serve.deployment(max_ongoing_requests=1000, ray_actor_options={"num_cpus": 1})
class Deployment:
    """The classifier behind Ray's batching."""

    def __init__(self) -> None:
        self.classifier = Classifier()

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=WAIT)
    async def run(self, texts: list[str]) -> list[dict[str, object]]:
        """Return the answers of a batch."""
        return self.classifier(texts)

    async def __call__(self, request: Request) -> object:
        """Classify the body, which is the text."""
        return await self.run((await request.body()).decode())


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    serve.run(Deployment.bind(), route_prefix="/")
    threading.Event().wait()
