"""BentoML: one service, batched by its dispatcher; run by ``bentoml serve``."""

from __future__ import annotations

import bentoml

from tests.benchmarks.peers.model import BATCH, WAIT, Classifier


@bentoml.service(workers=1, traffic={"timeout": 120, "max_concurrency": 1000})
class Service:
    """The classifier; `PEER_WAIT` is the latency objective of the dispatcher."""

    def __init__(self) -> None:
        self.classifier = Classifier()

    @bentoml.api(
        route="/predict", batchable=True, max_batch_size=BATCH, max_latency_ms=round(1000 * WAIT)
    )
    def predict(self, texts: list[str]) -> list[dict[str, object]]:
        """Return the answers of a batch."""
        return self.classifier(texts)
