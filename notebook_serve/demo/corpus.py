"""The training text: documentation that every Python includes, split into paragraphs.

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

#: packages with docstrings about test cases, generated code or old copies of the grammar
LEFT_OUT = frozenset({"test", "tests", "idle_test", "lib2to3", "turtledemo", "site-packages"})

#: one document in this many is held out, before repeated text is dropped from it
HELD_OUT_ONE_IN = 15

#: a held-out paragraph is dropped if it shares this many consecutive words with training text
SHINGLE = 10

MASK = "[MASK]"

_Documents = dict[str, list[str]]
_WORD = re.compile(r"[a-z]{3,}[,.;]?")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_DEFINITIONS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class Split(NamedTuple):
    """Two parts of the corpus that share no document."""

    training: _Documents
    held_out: _Documents


def paragraphs(text: str) -> list[str]:
    """Return the prose paragraphs of a text, one line each, without code, tables and grammars."""
    found = []
    for block in re.split(r"\n\s*\n", text):
        lines = [line.strip() for line in block.splitlines()]
        prose = " ".join(line for line in lines if not line.startswith((">>>", "...")))
        prose = " ".join(re.sub(r"[`*]+|[-=~^_+]{3,}", " ", prose).split())
        if _is_prose(prose):
            found.append(prose)
    return found


def _is_prose(text: str) -> bool:
    """Return True for at least four words and 85 % letters and spaces."""
    if len(re.findall(r"[A-Za-z]{2,}", text)) < 4:
        return False
    plain = sum(character.isalpha() or character == " " for character in text)
    return text.isascii() and plain / len(text) >= 0.85


def sentences_of(paragraph: str) -> list[str]:
    """Return the sentences of a paragraph with at least three words."""
    return [part for part in _SENTENCE_END.split(paragraph) if part.count(" ") >= 2]


@lru_cache(maxsize=1)
def topic_documents() -> _Documents:
    """Return the paragraphs of each help topic of the running Python, by name."""
    from pydoc_data import topics

    texts: dict[str, str] = topics.topics
    return _documents((f"topic:{name}", texts[name]) for name in sorted(texts))


def module_documents() -> _Documents:
    """Return the paragraphs of the docstrings of each standard-library module, by name."""
    pairs = [(f"module:{name}", _docstrings_of(path)) for name, path in _sources()]
    # These two are written in C and loaded in every Python, so nothing is executed.
    pairs += [
        (f"builtin:{module.__name__}:{name}", text)
        for module in (builtins, sys)
        for name, text in _members(module)
    ]
    return _documents(pairs)


def _documents(pairs: Iterable[tuple[str, str]]) -> _Documents:
    """Split named texts into paragraphs; drop texts without prose."""
    documents = {name: paragraphs(text) for name, text in pairs}
    return {name: found for name, found in documents.items() if found}


def _sources() -> Iterator[tuple[str, Path]]:
    """Yield the dotted name and the file of each standard-library module written in Python."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for top in sorted(sys.stdlib_module_names - LEFT_OUT):
        package = sorted((root / top).rglob("*.py")) if (root / top).is_dir() else []
        for path in [root / f"{top}.py", *package]:
            parts = path.relative_to(root).with_suffix("").parts
            if path.is_file() and LEFT_OUT.isdisjoint(parts) and top != "pydoc_data":
                yield ".".join(parts), path


def _docstrings_of(path: Path) -> str:
    """Return all docstrings of one source file; an empty string if it does not parse."""
    try:
        with warnings.catch_warnings():
            # Newer parsers warn about escapes in old source; the text is the same.
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return ""
    nodes = (node for node in ast.walk(tree) if isinstance(node, _DEFINITIONS))
    return "\n\n".join(filter(None, (ast.get_docstring(node) for node in nodes)))


def _members(module: types.ModuleType) -> Iterator[tuple[str, str]]:
    """Yield the name and the docstrings of each public member of a loaded module."""
    for name, member in sorted(vars(module).items()):
        if name.startswith("_") or not (inspect.isclass(member) or inspect.isbuiltin(member)):
            continue
        inner = sorted(vars(member).items()) if inspect.isclass(member) else []
        texts = [member.__doc__, *(value.__doc__ for _, value in inner if callable(value))]
        yield name, "\n\n".join(text for text in texts if text)


def is_held_out(name: str, seed: int) -> bool:
    """Return True if a document is held out, by a hash of its name and the seed."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % HELD_OUT_ONE_IN == 0


def split(documents: _Documents, seed: int) -> Split:
    """Split the corpus by document, and drop held-out text that the training part contains.

    Topics quote each other and modules copy docstrings. With a split by document alone, the model
    would be tested on text that it was trained on.
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
    """Yield each run of `SHINGLE` lowercase words, or a shorter text as one run."""
    words = re.findall(r"[a-z0-9]+", text.lower())
    for start in range(max(1, len(words) - SHINGLE + 1)):
        yield tuple(words[start : start + SHINGLE])


def masked_sentences(n: int, seed: int, min_words: int, max_words: int) -> list[str]:
    """Cut `n` inputs from the help topics, of log-normal lengths around twenty words."""
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
    """Return the words of all topics in order, and the indices where sentences start."""
    stream: list[str] = []
    starts: list[int] = []
    for found in topic_documents().values():
        for sentence in (part for text in found for part in _SENTENCE_END.split(text)):
            starts.append(len(stream))
            stream += sentence.lower().split()
    return stream, starts
