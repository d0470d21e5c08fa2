"""The shipped model, its inputs, and the script that trains it."""

from __future__ import annotations

import builtins
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from notebook_serve import demo
from notebook_serve.demo import corpus

EXCEPTIONS = {
    name.lower()
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, BaseException)
}


@pytest.fixture(scope="module")
def pipe() -> Any:
    """Return the shipped pipeline."""
    return demo.pipeline()


@pytest.fixture(scope="module")
def metrics() -> dict[str, Any]:
    """Return the figures of the training run."""
    text = (demo.MODEL_FOLDER / "metrics.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.mark.parametrize("stop", ["", "."])
def test_readme_sentence(pipe: Any, stop: str) -> None:
    """The first sentence of the README has five answers, and the first is an exception."""
    answers = pipe(f"raise a [MASK] if the key is missing{stop}")
    assert len(answers) == 5
    assert all(set(one) == {"score", "token", "token_str", "sequence"} for one in answers)
    assert answers[0]["token_str"] in EXCEPTIONS
    assert answers[0]["sequence"].startswith(f"raise a {answers[0]['token_str']} if")


def test_pipeline_is_fresh(pipe: Any) -> None:
    """Each call returns a new pipeline in single precision, in eval mode, on the CPU."""
    other = demo.pipeline()
    assert other is not pipe
    assert other.model is not pipe.model
    assert not other.model.training
    assert {str(weight.dtype) for weight in other.model.parameters()} == {"torch.float32"}
    assert str(other.device) == "cpu"


def test_size() -> None:
    """All files of the model take less than eight megabytes."""
    sizes = [path.stat().st_size for path in demo.MODEL_FOLDER.rglob("*") if path.is_file()]
    assert sum(sizes) < 8_000_000


def test_import_is_light() -> None:
    """Importing the demo and creating inputs loads neither torch nor transformers."""
    code = (
        "import sys; from notebook_serve import demo; demo.sentences(3); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'tokenizers')))"
    )
    root = Path(demo.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, timeout=60, check=False)
    assert done.returncode == 0


def test_sentences(pipe: Any) -> None:
    """Inputs repeat by seed, have one mask each, vary in length, and fit the model."""
    texts = demo.sentences(1000, seed=3)
    assert texts == demo.sentences(1000, seed=3)
    assert texts != demo.sentences(1000, seed=4)
    assert {text.count("[MASK]") for text in texts} == {1}
    lengths = sorted(len(text.split()) for text in texts)
    assert lengths[0] >= 4
    assert lengths[50] <= 8
    assert 15 <= lengths[500] <= 25
    assert lengths[970] >= 60
    assert lengths[-1] <= 128
    assert max(map(len, pipe.tokenizer(texts)["input_ids"])) <= 512


def test_sentence_bounds() -> None:
    """Bounds on the number of words hold, and impossible bounds are rejected."""
    lengths = {len(text.split()) for text in demo.sentences(200, min_words=10, max_words=12)}
    assert lengths == {10, 11, 12}
    assert demo.sentences(0) == []
    for wrong in ({"min_words": 9, "max_words": 8}, {"max_words": 500}, {"min_words": 0}):
        with pytest.raises(ValueError, match="must satisfy"):
            demo.sentences(1, **wrong)
    with pytest.raises(ValueError, match="negative"):
        demo.sentences(-1)


def test_recorded_accuracy(metrics: dict[str, Any]) -> None:
    """The recorded held-out accuracy is three times the baseline's, in under twenty minutes."""
    assert metrics["accuracy"] >= 3 * metrics["unigram"]
    assert metrics["evaluated"] > 1000
    assert metrics["seconds"] < 20 * 60


def test_recomputed_accuracy(pipe: Any, metrics: dict[str, Any]) -> None:
    """The same holds for a few held-out documents of the running Python."""
    from notebook_serve.demo import train

    held_out = train.load_split(metrics["settings"]["seed"]).held_out
    texts = train.unique_texts(held_out)[:300]
    tokenizer = pipe.tokenizer.backend_tokenizer
    baseline = train.Baseline(
        *(tokenizer.token_to_id(metrics[name]) for name in ("top", "top_word"))
    )
    score = train.evaluate(pipe.model, tokenizer, texts, baseline)
    assert score.evaluated > 300
    assert score.accuracy >= 3 * score.unigram
    assert score.word_accuracy >= 2 * score.word_unigram


def test_long_inputs(pipe: Any) -> None:
    """The model is as accurate at its last positions as at its first ones."""
    import torch

    words = " ".join(
        text for found in corpus.topic_documents().values() for text in found if len(text) > 80
    )
    tokenizer = pipe.tokenizer
    stream = tokenizer.backend_tokenizer.encode(words, add_special_tokens=False).ids
    rows = torch.tensor([stream[at * 510 : (at + 1) * 510] for at in range(24)])
    chosen = torch.rand(rows.shape, generator=torch.Generator().manual_seed(0)) < 0.15
    with torch.no_grad():
        masked = rows.masked_fill(chosen, tokenizer.mask_token_id)
        edge = torch.ones(24, 1, dtype=torch.long)
        ids = torch.cat([edge * tokenizer.cls_token_id, masked, edge * tokenizer.sep_token_id], 1)
        right = pipe.model(input_ids=ids).logits[:, 1:-1].argmax(-1) == rows
    first, last = (right[:, part][chosen[:, part]] for part in (slice(0, 128), slice(382, 510)))
    assert last.float().mean() > 0.8 * first.float().mean()


def test_split_by_document() -> None:
    """No document is in both parts, and no held-out paragraph repeats training text."""
    documents = {f"topic:{number}": [f"paragraph {number} says {number}"] for number in range(300)}
    copied = next(name for name in documents if corpus.is_held_out(name, 0))
    documents[copied] = list(documents[next(n for n in documents if not corpus.is_held_out(n, 0))])
    parts = corpus.split(documents, 0)
    assert parts.training
    assert parts.held_out
    assert not parts.training.keys() & parts.held_out.keys()
    assert copied not in {*parts.training, *parts.held_out}
    assert parts.held_out.keys() != corpus.split(documents, 1).held_out.keys()


def test_real_split() -> None:
    """Most help topics are for training, some are held out, and none is in both parts."""
    parts = corpus.split(corpus.topic_documents(), 0)
    assert parts.held_out
    assert len(parts.training) > 10 * len(parts.held_out)
    assert not parts.training.keys() & parts.held_out.keys()


def test_paragraphs() -> None:
    """Paragraphs of prose become one line; code, rules and tables are dropped."""
    text = (
        "Return the sum\nof two numbers.\n\n>>> add(1, 2)\n3\n\n======\n\n"
        "a | b | c | d\n\n**Note** that `x` and y must be numbers."
    )
    assert corpus.paragraphs(text) == [
        "Return the sum of two numbers.",
        "Note that x and y must be numbers.",
    ]


def test_card_examples_are_unseen(metrics: dict[str, Any]) -> None:
    """The inputs of the model card are not in the corpus."""
    from notebook_serve.demo import train

    texts = [
        " ".join(re.findall(r"[a-z]+", text.lower()))
        for part in train.load_split(0)
        for text in train.unique_texts(part)
    ]
    assert tuple(metrics["answers"]) == train.EXAMPLES
    for example in train.EXAMPLES:
        pattern = re.compile(rf"\b{example}\b".replace("[MASK]", r"\w+"))
        assert not any(pattern.search(text) for text in texts)


def test_tokenizer_repeats() -> None:
    """Training the tokenizer twice gives the same tokenizer."""
    from notebook_serve.demo import train

    texts = train.unique_texts(corpus.topic_documents())[:500]
    assert train.train_tokenizer(texts, 700).to_str() == train.train_tokenizer(texts, 700).to_str()


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return settings for a training run of a second, on the help topics alone."""
    from notebook_serve.demo import train

    monkeypatch.setattr(corpus, "module_documents", dict)
    return train.Settings(
        vocabulary=600, hidden=48, layers=2, heads=3, inner=64, batch_tokens=256, window=64
    )


def test_training_script(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short run of the script writes a model that loads like the shipped one."""
    from notebook_serve.demo import train

    assert train.main(["--out", str(tmp_path), "--steps", "20", "--seed", "5"], tiny) == 0
    assert "held-out accuracy" in capsys.readouterr().out
    found = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert found["settings"]["steps"] == 20
    assert found["settings"]["seed"] == 5
    assert "--seed 5 --steps 20" in (tmp_path / "MODEL_CARD.md").read_text(encoding="utf-8")
    monkeypatch.setattr(demo, "MODEL_FOLDER", tmp_path)
    assert len(demo.pipeline()("raise a [MASK] if the key is missing")) == 5


def test_training_repeats(tiny: Any, tmp_path: Path) -> None:
    """The same seed gives the same weights, and another seed gives others."""
    from notebook_serve.demo import train

    for name, seed in (("one", "7"), ("two", "7"), ("other", "8")):
        train.main(["--out", str(tmp_path / name), "--steps", "5", "--seed", seed], tiny)
    weights = {
        name: (tmp_path / name / "model.safetensors").read_bytes()
        for name in ("one", "two", "other")
    }
    assert weights["one"] == weights["two"]
    assert weights["one"] != weights["other"]


def test_training_minutes(tiny: Any, tmp_path: Path) -> None:
    """With ``--minutes`` the number of steps follows from the speed, and is recorded."""
    from notebook_serve.demo import train

    train.main(["--out", str(tmp_path), "--minutes", "0.01"], tiny)
    found = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert 1 <= found["settings"]["steps"] < tiny.steps
