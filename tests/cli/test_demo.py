"""The demo: its output, its page, and the conclusions that it draws from its figures."""

from __future__ import annotations

import math
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from notebook_serve.cli.arguments import main
from notebook_serve.cli.demo import SAME, STEADY, Findings, Measurement

from ..helpers.blocking_model import eventually
from ..helpers.browser import Visit, a_browser, visiting  # noqa: F401

QUICK = ("demo", "--seconds", "0.8", "--clients", "8", "--port", "0")
POLICIES = ("NoBatching", "Greedy", "CostAware (the default)")


def findings(short: Sequence[float], mixed: Sequence[float], **options: Any) -> Findings:
    """Return findings of three policies with these rates."""
    return Findings(
        [
            Measurement(kind, policy, rate, 0.1, 0.2, 4.0, 0.5, **options)
            for kind, rates in (("short", short), ("mixed", mixed))
            for policy, rate in zip(POLICIES, rates, strict=True)
        ]
    )


# -- conclusions ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("short", "mixed", "expected"),
    [
        (
            (100, 240, 236),
            (80, 40, 104),
            [
                "On short texts Greedy was 2.4 times as fast as NoBatching, in answers per second.",
                "On mixed texts, however, it was 50% slower: 50% of the tokens that it computed "
                "were padding.",
                "Against the better of those two, CostAware (the default) was about as fast on "
                "short texts and 30% faster on mixed ones, where it padded 50%.",
            ],
        ),
        (
            (100, 50, 25),
            (100, 101, 300),
            [
                "On short texts Greedy was 50% slower than NoBatching, in answers per second.",
                "On mixed texts, however, it was about as fast: 50% of the tokens that it computed "
                "were padding.",
                "Against the better of those two, CostAware (the default) was 75% slower on short "
                "texts and 3.0 times as fast on mixed ones, where it padded 50%.",
            ],
        ),
        (
            (100, 130, 130),
            (100, 400, 100),
            [
                "On short texts Greedy was 30% faster than NoBatching, in answers per second.",
                "On mixed texts, too, it was 4.0 times as fast: 50% of the tokens that it computed "
                "were padding.",
                "Against the better of those two, CostAware (the default) was about as fast on "
                "short texts and 75% slower on mixed ones, where it padded 50%.",
            ],
        ),
        (
            (100, 0, 100),
            (100, 100, 100),
            ["There was no answer under Greedy on short texts; give it more --seconds."],
        ),
    ],
)
def test_conclusions_follow_the_figures(
    short: Sequence[float], mixed: Sequence[float], expected: list[str]
) -> None:
    """Also if the figures are the opposite of the expected ones."""
    assert findings(short, mixed).conclusions() == expected


def test_a_small_difference_is_called_about_as_fast() -> None:
    """Two rates that differ by no more than `SAME` are called the same."""
    for factor, word in ((1 + 0.9 * SAME, "about as fast as"), (1 + 1.1 * SAME, "faster than")):
        sentence = findings((100, 100 * factor, 100), (100, 100, 100)).conclusions()[0]
        assert f"{word} NoBatching" in sentence


def test_the_table_compares_with_no_batching_on_the_same_texts() -> None:
    """Each kind of text has its own baseline, and every policy has a row."""
    rows = str(findings((100, 240, 236), (80, 40, 104)).table()).splitlines()[1:]
    assert [re.findall(r"[\d.]+ x", row)[0] for row in rows] == [
        *("1.00 x", "2.40 x", "2.36 x"),
        *("1.00 x", "0.50 x", "1.30 x"),
    ]
    assert [policy in row for policy, row in zip(POLICIES * 2, rows, strict=True)] == [True] * 6


def test_unsteady_figures_have_a_warning() -> None:
    """It names the policy with the largest difference between two turns, and its size."""
    assert findings((1, 2, 3), (1, 2, 3), spread=STEADY).warning() == ""
    assert "was 1.6 times as fast in one" in findings((1, 2, 3), (1, 2, 3), spread=1.6).warning()
    assert "far faster" in findings((1, 2, 3), (1, 2, 3), spread=math.inf).warning()


def test_a_table_without_a_baseline_has_no_ratio() -> None:
    """A baseline without answers gives no ratio."""
    assert " x" not in str(findings((0, 240, 236), (0, 40, 104)).table())


# -- the whole demo ---------------------------------------------------------------------------


def test_the_demo_ends_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """It queries the model, compares three policies on two kinds of texts, and exits with 0."""
    assert main(QUICK) == 0
    printed = capsys.readouterr().out
    (url,) = re.findall(r"^Open (http://127\.0\.0\.1:\d+) in a browser", printed, re.MULTILINE)
    assert f'curl -X POST -d "raise a [MASK] if the key is missing" {url}\n' in printed
    assert "keyerror" in printed
    steps = re.findall(
        r"^\[(\d+)/13\] (?:warm-up of )?(\w+)\(.*, (\w+) texts", printed, re.MULTILINE
    )
    order = ["CostAware", *["NoBatching", "Greedy", "CostAware"] * 4]
    assert [policy for _, policy, _ in steps] == order
    assert [number for number, _, _ in steps] == list(map(str, range(1, 14)))
    rows = re.findall(r"^(short|mixed) +(\w+).* ([\d.]+) x ", printed, re.MULTILINE)
    assert [(kind, policy) for kind, policy, _ in rows] == [
        (kind, policy) for kind in ("short", "mixed") for policy in order[1:4]
    ]
    assert rows[0][2] == rows[3][2] == "1.00"
    assert re.findall(r"^(\d)\. ", printed, re.MULTILINE) in (["1", "2", "3"], ["1"])
    assert re.search(r"has fitted its cost model|too few to fit its cost model", printed)


def terminal(*arguments: str) -> tuple[subprocess.Popen[bytes], int]:
    """Start the command at a new terminal; return it with the terminal's other end.

    The terminal also shows the pages that it opens in a browser.
    """
    ours, theirs = pty.openpty()
    command = [sys.executable, "-W", "error", "-m", "notebook_serve", *arguments]
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**os.environ, "BROWSER": "echo opened %s"},
    )
    os.close(theirs)
    return process, ours


def read(ours: int, until: str = "") -> str:
    """Read the text at the terminal, until `until` or the end."""
    text = ""
    while not until or until not in text:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        text += part.decode()
    return text


@pytest.mark.parametrize("how", ["enter", "interrupt"])
def test_at_a_terminal_the_server_goes_on(how: str) -> None:
    """After the table the page stays, with light traffic, until Enter or Ctrl+C."""
    process, ours = terminal(*QUICK)
    try:
        printed = read(ours, "ends it now")
        (url,) = re.findall(r"(http://\S+) goes on for 120 s", printed)

        def answered() -> int:
            return int(httpx.get(url + "/stats").json()["outcomes"]["ok"])

        seen = answered()
        eventually(lambda: answered() > seen, "the traffic goes on")
        if how == "enter":
            os.write(ours, b"\n")
        else:
            process.send_signal(signal.SIGINT)
        rest = read(ours)
        assert "Traceback" not in rest
        assert process.wait(60) == 0
        with pytest.raises(httpx.TransportError):
            httpx.get(url)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.mark.parametrize("option", [(), ("--open",)])
def test_no_wait_ends_at_a_terminal_too(option: tuple[str, ...]) -> None:
    """It waits for no key, and only --open opens a page."""
    process, ours = terminal(*QUICK, "--no-wait", *option)
    try:
        printed = read(ours)
        assert "goes on for" not in printed
        assert printed.count("opened http://127.0.0.1:") == len(option)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_an_interrupt_ends_it_in_the_middle() -> None:
    """Ctrl+C during a measurement prints no table and no traceback, and stops the server."""
    process, ours = terminal("demo", "--seconds", "600", "--port", "0")
    try:
        printed = read(ours, "[1/13]")
        (url,) = re.findall(r"Open (http://\S+) ", printed)
        process.send_signal(signal.SIGINT)
        rest = read(ours)
        assert process.wait(60) == 130
        assert "Traceback" not in rest
        with pytest.raises(httpx.TransportError):
            httpx.get(url)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_the_page_shows_each_policy_while_it_is_measured(visit: Visit) -> None:
    """The page names one policy after the other."""
    process, ours = terminal("demo", "--seconds", "3", "--port", "0", "--no-wait")
    try:
        (url,) = re.findall(r"Open (http://\S+) ", read(ours, "in a browser"))
        page = visit(url)
        for policy in ("NoBatching", "Greedy", "CostAware"):
            page.wait_for_function(
                "name => document.body.innerText.includes(name + '(')", arg=policy, timeout=60_000
            )
    finally:
        process.kill()
        process.wait()
        os.close(ours)
