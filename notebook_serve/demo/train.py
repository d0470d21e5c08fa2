"""Train the demo model from the text that every Python carries.

Run it as `python -m notebook_serve.demo.train --out DIR`. The number of steps is fixed, not the
time, so that one seed gives one model on one set of versions.
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

#: Inputs whose answers the model card shows; the corpus holds none of them.
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
    """What a training run depends on besides the corpus and the versions."""

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
    """What answers without a model: the most frequent token, and the most frequent word."""

    token: int
    word: int


class Score(NamedTuple):
    """Shares of right answers on masked positions, for all tokens and for whole words only."""

    evaluated: int
    accuracy: float
    unigram: float
    word_evaluated: int
    word_accuracy: float
    word_unigram: float


class Batch(NamedTuple):
    """Token ids, which of them are real, and the position of each."""

    ids: Tensor
    attention: Tensor
    places: Tensor


def train_tokenizer(texts: Sequence[str], size: int) -> tokenizers.Tokenizer:
    """A lowercase WordPiece tokenizer, like BERT's, of at most `size` pieces."""
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token=SPECIAL[UNK]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    # The trainer numbers inner letters in the order of a hash table, which differs by run, and
    # breaks ties by number; naming them up front makes the vocabulary repeatable.
    letters = sorted(set("".join(texts).lower()) - set(" "))
    named = SPECIAL + [f"##{letter}" for letter in letters]
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=named, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    pieces: dict[str, int] = tokenizer.get_vocab()
    return _assembled(pieces)


def _assembled(pieces: dict[str, int]) -> tokenizers.Tokenizer:
    """A lowercase WordPiece tokenizer of these pieces, with the five special tokens only."""
    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocab=pieces, unk_token=SPECIAL[UNK]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", SEP), ("[CLS]", CLS))
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def encode(tokenizer: tokenizers.Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """The token ids of each text, without the marks of its start and end."""
    return [found.ids for found in tokenizer.encode_batch(list(texts), add_special_tokens=False)]


def new_model(settings: Settings, size: int, stream: Sequence[int]) -> BertForMaskedLM:
    """An untrained model that starts where a small budget can lead somewhere.

    From the usual random start, trial runs of 800 steps still answered by frequency alone: the
    heads first have to find out that near tokens matter. Here they start out looking at near
    tokens, and the tokens start out with vectors from plain counts.
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
        _start_positions(model, settings)
        _start_words(model, torch.tensor(stream), settings)
        _start_calm(model)
    return model


def _start_positions(model: BertForMaskedLM, settings: Settings) -> None:
    """Give the positions waves, and let each head of the first layer look at one near token.

    Turning the waves by `distance` in the query, and not in the key, makes their product greatest
    where the key stands that many tokens away.
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
        turns = [_turn(rate * distance) for rate in rates.tolist()]
        attention.query.weight[rows, :size] += 1.2 * torch.block_diag(*turns)
        attention.key.weight[rows, :size] += 1.2 * torch.eye(size)


def _start_words(model: BertForMaskedLM, stream: Tensor, settings: Settings) -> None:
    """Give each token a vector near those of its usual neighbours, and its frequency as a bias."""
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


def _start_calm(model: BertForMaskedLM) -> None:
    """Let the first layer's attention be heard, and all that comes after it whisper.

    Sums of untrained layers are noise that hides the neighbours' words: in trial runs of 200 steps
    four plain layers learned nothing from the words around the mask, and these did.
    """
    model.cls.predictions.transform.LayerNorm.weight.fill_(0.3)
    for number, layer in enumerate(model.bert.encoder.layer):
        gain = 0.1 if number else 2.5
        layer.output.dense.weight *= 0.1
        layer.attention.output.dense.weight *= gain
        layer.attention.self.value.weight *= max(1.0, gain)


def _turn(angle: float) -> Tensor:
    """The matrix that moves the pair (sine, cosine) on by an angle."""
    sine, cosine = math.sin(angle), math.cos(angle)
    return torch.tensor([[cosine, sine], [-sine, cosine]])


def batches(
    settings: Settings, texts: Sequence[str], tokenizer: tokenizers.Tokenizer
) -> Iterator[Batch]:
    """Training batches without end: single sentences, windows, and windows of full length."""
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
    """Batches of single sentences of like length, half of them without their full stop."""
    while True:
        source.shuffle(lines)
        for at in range(0, len(lines), 1024):
            pool = sorted((ids[: settings.window - 2] for ids in lines[at : at + 1024]), key=len)
            cut = []
            while pool:
                count = max(1, settings.batch_tokens // (len(pool[-1]) + 2))
                cut.append([_unstopped(ids, source) for ids in pool[-count:]])
                del pool[-count:]
            source.shuffle(cut)
            yield from (_batch(rows, 0) for rows in cut)


def _unstopped(ids: list[int], source: random.Random) -> list[int]:
    """A sentence, or in every second case the sentence without its last token."""
    return ids[:-1] if len(ids) > 4 and source.random() < 0.5 else ids


def _windows(stream: list[int], length: int, settings: Settings, source: random.Random) -> Batch:
    """Windows cut from the running text, placed anywhere within the model's positions."""
    size = min(length - 2, len(stream))
    count = max(1, settings.batch_tokens // length)
    starts = [source.randrange(len(stream) - size + 1) for _ in range(count)]
    rows = [stream[start : start + size] for start in starts]
    return _batch(rows, source.randrange(settings.positions - size - 1))


def _batch(rows: Sequence[Sequence[int]], offset: int) -> Batch:
    """Rows of token ids with their start and end marks, padded, at positions from `offset`."""
    width = max(map(len, rows)) + 2
    padded = [[CLS, *row, SEP] + [PAD] * (width - 2 - len(row)) for row in rows]
    ids = torch.tensor(padded)
    return Batch(ids, (ids != PAD).long(), torch.arange(offset, offset + width)[None, :])


def mask(ids: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Ids with a random share of the real tokens masked, and where; at least one per row."""
    chances = torch.rand(ids.shape, generator=generator)
    chances[ids < len(SPECIAL)] = 2.0
    chosen = (chances < share) | (chances == chances.min(dim=1, keepdim=True).values)
    chosen &= chances < 2.0
    return ids.masked_fill(chosen, MASK), chosen


def scores_at(model: BertForMaskedLM, batch: Batch, masked: Tensor, chosen: Tensor) -> Tensor:
    """The scores of all tokens at the chosen places; the head runs on these only."""
    states = model.bert(
        masked, attention_mask=batch.attention, position_ids=batch.places
    ).last_hidden_state
    scores: Tensor = model.cls(states[chosen])
    return scores


def rate_at(step: int, steps: int) -> float:
    """The share of the peak learning rate at a step: a linear rise, then half a cosine."""
    warmup = max(1, steps // 12)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))


def fit(model: BertForMaskedLM, source: Iterator[Batch], settings: Settings) -> None:
    """Train a model in place for the set number of steps."""
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
    """For each token id, whether it stands for a whole word and not a part, a mark or a digit."""
    size = tokenizer.get_vocab_size()
    return torch.tensor([str(tokenizer.id_to_token(at)).isalpha() for at in range(size)])


def baseline_of(tokenizer: tokenizers.Tokenizer, stream: Sequence[int]) -> Baseline:
    """The baseline that the training tokens give."""
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
    """How often the first answer is right where 15 % of the tokens of each text are masked."""
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
    """The shares of right answers, all and where the truth is a whole word."""
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
    """The likeliest words for the mask in a text."""
    ids = tokenizer.encode(text).ids
    with torch.no_grad():
        scores = model(torch.tensor([ids])).logits[0, ids.index(MASK)]
    return [str(tokenizer.id_to_token(at)) for at in scores.topk(count).indices.tolist()]


def save(model: BertForMaskedLM, tokenizer: tokenizers.Tokenizer, positions: int, out: Path) -> int:
    """Write the model in half precision and its tokenizer; the number of bytes written."""
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
        # The weights come out readable by their writer alone, and a wheel keeps that.
        path.chmod(0o644)
    return sum(path.stat().st_size for path in files)


def unique_texts(documents: dict[str, list[str]]) -> list[str]:
    """The paragraphs of all documents in order, each once."""
    return list(dict.fromkeys(text for found in documents.values() for text in found))


def load_split(seed: int) -> corpus.Split:
    """The corpus of the running Python, split by document."""
    return corpus.split({**corpus.topic_documents(), **corpus.module_documents()}, seed)


def run(settings: Settings, out: Path) -> dict[str, Any]:
    """Do all of it: corpus, tokenizer, training, evaluation, files; the content of metrics.json."""
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
    """How much text each part holds, and a digest that tells whether two corpora are equal."""
    figures: dict[str, Any] = {"held_out_one_in": corpus.HELD_OUT_ONE_IN}
    for name, documents in parts._asdict().items():
        texts = unique_texts(documents)
        figures[f"{name}_documents"] = len(documents)
        figures[f"{name}_words"] = sum(len(text.split()) for text in texts)
        figures[f"{name}_sha256"] = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    return figures


def _versions() -> dict[str, str]:
    """The versions that a run depends on."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "transformers": str(transformers.__version__),
        "tokenizers": str(tokenizers.__version__),
    }


def steps_within(minutes: float, settings: Settings) -> int:
    """How many steps this machine makes in some minutes, measured on a few."""
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
    """The command line of this script."""
    parser = argparse.ArgumentParser(
        prog="python -m notebook_serve.demo.train", description="Train the demo model."
    )
    parser.add_argument("--out", type=Path, default=Path("demo_model"), help="folder to write")
    parser.add_argument("--seed", type=int, default=base.seed, help="decides all random choices")
    parser.add_argument("--threads", type=int, default=base.threads, help="CPU threads")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, default=base.steps, help="training steps")
    length.add_argument(
        "--minutes",
        type=float,
        help="choose the steps by this machine's speed; metrics.json tells the number",
    )
    return parser


def main(argv: Sequence[str] | None = None, base: Settings | None = None) -> int:
    """The command line: train, write the files, and print the figures."""
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
