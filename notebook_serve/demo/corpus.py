"""The text every Python carries, as documents split into paragraphs.

Two sources: the help topics of `pydoc_data.topics`, and the docstrings of the standard library's
source files, which are parsed and never imported. Nothing here needs torch or transformers.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import inspect
import math
import random
import re
import sys
import sysconfig
import types
import warnings
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

#: Packages whose docstrings are about test cases, generated code or old copies of the grammar.
LEFT_OUT = frozenset({"test", "tests", "idle_test", "lib2to3", "turtledemo", "site-packages"})

#: One document in this many is held out, before repeated text is dropped from it.
HELD_OUT_ONE_IN = 15

#: A held-out paragraph that shares this many words in a row with the training text is dropped.
SHINGLE = 10

MASK = "[MASK]"

_Documents = dict[str, list[str]]
_WORD = re.compile(r"[a-z]{3,}[,.;]?")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_DEFINITIONS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class Split(NamedTuple):
    """The corpus in two parts that share no document."""

    training: _Documents
    held_out: _Documents


def paragraphs(text: str) -> list[str]:
    """The prose paragraphs of a text, each on one line; code, tables and grammars are dropped."""
    found = []
    for block in re.split(r"\n\s*\n", text):
        lines = [line.strip() for line in block.splitlines()]
        prose = " ".join(line for line in lines if not line.startswith((">>>", "...")))
        prose = " ".join(re.sub(r"[`*]+|[-=~^_+]{3,}", " ", prose).split())
        if _is_prose(prose):
            found.append(prose)
    return found


def _is_prose(text: str) -> bool:
    """Whether at least four words are there and most characters are letters and spaces."""
    if len(re.findall(r"[A-Za-z]{2,}", text)) < 4:
        return False
    plain = sum(character.isalpha() or character == " " for character in text)
    return text.isascii() and plain / len(text) >= 0.85


def sentences_of(paragraph: str) -> list[str]:
    """The sentences of a paragraph that hold at least three words."""
    return [part for part in _SENTENCE_END.split(paragraph) if part.count(" ") >= 2]


@lru_cache(maxsize=1)
def topic_documents() -> _Documents:
    """The help topics of the running Python, by name, as paragraphs."""
    from pydoc_data import topics

    texts: dict[str, str] = topics.topics
    return _documents((f"topic:{name}", texts[name]) for name in sorted(texts))


def module_documents() -> _Documents:
    """The docstrings of the standard library, by module, as paragraphs."""
    pairs = [(f"module:{name}", _docstrings_of(path)) for name, path in _sources()]
    # These two are written in C and already loaded in every Python, so nothing is executed.
    pairs += [
        (f"builtin:{module.__name__}:{name}", text)
        for module in (builtins, sys)
        for name, text in _members(module)
    ]
    return _documents(pairs)


def _documents(pairs: Iterable[tuple[str, str]]) -> _Documents:
    """Named texts as named lists of paragraphs, without the texts that hold no prose."""
    documents = {name: paragraphs(text) for name, text in pairs}
    return {name: found for name, found in documents.items() if found}


def _sources() -> Iterator[tuple[str, Path]]:
    """The dotted name and the file of each standard-library module written in Python."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for top in sorted(sys.stdlib_module_names - LEFT_OUT):
        package = sorted((root / top).rglob("*.py")) if (root / top).is_dir() else []
        for path in [root / f"{top}.py", *package]:
            parts = path.relative_to(root).with_suffix("").parts
            if path.is_file() and LEFT_OUT.isdisjoint(parts) and top != "pydoc_data":
                yield ".".join(parts), path


def _docstrings_of(path: Path) -> str:
    """All docstrings of one source file; nothing where it does not parse."""
    try:
        with warnings.catch_warnings():
            # Old source holds escapes that newer parsers warn about; the text is the same.
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return ""
    nodes = (node for node in ast.walk(tree) if isinstance(node, _DEFINITIONS))
    return "\n\n".join(filter(None, (ast.get_docstring(node) for node in nodes)))


def _members(module: types.ModuleType) -> Iterator[tuple[str, str]]:
    """The name and the docstrings of each public member of a loaded module."""
    for name, member in sorted(vars(module).items()):
        if name.startswith("_") or not (inspect.isclass(member) or inspect.isbuiltin(member)):
            continue
        inner = sorted(vars(member).items()) if inspect.isclass(member) else []
        texts = [member.__doc__, *(value.__doc__ for _, value in inner if callable(value))]
        yield name, "\n\n".join(text for text in texts if text)


def is_held_out(name: str, seed: int) -> bool:
    """Whether a document is held out; its name and the seed decide, in every Python alike."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % HELD_OUT_ONE_IN == 0


def split(documents: _Documents, seed: int) -> Split:
    """The corpus split by document, and the held-out part freed of text that training also has.

    Topics quote each other and modules copy docstrings, so a split by document alone would ask
    the model for text it was shown.
    """
    training = {name: found for name, found in documents.items() if not is_held_out(name, seed)}
    seen = {piece for found in training.values() for text in found for piece in _shingles(text)}
    held_out = {}
    for name in documents.keys() - training.keys():
        fresh = [text for text in documents[name] if seen.isdisjoint(_shingles(text))]
        if fresh:
            held_out[name] = fresh
    return Split(training, dict(sorted(held_out.items())))


def _shingles(text: str) -> Iterator[tuple[str, ...]]:
    """Each run of `SHINGLE` words, without case and punctuation; a shorter text is one run."""
    words = re.findall(r"[a-z0-9]+", text.lower())
    for start in range(max(1, len(words) - SHINGLE + 1)):
        yield tuple(words[start : start + SHINGLE])


def masked_sentences(n: int, seed: int, min_words: int, max_words: int) -> list[str]:
    """Inputs cut from the help topics, of log-normal lengths around twenty words."""
    stream, starts = _topic_words()
    source = random.Random(seed)
    found: list[str] = []
    while len(found) < n:
        length = min(max_words, max(min_words, round(source.lognormvariate(math.log(20), 0.75))))
        start = source.choice(starts)
        words = stream[start : start + length]
        plain = [at for at, word in enumerate(words) if _WORD.fullmatch(word)]
        if plain and len(words) == length:
            at = source.choice(plain)
            words[at] = MASK + words[at][len(words[at].rstrip(",.;")) :]
            found.append(" ".join(words))
    return found


@lru_cache(maxsize=1)
def _topic_words() -> tuple[list[str], list[int]]:
    """The words of all topics in a row, and the places where a sentence starts."""
    stream: list[str] = []
    starts: list[int] = []
    for found in topic_documents().values():
        for sentence in (part for text in found for part in _SENTENCE_END.split(text)):
            starts.append(len(stream))
            stream += sentence.lower().split()
    return stream, starts
