"""Generated text: decoding token by token, stop strings, and the stopping criterion."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from notebook_serve.models.generation import (
    GeneratedSequence,
    GenerationWatch,
    IncrementalDecoder,
    Piece,
    Prompt,
    StopFilter,
    trim_sequence,
)

from ..helpers import small_models

TEXT = "the queue waits, and so do we: grün, naïve, 東京, 👩🏽‍🚀 and 🙂. Don't!\n\tNew line"


@cache
def tokenizer(kind: str) -> Any:
    """Return a tokenizer of one of the usual kinds."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    if kind == "words":
        return copy.deepcopy(small_models.tokenizer())
    special = ["<s>", "</s>", "<unk>"]
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=kind == "pieces"))
    if kind == "bytes":
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        made.decoder = decoders.Sequence(
            [
                decoders.Replace("▁", " "),
                decoders.ByteFallback(),
                decoders.Fuse(),
                decoders.Strip(" ", 1, 0),
            ]
        )
        alphabet = []
        special += [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(["the queue waits and so do we", "a batch, a model"] * 5, trainer)
    if kind == "pieces":
        # Build it again, so that bytes are ordinary tokens.
        parts = json.loads(made.to_str())
        learned = {**parts["model"], "merges": [tuple(pair) for pair in parts["model"]["merges"]]}
        names = ("vocab", "merges", "unk_token", "byte_fallback")
        made.model = models.BPE(**{name: learned[name] for name in names})
        parts = {**json.loads(made.to_str()), "added_tokens": []}
        made = Tokenizer.from_str(json.dumps(parts))
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def parts_of(kind: str, tokens: Sequence[int]) -> tuple[list[str], str]:
    """Decode tokens one by one; return the parts and the text of all tokens."""
    known = tokenizer(kind)

    def decode(ids: list[int]) -> str:
        return str(known.decode(ids, skip_special_tokens=True))

    decoder = IncrementalDecoder(decode)
    return [decoder.add(token) for token in tokens], decode(list(tokens))


# -- tokens to text -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bytes", "pieces", "words"])
def test_the_parts_are_the_text(kind: str) -> None:
    """For each kind of tokenizer the parts join to the text."""
    ids = tokenizer(kind)(TEXT, add_special_tokens=False)["input_ids"]
    parts, whole = parts_of(kind, ids)
    assert "".join(parts) == whole
    assert len(parts) > 20


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
def test_half_a_character_is_not_shown(kind: str) -> None:
    """A character of several tokens is returned with the last of them."""
    ids = tokenizer(kind)("a 🙂 b", add_special_tokens=False)["input_ids"]
    parts, whole = parts_of(kind, ids)
    assert "".join(parts) == whole == "a 🙂 b"
    assert not any("\ufffd" in part for part in parts)
    assert "" in parts


@pytest.mark.parametrize("kind", ["bytes", "pieces", "words"])
@given(data=st.data())
def test_any_tokens_begin_the_text(kind: str, data: st.DataObject) -> None:
    """For random tokens the parts are a prefix of the text."""
    size = len(tokenizer(kind))
    tokens = data.draw(st.lists(st.integers(0, size - 1), max_size=30))
    parts, whole = parts_of(kind, tokens)
    assert whole.startswith("".join(parts)) or "\ufffd" in whole


# -- stop strings ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stops", "given", "shown", "found"),
    [
        ([], ["ab", "c"], ["ab", "c"], False),
        ([""], ["ab", ""], ["ab", ""], False),
        (["x"], ["ab", "cxd", "e"], ["ab", "c", ""], True),
        (["xyz"], ["ax", "y", "z!"], ["a", "", ""], True),
        (["xyz"], ["ax", "yq", "x"], ["a", "xyq", ""], False),
        (["aab"], ["aa", "ab"], ["", "a"], True),
        (["bc", "ab"], ["x", "abc"], ["x", ""], True),
        (["abc", "bd"], ["ab", "d"], ["", "a"], True),
        (["longer than all"], ["lo", "ng"], ["", ""], False),
    ],
)
def test_a_possible_beginning_of_a_stop_string_is_held_back(
    stops: list[str], given: list[str], shown: list[str], found: bool
) -> None:
    """Text is returned once it cannot be part of a stop string, and none after one."""
    stop_filter = StopFilter(stops)
    assert [stop_filter.add(part) for part in given] == shown
    assert stop_filter.found is found
    if not found:
        assert "".join(shown) + stop_filter.end() == "".join(given)
    assert stop_filter.end() == ""


@given(
    st.lists(st.text("ab", max_size=3), max_size=12),
    st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
)
def test_parts_are_cut_where_the_whole_would_be(parts: list[str], stops: list[str]) -> None:
    """For any split into parts, the text ends before the first complete stop string."""
    stop_filter = StopFilter(stops)
    shown = "".join(stop_filter.add(part) for part in parts) + stop_filter.end()
    text = "".join(parts)
    assert text.startswith(shown)
    assert stop_filter.found is any(stop in text for stop in stops)
    assert not any(stop in shown for stop in stops)
    if not stop_filter.found:
        assert shown == text


def letters(tokens: Sequence[int]) -> str:
    """Return letters for tokens by their number; 0 is no text."""
    return "".join(chr(96 + token) for token in tokens if token)


@pytest.mark.parametrize(
    ("tokens", "stops", "expected"),
    [
        ([1, 2, 3], (), GeneratedSequence("abc", (1, 2, 3), "length")),
        ([1, 2, 9], (), GeneratedSequence("abi", (1, 2, 9), "end")),
        ([1, 9, 9, 0], (), GeneratedSequence("ai", (1, 9), "end")),
        ([1, 2, 3, 4], ("bc",), GeneratedSequence("abc", (1, 2, 3), "stop")),
        ([1, 2, 9, 2, 3], ("bc",), GeneratedSequence("abi", (1, 2, 9), "end")),
        ([1, 2], ("bc",), GeneratedSequence("ab", (1, 2), "length")),
        ([], ("a",), GeneratedSequence("", (), "length")),
    ],
)
def test_a_sequence_is_trimmed_to_its_end(
    tokens: list[int], stops: tuple[str, ...], expected: GeneratedSequence
) -> None:
    """The sequence ends with an end token or at a stop string; padding is dropped."""
    assert trim_sequence(Prompt("x", stops), tokens, {9}, letters) == expected


# -- the stopping criterion -----------------------------------------------------------------


def rows(*tokens: Sequence[int]) -> Any:
    """Return rows of tokens as ``generate`` passes them."""
    return torch.tensor(tokens)


def test_each_token_is_passed_on_once() -> None:
    """Tokens of the prompt are not emitted; several new tokens at once are."""
    pieces: list[Piece] = []
    watch = GenerationWatch([Prompt("x", emit=pieces.append)], 2, letters, {0})
    assert watch(rows([5, 5, 1]), None).tolist() == [False]
    assert watch(rows([5, 5, 1, 0, 2]), None).tolist() == [False]
    assert pieces == [Piece(1, "a", False), Piece(0, "", True), Piece(2, "b", False)]


def test_a_row_is_over_at_a_stop_string_or_when_its_prompt_ends() -> None:
    """Rows are independent; a row without a prompt never ends here."""
    prompts = [Prompt("x", ["bc"]), Prompt("y"), None]
    watch = GenerationWatch(prompts, 0, letters, ())
    assert watch(rows([2], [2], [2]), None).tolist() == [False, False, False]
    assert watch(rows([2, 3], [2, 3], [2, 3]), None).tolist() == [True, False, False]
    prompts[1].end()  # type: ignore[union-attr]
    assert watch(rows([2, 3, 4], [2, 3, 4], [2, 3, 4]), None).tolist() == [True, True, False]


def test_several_sequences_of_a_prompt_are_rows_beside_each_other() -> None:
    """Each row stops alone, and all are over once the prompt ends."""
    first, second = Prompt("x", ["b"]), Prompt("y")
    watch = GenerationWatch([first, second], 0, letters, ())
    assert watch(rows([1], [2], [2], [2]), None).tolist() == [False, True, False, False]
    first.end()
    assert watch(rows([1, 1], [2, 1], [2, 1], [2, 1]), None).tolist() == [True, True, False, False]


@pytest.mark.parametrize("seed", range(3))
def test_prompts_of_every_kind_share_a_batch_and_answer_as_alone(seed: int) -> None:
    """Plain texts and prompts, with and without stop strings, in random batches."""
    from notebook_serve.models.text import TextPipeline

    pipe = small_models.pipeline("text-generation")
    model = TextPipeline(pipe)
    rng = random.Random(seed)
    options = {"do_sample": False, "max_new_tokens": 12}
    texts = small_models.inputs("text-generation", 12, seed=seed, most=8)
    inputs: list[Any] = []
    for text in texts:
        stop = rng.choice(["", " " + rng.choice(small_models.WORDS), "e", "##"])
        inputs.append(rng.choice([text, Prompt(text), Prompt(text, [stop])]))

    def answers(batch: Sequence[Any]) -> list[Any]:
        items = [model.prepare(item, options) for item in batch]
        assert len({item.group for item in items}) == 1
        made = model.run(items)
        return [model.finish(*pair) for pair in zip(items, made, strict=True)]

    alone = [answers([item])[0] for item in inputs]
    assert answers(inputs) == alone
    for item, answer in zip(inputs, alone, strict=True):
        if isinstance(item, str):
            assert answer == pipe(item, **options)
        elif not any(item.stops):
            (one,) = answer
            assert (
                one.text
                == pipe(item.inputs, return_full_text=False, **options)[0]["generated_text"]
            )
        else:
            (one,) = answer
            assert (item.stops[0] in one.text) is (one.reason == "stop")
