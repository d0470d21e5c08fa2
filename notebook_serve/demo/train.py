"""Train the demo model on the documentation that every Python includes.

Run it as `python -m notebook_serve.demo.train --out DIR`. The number of steps is fixed instead of
the time, so that one seed gives one model for one set of versions.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import math
import platform
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers
import torch
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from notebook_serve.demo import card, corpus, no_progress_bars

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PAD, UNK, CLS, SEP, MASK = range(5)

#: inputs for the model card; the corpus contains none of them
EXAMPLES = (
    "raise a [MASK] if the key is missing",
    "open the [MASK] for reading",
    "the function returns [MASK] if the file does not exist",
    "return the number of [MASK] in the list",
    "the second [MASK] must be a string",
    "return true if the [MASK] was changed",
)


@dataclass(frozen=True)
class Settings:
    """Settings of a training run, which also depends on the corpus and the versions."""

    seed: int = 0
    steps: int = 3600
    threads: int = 2
    vocabulary: int = 6000
    hidden: int = 192
    layers: int = 4
    heads: int = 6
    inner: int = 768
    positions: int = 512
    dropout: float = 0.1
    batch_tokens: int = 1024
    window: int = 128
    spread: float = 0.06
    peak_rate: float = 1e-3
    masked_share: float = 0.3


class Baseline(NamedTuple):
    """Answers without a model: the most frequent token and the most frequent word."""

    token: int
    word: int


class Score(NamedTuple):
    """Shares of correct answers at masked positions, for all tokens and for whole words only."""

    evaluated: int
    accuracy: float
    unigram: float
    word_evaluated: int
    word_accuracy: float
    word_unigram: float


class Batch(NamedTuple):
    """Token ids with their attention mask and positions."""

    ids: Tensor
    attention: Tensor
    places: Tensor


def train_tokenizer(texts: Sequence[str], size: int) -> tokenizers.Tokenizer:
    """Train a lowercase WordPiece tokenizer, like that of BERT, with at most `size` pieces."""
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token=SPECIAL[UNK]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    # The trainer numbers inner letters in the order of a hash table, which differs by run, and
    # breaks ties by number. Special tokens for all letters make the vocabulary repeatable.
    letters = sorted(set("".join(texts).lower()) - set(" "))
    named = SPECIAL + [f"##{letter}" for letter in letters]
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=named, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    pieces: dict[str, int] = tokenizer.get_vocab()
    return _build_tokenizer(pieces)


def _build_tokenizer(pieces: dict[str, int]) -> tokenizers.Tokenizer:
    """Build a lowercase WordPiece tokenizer of these pieces with five special tokens."""
    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocab=pieces, unk_token=SPECIAL[UNK]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", SEP), ("[CLS]", CLS))
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def encode(tokenizer: tokenizers.Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of each text without start and end tokens."""
    return [found.ids for found in tokenizer.encode_batch(list(texts), add_special_tokens=False)]


def new_model(settings: Settings, size: int, stream: Sequence[int]) -> BertForMaskedLM:
    """Build an untrained model with an initialization for a small training budget.

    From random weights, trial runs of 800 steps still answered by frequency alone, because the
    heads first have to learn that near tokens matter. Here the heads start with attention to near
    tokens, and the token vectors start from counts of neighbours.
    """
    config = BertConfig(
        vocab_size=size,
        hidden_size=settings.hidden,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        intermediate_size=settings.inner,
        max_position_embeddings=settings.positions,
        hidden_dropout_prob=settings.dropout,
        attention_probs_dropout_prob=0.0,
        pad_token_id=PAD,
        initializer_range=settings.spread,
    )
    model = BertForMaskedLM(config)
    with torch.no_grad():
        _initialize_positions(model, settings)
        _initialize_words(model, torch.tensor(stream), settings)
        _scale_layers(model)
    return model


def _initialize_positions(model: BertForMaskedLM, settings: Settings) -> None:
    """Set sinusoidal positions, and let each head of the first layer attend to one near token.

    The query rotates the waves by `distance` and the key does not. So their product is greatest for
    a key that is `distance` tokens away.
    """
    size = settings.hidden // settings.heads
    rates = torch.logspace(math.log10(2.5), math.log10(0.01), size // 2)
    angles = torch.arange(settings.positions)[:, None] * rates[None, :]
    waves = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
    places = model.bert.embeddings.position_embeddings.weight
    places.zero_()
    places[:, :size] = 2.0 * settings.spread * waves
    attention = model.bert.encoder.layer[0].attention.self
    for head in range(settings.heads):
        distance = (head // 2 + 1) * (-1) ** (head + 1)
        rows = slice(head * size, (head + 1) * size)
        rotations = [_rotation(rate * distance) for rate in rates.tolist()]
        attention.query.weight[rows, :size] += 1.2 * torch.block_diag(*rotations)
        attention.key.weight[rows, :size] += 1.2 * torch.eye(size)


def _initialize_words(model: BertForMaskedLM, stream: Tensor, settings: Settings) -> None:
    """Set token vectors from the counts of neighbours, and biases from the frequencies."""
    size = settings.hidden // settings.heads
    words = model.bert.embeddings.word_embeddings.weight
    total = words.shape[0]
    counts = torch.zeros(total, total)
    one = torch.ones(())
    for distance in (1, 2, 3):
        before, after = stream[:-distance], stream[distance:]
        counts.index_put_((before, after), one, accumulate=True)
        counts.index_put_((after, before), one, accumulate=True)
    shares = (counts.sum(1) / counts.sum()).clamp(min=1e-6)
    expected = shares[:, None] * shares[None, :] * counts.sum()
    surprise = (counts / expected).clamp(min=1.0).log()
    left, strength, _ = torch.svd_lowrank(surprise, q=settings.hidden - size, niter=3)
    vectors = left * strength.sqrt()
    vectors -= shares @ vectors
    vectors /= vectors.std(1, keepdim=True).clamp(min=1e-3)
    words[:, :size] = 0.0
    words[:, size:] = settings.spread * (vectors + 0.2 * torch.randn_like(vectors))
    model.cls.predictions.bias.copy_(shares.log())


def _scale_layers(model: BertForMaskedLM) -> None:
    """Scale up the attention of the first layer, and scale down all later layers.

    Untrained layers add noise that hides the neighbours' words. In trial runs of 200 steps four
    layers without this scaling learned nothing from the words around the mask.
    """
    model.cls.predictions.transform.LayerNorm.weight.fill_(0.3)
    for number, layer in enumerate(model.bert.encoder.layer):
        gain = 0.1 if number else 2.5
        layer.output.dense.weight *= 0.1
        layer.attention.output.dense.weight *= gain
        layer.attention.self.value.weight *= max(1.0, gain)


def _rotation(angle: float) -> Tensor:
    """Return the matrix that rotates the pair (sine, cosine) by an angle."""
    sine, cosine = math.sin(angle), math.cos(angle)
    return torch.tensor([[cosine, sine], [-sine, cosine]])


def batches(
    settings: Settings, texts: Sequence[str], tokenizer: tokenizers.Tokenizer
) -> Iterator[Batch]:
    """Yield training batches endlessly: single sentences, windows, and windows of full length."""
    source = random.Random(settings.seed)
    sentences = [part for text in texts for part in corpus.sentences_of(text)]
    lines = _lines(encode(tokenizer, sentences), settings, source)
    stream = [token for ids in encode(tokenizer, texts) for token in ids]
    while True:
        kind = source.random()
        if kind < 0.5:
            yield next(lines)
        else:
            length = settings.window if kind < 0.9 else settings.positions
            yield _windows(stream, length, settings, source)


def _lines(lines: list[list[int]], settings: Settings, source: random.Random) -> Iterator[Batch]:
    """Yield batches of sentences of similar length, half of them without their full stop."""
    while True:
        source.shuffle(lines)
        for at in range(0, len(lines), 1024):
            pool = sorted((ids[: settings.window - 2] for ids in lines[at : at + 1024]), key=len)
            cut = []
            while pool:
                count = max(1, settings.batch_tokens // (len(pool[-1]) + 2))
                cut.append([_drop_full_stop(ids, source) for ids in pool[-count:]])
                del pool[-count:]
            source.shuffle(cut)
            yield from (_batch(rows, 0) for rows in cut)


def _drop_full_stop(ids: list[int], source: random.Random) -> list[int]:
    """Return a sentence, in half of the cases without its last token."""
    return ids[:-1] if len(ids) > 4 and source.random() < 0.5 else ids


def _windows(stream: list[int], length: int, settings: Settings, source: random.Random) -> Batch:
    """Cut windows from the running text, at a random offset in the model's positions."""
    size = min(length - 2, len(stream))
    count = max(1, settings.batch_tokens // length)
    starts = [source.randrange(len(stream) - size + 1) for _ in range(count)]
    rows = [stream[start : start + size] for start in starts]
    return _batch(rows, source.randrange(settings.positions - size - 1))


def _batch(rows: Sequence[Sequence[int]], offset: int) -> Batch:
    """Pad rows of token ids, with start and end tokens, at positions from `offset`."""
    width = max(map(len, rows)) + 2
    padded = [[CLS, *row, SEP] + [PAD] * (width - 2 - len(row)) for row in rows]
    ids = torch.tensor(padded)
    return Batch(ids, (ids != PAD).long(), torch.arange(offset, offset + width)[None, :])


def mask(ids: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mask a random share of the tokens, at least one per row; return the ids and the mask."""
    chances = torch.rand(ids.shape, generator=generator)
    chances[ids < len(SPECIAL)] = 2.0
    chosen = (chances < share) | (chances == chances.min(dim=1, keepdim=True).values)
    chosen &= chances < 2.0
    return ids.masked_fill(chosen, MASK), chosen


def scores_at(model: BertForMaskedLM, batch: Batch, masked: Tensor, chosen: Tensor) -> Tensor:
    """Return the scores of all tokens at the chosen positions; the head runs only there."""
    states = model.bert(
        masked, attention_mask=batch.attention, position_ids=batch.places
    ).last_hidden_state
    scores: Tensor = model.cls(states[chosen])
    return scores


def rate_at(step: int, steps: int) -> float:
    """Return the share of the peak learning rate: a linear warm-up, then half a cosine."""
    warmup = max(1, steps // 12)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))


def fit(model: BertForMaskedLM, source: Iterator[Batch], settings: Settings) -> None:
    """Train a model in place for `settings.steps` steps."""
    generator = torch.Generator().manual_seed(settings.seed)
    decayed = [weight for weight in model.parameters() if weight.ndim > 1]
    plain = [weight for weight in model.parameters() if weight.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(
        groups, lr=settings.peak_rate, betas=(0.9, 0.98), weight_decay=0.02, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda at: rate_at(at, settings.steps))
    model.train()
    mean = 0.0
    for step in range(settings.steps):
        batch = next(source)
        masked, chosen = mask(batch.ids, settings.masked_share, generator)
        scores = scores_at(model, batch, masked, chosen)
        loss = torch.nn.functional.cross_entropy(scores, batch.ids[chosen])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        mean += (loss.item() - mean) / min(step + 1, 100)
        if (step + 1) % 200 == 0:
            print(f"step {step + 1} of {settings.steps}, loss {mean:.3f}", file=sys.stderr)
    model.eval()


def whole_words(tokenizer: tokenizers.Tokenizer) -> Tensor:
    """Return a mask of the token ids that are whole words: no parts, marks or digits."""
    size = tokenizer.get_vocab_size()
    return torch.tensor([str(tokenizer.id_to_token(at)).isalpha() for at in range(size)])


def baseline_of(tokenizer: tokenizers.Tokenizer, stream: Sequence[int]) -> Baseline:
    """Return the baseline for the training tokens."""
    words = whole_words(tokenizer).tolist()
    ranked = [token for token, _ in Counter(stream).most_common()]
    return Baseline(ranked[0], next(token for token in ranked if words[token]))


def evaluate(
    model: BertForMaskedLM,
    tokenizer: tokenizers.Tokenizer,
    texts: Sequence[str],
    baseline: Baseline,
    seed: int = 1,
) -> Score:
    """Return the accuracy of the first answer with 15 % of the tokens of each text masked."""
    generator = torch.Generator().manual_seed(seed)
    limit = int(model.config.max_position_embeddings) - 2
    rows = sorted((ids[:limit] for ids in encode(tokenizer, texts) if ids), key=len)
    answers, truths = [], []
    for at in range(0, len(rows), 32):
        batch = _batch(rows[at : at + 32], 0)
        masked, chosen = mask(batch.ids, 0.15, generator)
        with torch.no_grad():
            answers.append(scores_at(model, batch, masked, chosen).argmax(-1))
        truths.append(batch.ids[chosen])
    return _score(torch.cat(answers), torch.cat(truths), whole_words(tokenizer), baseline)


def _score(answers: Tensor, truths: Tensor, words: Tensor, baseline: Baseline) -> Score:
    """Compute the shares of correct answers, for all tokens and for whole words."""
    right, whole = answers == truths, words[truths]
    return Score(
        evaluated=len(truths),
        accuracy=right.float().mean().item(),
        unigram=(truths == baseline.token).float().mean().item(),
        word_evaluated=int(whole.sum()),
        word_accuracy=right[whole].float().mean().item(),
        word_unigram=(truths[whole] == baseline.word).float().mean().item(),
    )


def first_answers(
    model: BertForMaskedLM, tokenizer: tokenizers.Tokenizer, text: str, count: int = 3
) -> list[str]:
    """Return the most likely words for the mask in a text."""
    ids = tokenizer.encode(text).ids
    with torch.no_grad():
        scores = model(torch.tensor([ids])).logits[0, ids.index(MASK)]
    return [str(tokenizer.id_to_token(at)) for at in scores.topk(count).indices.tolist()]


def save(model: BertForMaskedLM, tokenizer: tokenizers.Tokenizer, positions: int, out: Path) -> int:
    """Write the model in half precision and its tokenizer; return the number of bytes."""
    with no_progress_bars():
        copy.deepcopy(model).half().save_pretrained(out)
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=positions,
        **dict(zip(names, SPECIAL, strict=True)),
    ).save_pretrained(out)
    files = [path for path in out.iterdir() if path.suffix != ".md"]
    for path in files:
        # The weights are written for their owner only, and a wheel keeps the mode.
        path.chmod(0o644)
    return sum(path.stat().st_size for path in files)


def unique_texts(documents: dict[str, list[str]]) -> list[str]:
    """Return the paragraphs of all documents in order, without duplicates."""
    return list(dict.fromkeys(text for found in documents.values() for text in found))


def load_split(seed: int) -> corpus.Split:
    """Return the corpus of the running Python, split by document."""
    return corpus.split({**corpus.topic_documents(), **corpus.module_documents()}, seed)


def run(settings: Settings, out: Path) -> dict[str, Any]:
    """Train, evaluate and write the model; return the content of metrics.json."""
    started, worked = time.perf_counter(), time.process_time()
    parts = load_split(settings.seed)
    texts = unique_texts(parts.training)
    tokenizer = train_tokenizer(texts, settings.vocabulary)
    stream = [token for ids in encode(tokenizer, texts) for token in ids]
    model = new_model(settings, tokenizer.get_vocab_size(), stream)
    fit(model, batches(settings, texts, tokenizer), settings)
    baseline = baseline_of(tokenizer, stream)
    score = evaluate(model, tokenizer, unique_texts(parts.held_out), baseline)
    out.mkdir(parents=True, exist_ok=True)
    metrics: dict[str, Any] = {
        **score._asdict(),
        "top": tokenizer.id_to_token(baseline.token),
        "top_word": tokenizer.id_to_token(baseline.word),
        "bytes": save(model, tokenizer, settings.positions, out),
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "training_tokens": len(stream),
        "answers": {text: first_answers(model, tokenizer, text) for text in EXAMPLES},
        **_corpus_figures(parts),
        **_versions(),
        "settings": {**asdict(settings), "vocabulary": tokenizer.get_vocab_size()},
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(time.process_time() - worked, 1),
    }
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    (out / "MODEL_CARD.md").write_text(card.render(metrics), encoding="utf-8")
    return metrics


def _corpus_figures(parts: corpus.Split) -> dict[str, Any]:
    """Return the size of each part, and a digest for the comparison of two corpora."""
    figures: dict[str, Any] = {"held_out_one_in": corpus.HELD_OUT_ONE_IN}
    for name, documents in parts._asdict().items():
        texts = unique_texts(documents)
        figures[f"{name}_documents"] = len(documents)
        figures[f"{name}_words"] = sum(len(text.split()) for text in texts)
        figures[f"{name}_sha256"] = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    return figures


def _versions() -> dict[str, str]:
    """Return the versions that a run depends on."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "transformers": str(transformers.__version__),
        "tokenizers": str(tokenizers.__version__),
    }


def steps_within(minutes: float, settings: Settings) -> int:
    """Return the number of steps that fit into `minutes`, measured on a short run."""
    trial = replace(settings, steps=20)
    texts = unique_texts(corpus.topic_documents())
    tokenizer = train_tokenizer(texts, settings.vocabulary)
    stream = [token for ids in encode(tokenizer, texts) for token in ids]
    model = new_model(trial, settings.vocabulary, stream)
    source = batches(trial, texts, tokenizer)
    next(source)
    started = time.perf_counter()
    fit(model, source, trial)
    return max(1, int(60 * minutes * trial.steps / (time.perf_counter() - started)))


def _parser(base: Settings) -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m notebook_serve.demo.train", description="Train the demo model."
    )
    parser.add_argument("--out", type=Path, default=Path("demo_model"), help="folder to write")
    parser.add_argument("--seed", type=int, default=base.seed, help="seed of all random choices")
    parser.add_argument("--threads", type=int, default=base.threads, help="CPU threads")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, default=base.steps, help="training steps")
    length.add_argument(
        "--minutes",
        type=float,
        help="choose the steps by the speed of this machine; metrics.json holds the number",
    )
    return parser


def main(argv: Sequence[str] | None = None, base: Settings | None = None) -> int:
    """Train from the command line: write the files and print the figures."""
    base = base or Settings()
    options = _parser(base).parse_args(argv)
    settings = replace(base, seed=options.seed, steps=options.steps, threads=options.threads)
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        with torch.random.fork_rng(devices=[]):
            if options.minutes is not None:
                settings = replace(settings, steps=steps_within(options.minutes, settings))
            torch.manual_seed(settings.seed)
            metrics = run(settings, options.out)
    finally:
        torch.set_num_threads(threads)
    print(
        f"held-out accuracy {metrics['accuracy']:.1%}, unigram baseline {metrics['unigram']:.1%}, "
        f"{metrics['bytes'] / 1e6:.1f} MB, {metrics['seconds']:.0f} s, in {options.out}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
