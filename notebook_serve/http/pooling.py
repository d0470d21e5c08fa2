"""One vector for a text: the mean of the vectors of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def pooled(features: Any, *, normalise: bool = True) -> tuple[np.ndarray, int]:
    """The mean over all tokens of what feature-extraction gives for a text, and their number.

    `features` is (1, tokens, width), without padding; the mean has `width` numbers, divided by
    their Euclidean length where they are to be normalised.
    """
    import numpy as np

    if hasattr(features, "detach"):  # numpy does not know all of torch's kinds of number
        features = features.detach().cpu().float().numpy()
    rows = np.asarray(features, dtype=np.float32)
    rows = rows.reshape(-1, rows.shape[-1])
    mean = rows.mean(axis=0)
    length = float(np.linalg.norm(mean))
    return (mean / length if normalise and length else mean), len(rows)


def similarities(one: Any, others: Sequence[Any]) -> list[float]:
    """The cosine between a text's features and those of each of `others`, from -1 to 1."""
    vector, _ = pooled(one)
    return [float(vector @ pooled(other)[0]) for other in others]
