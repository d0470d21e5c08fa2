"""Small pipelines with random weights for each of the six text tasks; nothing is downloaded."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

WORDS = [
    *("the", "a", "queue", "batch", "request", "waits", "model", "server", "runs", "token"),
    *("thread", "answer", "paris", "london", "alice", "bob", "visits", "reads", "writes"),
    *("quickly", "slowly", "red", "blue", "green", "one", "two", "three", "long", "short"),
    *("open", "closed"),
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

TASKS = (
    "fill-mask",
    "text-classification",
    "token-classification",
    "zero-shot-classification",
    "feature-extraction",
    "text-generation",
)


@cache
def tokenizer() -> Any:
    """Make a word-level tokenizer like BERT's; copy it before use in another pipeline."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = [*SPECIAL, *WORDS, *"abcdefghijklmnopqrstuvwxyz", "##s", ".", ","]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(words))}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        model_max_length=64,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def pipeline(task: str, seed: int = 0, **options: Any) -> Any:
    """Make a pipeline for `task`; the same seed gives the same weights."""
    import copy

    import torch
    from transformers import pipeline as make

    torch.manual_seed(seed)
    words = copy.deepcopy(tokenizer())
    model = _decoder(words) if task == "text-generation" else _encoder(task, words)
    return make(task, model=model.eval(), tokenizer=words, device="cpu", **options)


def _encoder(task: str, words: Any) -> Any:
    import transformers as t

    labels = {
        "text-classification": ["calm", "busy", "full"],
        "token-classification": ["O", "B-PER", "I-PER", "B-LOC"],
        "zero-shot-classification": ["contradiction", "neutral", "entailment"],
    }.get(task, ["LABEL_0", "LABEL_1"])
    config = t.BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        initializer_range=0.5,  # large enough that answers differ from each other
    )
    kind = {
        "fill-mask": t.BertForMaskedLM,
        "text-classification": t.BertForSequenceClassification,
        "token-classification": t.BertForTokenClassification,
        "zero-shot-classification": t.BertForSequenceClassification,
        "feature-extraction": t.BertModel,
    }[task]
    return kind(config)


def _decoder(words: Any) -> Any:
    import transformers as t

    config = t.LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=256,
        initializer_range=0.5,
        pad_token_id=words.pad_token_id,
        bos_token_id=words.cls_token_id,
        eos_token_id=words.sep_token_id,
    )
    return t.LlamaForCausalLM(config)


def inputs(task: str, count: int, seed: int, *, most: int = 30) -> list[str]:
    """Draw `count` texts of 1 to `most` words that the task accepts."""
    rng = random.Random(seed)
    texts = []
    for _ in range(count):
        words = rng.choices(WORDS, k=rng.randint(1, most))
        if task == "fill-mask":
            words[rng.randrange(len(words))] = "[MASK]"
        texts.append(" ".join(words))
    return texts


#: parameters of requests, by task: some may share a batch, some must not
PARAMETERS: dict[str, list[dict[str, Any]]] = {
    "fill-mask": [{}, {"top_k": 2}, {"targets": ["red", "blue"]}],
    "text-classification": [{}, {"top_k": None}, {"top_k": 1}, {"function_to_apply": "sigmoid"}],
    "token-classification": [
        {},
        {"aggregation_strategy": "simple"},
        {"aggregation_strategy": "max", "ignore_labels": []},
        {"aggregation_strategy": "first", "stride": 4},
    ],
    "zero-shot-classification": [
        {"candidate_labels": ["red", "blue", "green"]},
        {"candidate_labels": "one, two", "multi_label": True},
        {"candidate_labels": ["long"], "hypothesis_template": "the queue {}"},
    ],
    "feature-extraction": [{}, {"truncation": True, "tokenize_kwargs": {"max_length": 8}}],
    "text-generation": [
        {"max_new_tokens": 5, "do_sample": False},
        {"max_new_tokens": 9, "do_sample": False, "return_full_text": False},
        {"max_new_tokens": 6, "do_sample": False, "return_tensors": True},
        {"max_new_tokens": 4, "do_sample": False, "repetition_penalty": 1.3},
        {"max_new_tokens": 4, "num_beams": 2, "do_sample": False, "num_return_sequences": 2},
    ],
}
