"""What a peer's worker calls: the classifier, in the fewest steps that give its answers.

Tokenised in one call, padded to the longest, one forward: what somebody would write who knows what
the pipeline's own loop costs. Imports nothing of this project, because peers run without it.
"""

from __future__ import annotations

import os

PORT = int(os.environ.get("PEER_PORT", "8000"))
FOLDER = os.environ.get("PEER_MODEL", "")
BATCH = int(os.environ.get("PEER_BATCH", "8"))
#: where and as what the tutorial's pipeline is loaded
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
        """A label and its score for each text."""
        with self._torch.inference_mode():
            made = self._tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
            scores = self._model(**made).logits.softmax(-1)
        best = scores.max(-1)
        labels = self._model.config.id2label
        return [
            {"label": labels[index], "score": score}
            for index, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
