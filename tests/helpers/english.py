"""Rules of English that a program can hold: no pronoun of a person, and how docstrings start."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PRONOUNS = (
    *("who", "whom", "whoever", "whomever", "nobody", "somebody", "anybody", "everybody"),
    *("no one", "someone", "anyone", "everyone"),
)
PRONOUN_RULE = (
    "a request, a client, a thread is a thing: name it instead of using a pronoun of a person"
)
DOCSTRING_RULE = (
    "start a docstring with a verb in the imperative ('Return ...', 'Return True if ...') or, for "
    "a value, a class or a module, with a noun ('Seconds until ...')"
)
#: words of closed classes, with which neither a command nor a noun phrase starts
CLOSED_CLASSES = {
    "question": "what whatever whether how who whom whose where wherever when whenever why which",
    "pronoun": "it its itself they their theirs them he she we you that those there nothing none "
    "something anything everything nobody somebody anybody everybody",
    "auxiliary verb": "is are was were has had does did can could may might must shall should will "
    "would",
    "conjunction": "if unless until while once because since although as than so and or but nor",
    "preposition": "of by in on at to from for with without into onto over under beside "
    "besides between among after before about against during through per upon within",
}
NO_START = {word: kind for kind, words in CLOSED_CLASSES.items() for word in words.split()}
#: a verb in the third person with its object, such as "Returns the sum"
THIRD_PERSON = re.compile(
    r"[A-Z][a-z]+(?<![su])s (?:the|an?|it|this|each|every|all|any|whether|what)\b"
)
_PRONOUN = re.compile(rf"(?<![A-Za-z])(?:{'|'.join(PRONOUNS)})(?![A-Za-z])", re.IGNORECASE)
#: where a name in camel case has its parts
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")
#: kinds of source files; what ends with the last is not ours
SUFFIXES, MINIFIED = (".py", ".js", ".html", ".css"), ".min.js"


class Finding(NamedTuple):
    """A place where a rule does not hold."""

    path: Path
    line: int
    words: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.words}"


def sources(root: Path) -> list[Path]:
    """Return the source files below a folder: Python, JavaScript, HTML and CSS."""
    paths = (path for path in root.rglob("*") if path.suffix in SUFFIXES)
    return sorted(path for path in paths if not path.name.endswith(MINIFIED))


def pronouns(path: Path, pattern: re.Pattern[str] = _PRONOUN) -> list[Finding]:
    """Return the pronouns of persons in a file: in its prose, its strings and its names."""
    lines = path.read_text("utf-8").splitlines()
    found = []
    for number, line in enumerate(lines, 1):
        # A pronoun of two words may be broken over two lines, which is not looked for.
        found += [Finding(path, number, hit[0]) for hit in pattern.finditer(_HUMP.sub("_", line))]
    return found


def bad_docstrings(path: Path) -> list[Finding]:
    """Return the docstrings of a file that start as no docstring should."""
    return [
        Finding(path, line, f"docstring of {name} starts with {start!r}")
        for name, line, docstring in docstrings(ast.parse(path.read_text("utf-8")))
        if (start := bad_start(docstring))
    ]


def docstrings(tree: ast.Module) -> Iterator[tuple[str, int, str]]:
    """Yield name, line and text of each docstring in a module."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            docstring = ast.get_docstring(node)
            if docstring:
                name = "the module" if isinstance(node, ast.Module) else f"`{node.name}`"
                yield name, node.body[0].lineno, docstring


def bad_start(docstring: str) -> str:
    """Return the words that a docstring must not start with, or nothing."""
    first = re.match(r"\w+", docstring)
    if first and first[0].lower() in NO_START:
        return first[0]
    verb = THIRD_PERSON.match(docstring)
    return verb[0] if verb else ""
