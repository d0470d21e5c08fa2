"""Classifier of the peers' workers, in the fewest steps.

Tokenises in one call, pads to the longest text and runs one forward pass, as an expert would write
it to avoid the cost of the pipeline's loop. Imports nothing of this project: peers run without it.
"""

from __future__ import annotations

import os

PORT = int(os.environ.get("PEER_PORT", "8000"))
FOLDER = os.environ.get("PEER_MODEL", "")
BATCH = int(os.environ.get("PEER_BATCH", "8"))
#: device and type of the tutorial's pipeline
PLACE = {
    "device": os.environ.get("BENCH_DEVICE", "cpu"),
    "dtype": os.environ.get("BENCH_DTYPE", "float32"),
}
WAIT = float(os.environ.get("PEER_WAIT", "0"))


class Classifier:
    """The model of a folder."""

    def __init__(self) -> None:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        self._torch = torch
        self._tokenizer = AutoTokenizer.from_pretrained(FOLDER)
        self._model = AutoModelForSequenceClassification.from_pretrained(FOLDER).eval()

    def __call__(self, texts: list[str]) -> list[dict[str, object]]:
        """Return a label and its score for each text."""
        with self._torch.inference_mode():
            made = self._tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
            scores = self._model(**made).logits.softmax(-1)
        best = scores.max(-1)
        labels = self._model.config.id2label
        return [
            {"label": labels[index], "score": score}
            for index, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
