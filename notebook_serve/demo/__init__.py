"""A small fill-mask model that ships with the package, with inputs for it.

The model is a BERT with three million weights, trained on the help topics and docstrings of Python
(see `model/MODEL_CARD.md`). Importing this module loads neither torch nor transformers.
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

#: folder of the model
MODEL_FOLDER = Path(__file__).resolve().parent / "model"


def pipeline() -> FillMaskPipeline:
    """Load a fill-mask pipeline on the CPU from the folder of the package, without network.

    >>> pipeline()("raise a [MASK] if the key is missing")[0]["token_str"]  # doctest: +SKIP
    """
    import torch
    from transformers import BertForMaskedLM, FillMaskPipeline, PreTrainedTokenizerFast

    # The files hold half precision to save space, but half precision is slow on a CPU.
    with no_progress_bars():
        model = BertForMaskedLM.from_pretrained(
            MODEL_FOLDER, local_files_only=True, dtype=torch.float32
        )
    tokenizer = PreTrainedTokenizerFast.from_pretrained(MODEL_FOLDER, local_files_only=True)
    return FillMaskPipeline(model=model.eval(), tokenizer=tokenizer, device="cpu")


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Disable the progress bars of transformers, which also leave a thread behind."""
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
    """Return `n` inputs: text from Python's help topics with one word replaced by `[MASK]`.

    Lengths are log-normal with a median near twenty words, similar to real text traffic. The same
    arguments give the same inputs on the same version of Python.
    """
    if n < 0:
        raise ValueError(f"n must not be negative, got {n}")
    if not 1 <= min_words <= max_words <= 128:
        raise ValueError(
            f"min_words={min_words} and max_words={max_words} must satisfy "
            "1 <= min_words <= max_words <= 128, the range that fits the model"
        )
    return corpus.masked_sentences(n, seed, min_words, max_words)
