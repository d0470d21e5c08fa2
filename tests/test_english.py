"""English of the package: a request is a thing, and a docstring starts with a verb or a noun."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from .helpers.english import (
    DOCSTRING_RULE,
    PRONOUN_RULE,
    Finding,
    bad_docstrings,
    bad_start,
    pronouns,
    sources,
)
from .helpers.imports import OWN

ROOT = OWN.root.parent
FILES = sources(OWN.root)
PYTHON = [path for path in FILES if path.suffix == ".py"]
PAGES = sorted(
    path
    for pattern in ("*.md", ".github/*.md", "notebook_serve/**/README.md", "tests/**/README.md")
    for path in ROOT.glob(pattern)
)
#: pronouns that no page needs, other than to quote them; other pronouns may be of people there
NEVER_IN_PAGES = re.compile(r'(?<!["`])\b(?:nobody|somebody|whom)\b(?!["`])', re.IGNORECASE)


def check(findings: Iterable[Finding], rule: str) -> None:
    """Fail with the rule and all places where it does not hold."""
    lines = [str(found._replace(path=found.path.relative_to(ROOT))) for found in findings]
    if lines:
        pytest.fail("\n".join([f"{rule}:", *lines]), pytrace=False)


def test_no_thing_is_a_person() -> None:
    """Docstrings, comments, strings and names of the package have no pronoun of a person."""
    check((found for path in FILES for found in pronouns(path)), PRONOUN_RULE)


def test_docstrings_start_with_a_verb_or_a_noun() -> None:
    """The first word says what a function does or what a value is."""
    check((found for path in PYTHON for found in bad_docstrings(path)), DOCSTRING_RULE)


def test_pages_name_requests() -> None:
    """The pages have none of the pronouns that are hardly ever of a person."""
    check((found for path in PAGES for found in pronouns(path, NEVER_IN_PAGES)), PRONOUN_RULE)


@pytest.mark.parametrize(
    "docstring",
    [
        "Return the sum.",
        "Process the batch.",
        "Seconds until the next batch.",
        "Seconds that a batch takes.",
        "A server.",
        "The oldest job.",
        "Two policies, one after the other.",
        "`Server` in a thread.",
        "Itemise the costs.",
        "Pass the answer on.",
    ],
)
def test_a_start_that_is_right(docstring: str) -> None:
    """A command, a noun phrase, a name."""
    assert bad_start(docstring) == ""


@pytest.mark.parametrize(
    ("docstring", "start"),
    [
        ("What a batch costs.", "What"),
        ("Whether it has started.", "Whether"),
        ("It waits.", "It"),
        ("Nobody waits.", "Nobody"),
        ("As JSON has it.", "As"),
        ("By its path.", "By"),
        ("Is it open?", "Is"),
        ("Returns the sum.", "Returns the"),
        ("Counts a model's forwards.", "Counts a"),
    ],
)
def test_a_start_that_is_wrong(docstring: str, start: str) -> None:
    """A question, a pronoun, a preposition, a verb in the third person."""
    assert bad_start(docstring) == start


def test_pronouns_are_found_wherever_they_stand(tmp_path: Path) -> None:
    """In prose, strings and names; not as a part of another word, and not in minified scripts."""
    page = tmp_path / "page.js"
    page.write_text(
        "// Nobody waits.\n"
        "const wholeWhose = 'the whole';\n"
        "nobody_waits(`who asks`);\n"
        "tellEveryone(sometimes);\n",
        "utf-8",
    )
    (tmp_path / "chart.min.js").write_text("// who\n", "utf-8")
    (tmp_path / "notes.txt").write_text("who\n", "utf-8")

    assert sources(tmp_path) == [page]
    assert [(found.line, found.words) for found in pronouns(page)] == [
        (1, "Nobody"),
        (3, "nobody"),
        (3, "who"),
        (4, "Everyone"),
    ]


def test_a_page_may_quote_a_pronoun(tmp_path: Path) -> None:
    """A rule can name the words that it forbids."""
    page = tmp_path / "README.md"
    page.write_text('Never "whom" or `nobody`.\nNobody waits.\n', "utf-8")

    assert [found.line for found in pronouns(page, NEVER_IN_PAGES)] == [2]


def test_every_docstring_is_looked_at(tmp_path: Path) -> None:
    """Those of the module, of classes, of methods and of private and nested functions."""
    path = tmp_path / "module.py"
    path.write_text(
        '"""How it works."""\n'
        "class _Part:\n"
        '    """What a part is."""\n'
        "    async def run(self):\n"
        '        """Whether it ran."""\n'
        "        def inner():\n"
        '            """Runs the rest."""\n'
        "def good():\n"
        '    """Return nothing."""\n',
        "utf-8",
    )
    assert sorted((found.line, found.words) for found in bad_docstrings(path)) == [
        (1, "docstring of the module starts with 'How'"),
        (3, "docstring of `_Part` starts with 'What'"),
        (5, "docstring of `run` starts with 'Whether'"),
        (7, "docstring of `inner` starts with 'Runs the'"),
    ]
