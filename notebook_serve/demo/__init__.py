"""A small fill-mask model that ships with the package, and inputs for it.

The model is a BERT of three million weights, trained on the help topics and docstrings of Python
itself (see `model/MODEL_CARD.md`). Importing this module loads neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from notebook_serve.demo import corpus

if TYPE_CHECKING:
    from transformers import FillMaskPipeline

__all__ = ["MODEL_FOLDER", "pipeline", "sentences"]

#: Where the shipped model lies.
MODEL_FOLDER = Path(__file__).resolve().parent / "model"


def pipeline() -> FillMaskPipeline:
    """A new fill-mask pipeline on the CPU, read from the package's own folder and nowhere else.

    >>> pipeline()("raise a [MASK] if the key is missing")[0]["token_str"]  # doctest: +SKIP
    """
    import torch
    from transformers import BertForMaskedLM, FillMaskPipeline, PreTrainedTokenizerFast

    # The files hold half precision to be small; half precision on a CPU is slow.
    with no_progress_bars():
        model = BertForMaskedLM.from_pretrained(
            MODEL_FOLDER, local_files_only=True, dtype=torch.float32
        )
    tokenizer = PreTrainedTokenizerFast.from_pretrained(MODEL_FOLDER, local_files_only=True)
    return FillMaskPipeline(model=model.eval(), tokenizer=tokenizer, device="cpu")


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Without the bars of transformers, which for so small a model are noise and leave a thread."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    if shown:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def sentences(n: int, seed: int = 0, min_words: int = 4, max_words: int = 128) -> list[str]:
    """Inputs for the model: text from Python's help topics with one word replaced by `[MASK]`.

    Lengths are log-normal with a median near twenty words, like those of much written traffic.
    The same numbers give the same inputs on the same version of Python.
    """
    if n < 0:
        raise ValueError(f"n must not be negative, and it is {n}")
    if not 1 <= min_words <= max_words <= 128:
        raise ValueError(
            f"min_words={min_words} and max_words={max_words} must satisfy "
            "1 <= min_words <= max_words <= 128, which is what fits the model"
        )
    return corpus.masked_sentences(n, seed, min_words, max_words)
