"""The model card, rendered from the figures of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TEXT = """\
# Demo model of notebook_serve

A fill-mask model that is small enough to ship. With it the first command of the README answers
without a download, and benchmarks and notebooks have a real model to serve.

## Data

The help topics of `pydoc_data.topics` and the docstrings of the standard library, from the running
Python (here {python}). Source files are parsed, never imported. Code, tables and grammars are
dropped.

| part | documents | words |
|---|---|---|
| training | {training_documents} | {training_words:,} |
| held out | {held_out_documents} | {held_out_words:,} |

A document is one topic, one module, or one built-in name. A hash of its name and the seed decides
whether it is held out, one in {held_out_one_in}. A held-out paragraph is dropped if it shares ten
consecutive words with the training text, because topics quote each other and modules copy
docstrings.

## Architecture

`BertForMaskedLM`: {layers} layers, width {hidden}, {heads} heads, inner width {inner},
{positions} positions, {vocabulary:,} lowercase WordPiece tokens, {parameters:,} parameters.
The weights are stored in half precision ({megabytes:.1f} MB with the tokenizer) and used in single
precision. The initial weights are not random: token vectors start from counts of neighbours, and
the heads of the first layer start with attention to near tokens. From random weights, trial runs of
800 steps still answered by frequency alone.

## Figures

Share of masked positions with a correct first answer, on the held-out documents, with 15 % of the
tokens replaced by `[MASK]`. The baseline always answers the most frequent training token, `{top}`.

| positions | number | model | unigram baseline | ratio |
|---|---|---|---|---|
| all tokens | {evaluated:,} | {accuracy:.1%} | {unigram:.1%} | {ratio:.1f} |
| words only | {word_evaluated:,} | {word_accuracy:.1%} | {word_unigram:.1%} | {word_ratio:.1f} |

In the second row, pieces of words, numbers and punctuation do not count, and the baseline answers
the most frequent word, `{top_word}`.

First answers of the model to inputs that the corpus does not contain:

| input | answers |
|---|---|
{answers}

## How to repeat

    python -m notebook_serve.demo.train --out DIR --seed {seed} --steps {steps}

It took {minutes:.1f} minutes ({cpu_minutes:.1f} minutes of CPU time) for {steps:,} steps on
{threads} CPU threads, with Python {python}, torch {torch}, transformers {transformers} and
tokenizers {tokenizers}. The corpus depends on the version of Python, and arithmetic varies a bit
between machines. So on other machines the figures are close to these, but not equal. `metrics.json`
holds them all.

## Limits

It knows the words of Python's documentation and little else. It knows no facts, and it was trained
on English only. Use it for demonstrations only.

## Licence

The weights are under the Apache License 2.0. They were trained on text of the Python distribution,
which is under the PSF License.
"""


def render(metrics: Mapping[str, Any]) -> str:
    """Render the model card from the content of `metrics.json`."""
    answers = "\n".join(
        f"| `{text}` | {', '.join(f'`{word}`' for word in words)} |"
        for text, words in metrics["answers"].items()
    )
    derived = {
        "answers": answers,
        "minutes": metrics["seconds"] / 60,
        "cpu_minutes": metrics["cpu_seconds"] / 60,
        "megabytes": metrics["bytes"] / 1e6,
        "ratio": metrics["accuracy"] / metrics["unigram"] if metrics["unigram"] else 0.0,
        "word_ratio": (
            metrics["word_accuracy"] / metrics["word_unigram"] if metrics["word_unigram"] else 0.0
        ),
    }
    return _TEXT.format(**{**metrics, **metrics["settings"], **derived})
