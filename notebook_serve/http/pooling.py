"""Mean pooling: one vector for a text, from the vectors of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def mean_pool(features: Any, *, normalise: bool = True) -> tuple[np.ndarray, int]:
    """Return the mean of a text's `features` over its tokens, and the number of tokens.

    `features` has the shape (1, tokens, width), without padding, and the mean the shape (width,).
    With `normalise` the mean is divided by its Euclidean length.
    """
    import numpy as np

    if hasattr(features, "detach"):  # numpy lacks some of torch's dtypes
        features = features.detach().cpu().float().numpy()
    rows = np.asarray(features, dtype=np.float32)
    rows = rows.reshape(-1, rows.shape[-1])
    mean = rows.mean(axis=0)
    length = float(np.linalg.norm(mean))
    return (mean / length if normalise and length else mean), len(rows)


def cosine_similarities(one: Any, others: Sequence[Any]) -> list[float]:
    """Return the cosine, from -1 to 1, between a text's features and those of each other text."""
    vector, _ = mean_pool(one)
    return [float(vector @ mean_pool(other)[0]) for other in others]
