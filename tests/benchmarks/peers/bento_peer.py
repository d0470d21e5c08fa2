"""BentoML: one service, batched by its dispatcher; run by ``bentoml serve``."""

from __future__ import annotations

import bentoml

from tests.benchmarks.peers.model import BATCH, WAIT, Classifier


@bentoml.service(workers=1, traffic={"timeout": 120, "max_concurrency": 1000})
class Service:
    """The classifier; the longest wait is the latency that the dispatcher aims at."""

    def __init__(self) -> None:
        self.classifier = Classifier()

    @bentoml.api(
        route="/predict", batchable=True, max_batch_size=BATCH, max_latency_ms=round(1000 * WAIT)
    )
    def predict(self, texts: list[str]) -> list[dict[str, object]]:
        """The answers of a batch."""
        return self.classifier(texts)
