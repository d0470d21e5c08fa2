from __future__ import annotations

import numpy as np
import pytest
import torch

from notebook_serve.http.pooling import cosine_similarities, mean_pool

ROWS = [[[3.0, 0.0], [3.0, 8.0]]]


@pytest.mark.parametrize(
    "features",
    [ROWS, np.array(ROWS), torch.tensor(ROWS), torch.tensor(ROWS, dtype=torch.bfloat16), ROWS[0]],
    ids=["lists", "array", "tensor", "bfloat16", "rows"],
)
def test_the_mean_of_all_tokens(features: object) -> None:
    """The mean and the number of tokens are the same for lists, arrays and tensors."""
    raw, count = mean_pool(features, normalise=False)
    unit, _ = mean_pool(features)
    assert (raw.tolist(), count) == ([3.0, 4.0], 2)
    np.testing.assert_allclose(unit, [0.6, 0.8], rtol=1e-6)
    assert unit.dtype == np.float32


def test_a_zero_mean_stays_zero() -> None:
    """A mean of zeros is not divided by its length."""
    assert mean_pool([[[0.0, 0.0]]])[0].tolist() == [0.0, 0.0]


def test_cosines() -> None:
    """Similarities do not depend on the lengths of the means."""
    made = cosine_similarities([[[2.0, 0.0]]], [[[5.0, 0.0]], [[0.0, 1.0]], [[-1.0, 0.0]]])
    assert made == pytest.approx([1.0, 0.0, -1.0])
