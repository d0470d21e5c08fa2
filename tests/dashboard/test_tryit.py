"""The form on the page that asks the model, in a browser; and its commands, which are run."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import PIL.Image
import pytest
from playwright.sync_api import Locator, Page, Route, expect

from notebook_serve import Server

from ..helpers import small_models
from ..helpers.browser import Visit, a_browser, visiting  # noqa: F401 (fixtures)
from ..helpers.external_programs import program

Make = Callable[..., Server]

#: texts that a shell or a program could take for something else
TEXTS = (
    "plain",
    'it\'s "quoted", $HOME, `id`, $(id), \\n and !!',
    "@/etc/hostname",
    "two\nlines\twith a tab",
    "ünïcödé 🎉 \u2028",
    "-d nothing",
    "",
)


def tell(inputs: list[Any], tag: Any = None) -> list[Any]:
    """A model that says what it was given."""
    return [{"kind": type(given).__name__, "given": given, "tag": tag} for given in inputs]


def send(page: Page) -> None:
    """Press the button, and wait for the answer."""
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("button", name="Cancel")).to_be_hidden()
    expect(said(page)).not_to_have_text("waiting for the answer…")


def said(page: Page) -> Locator:
    """The line that says how it went."""
    return page.locator(".ns-status")


def answer(page: Page) -> Any:
    """The answer that is shown."""
    return json.loads(page.locator(".ns-said pre").inner_text())


def field(page: Page) -> Locator:
    """Where the input is written."""
    return page.get_by_role("textbox", name="input")


def choose(page: Page, way: str) -> None:
    """Choose in which form the input is sent."""
    page.get_by_label("send as").select_option(label=way)


def command(page: Page, form: str) -> str:
    """What may be copied, as ``curl`` or ``Python``."""
    place = page.locator(f"[data-form={form}]")
    if not place.is_visible():
        page.get_by_text("the same as curl").click()
    return place.evaluate("node => node.textContent") or ""


def ran(form: str, text: str, folder: Path, **more: str) -> str:
    """What a command or a program that was copied prints."""
    program("curl", package="curl")
    shell = program("bash", package="bash")
    line = [shell, "-c", text] if form == "curl" else [sys.executable, "-c", text]
    done = subprocess.run(
        line, cwd=folder, env={**os.environ, **more}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def told(form: str, output: str) -> Any:
    """The answer in what was printed."""
    if form == "curl":
        return json.loads(output)
    status, _, value = output.partition(" ")
    assert status == "200"
    return eval(value, {"__builtins__": {}})


# -- asking -------------------------------------------------------------------------------------


def test_it_is_seen_at_once_and_asks(make: Make, visit: Visit) -> None:
    """Without scrolling: the form, with an input that works, beside the figures."""
    server = make(small_models.pipeline("fill-mask"))
    page = visit(server.url, viewport={"width": 1280, "height": 800})
    for place in (page.get_by_role("button", name="Send"), page.locator(".ns-tile").first):
        expect(place).to_be_in_viewport(ratio=1)
    expect(field(page)).to_have_value("Paris is the [MASK] of France.")
    send(page)

    expect(said(page)).to_contain_text("200 OK in")
    assert len(answer(page)) == 5
    timing = page.locator(".ns-facts dd").first
    time = r"[\d.]+ (µs|ms|s)"
    expect(said(page)).to_have_text(re.compile(f"^200 OK in {time}$"))
    expect(timing).to_have_text(re.compile(f"^waited {time}, ran {time}$"))
    expect(timing).to_have_attribute("title", re.compile(r"^queue;dur=[\d.]+, inference;dur="))
    expect(page.locator(".ns-facts")).to_contain_text("X-Batch-Size1")
    expect(page.locator(".ns-facts")).to_contain_text("X-Request-ID")
    expect(page.locator(".ns-outcomes")).to_contain_text("ok 1")


def test_parameters_go_with_it(make: Make, visit: Visit) -> None:
    """An object of JSON; the keyboard sends it."""
    page = visit(make(small_models.pipeline("fill-mask")).url)
    page.get_by_label("parameters").fill('{"top_k": 2}')
    page.get_by_label("parameters").press("Control+Enter")
    expect(said(page)).to_contain_text("200 OK")

    assert len(answer(page)) == 2


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [("{top_k: 2}", "parameters: not JSON"), ("[1]", "parameters: must be an object")],
)
def test_what_is_no_request_is_not_sent(
    make: Make, visit: Visit, parameters: str, sentence: str
) -> None:
    """It is said what is wrong, and the server is not asked."""
    server = make(tell)
    page = visit(server.url)
    page.get_by_label("parameters").fill(parameters)
    page.get_by_role("button", name="Send").click()
    expect(said(page)).to_contain_text(sentence)
    assert sentence in command(page, "curl")
    copies = page.get_by_role("button", name="Copy")
    for copy in copies.all():
        expect(copy).to_be_disabled()
    page.get_by_label("parameters").fill("{}")
    assert copies.count() == 2
    for copy in copies.all():
        expect(copy).to_be_enabled()
    choose(page, "file")
    for copy in copies.all():
        expect(copy).to_be_disabled()
    page.get_by_role("button", name="Send").click()
    expect(said(page)).to_have_text("choose a file first")

    assert len(server.records()) == 0


def test_a_refusal_is_shown(make: Make, visit: Visit) -> None:
    """With its status and its sentence, as text."""
    page = visit(make(small_models.pipeline("fill-mask")).url)
    field(page).fill("<img src=x> without a mask")
    send(page)

    expect(said(page)).to_contain_text("422")
    assert "mask" in answer(page)["error"]
    expect(page.locator(".ns-said img")).to_have_count(0)


@pytest.mark.parametrize("bad", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_long_answers_are_seen_whole(make: Make, visit: Visit, width: int, bad: bool) -> None:
    """Their lines are wrapped, with blanks or without, in an answer and in an error."""

    def model(inputs: list[Any]) -> list[Any]:
        if bad:
            raise ValueError("long " * 60 + "x" * 250)
        return [["long " * 40, "x" * 290]] * len(inputs)

    page = visit(make(model).url, viewport={"width": width, "height": 800})
    send(page)
    expect(said(page)).to_contain_text("500" if bad else "200")
    shown = page.locator(".ns-said pre")
    expect(shown).to_contain_text("x" * 250)

    assert shown.evaluate("node => node.scrollWidth - node.clientWidth") == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_times_are_told_in_seconds_where_they_are_long(make: Make, visit: Visit) -> None:
    """As the tiles tell them; the header itself is in a tooltip."""
    header = "queue;dur=2145.319, inference;dur=50.2"
    server = make(tell)

    def answer(route: Route) -> None:
        if route.request.method == "POST":
            route.fulfill(json="done", headers={"Server-Timing": header})
        else:
            route.continue_()

    page = visit(server.url, lambda page: page.route("**/*", answer))
    send(page)
    timing = page.locator(".ns-facts dd").first

    expect(timing).to_have_text("waited 2.15 s, ran 50.2 ms")
    expect(timing).to_have_attribute("title", header)


def test_a_slow_answer_can_be_cancelled(make: Make, visit: Visit) -> None:
    """The form says that it waits, and can send again."""
    server = make(tell)
    server.pause()
    page = visit(server.url)
    page.get_by_role("button", name="Send").click()
    expect(said(page)).to_have_text("waiting for the answer…")
    page.get_by_role("button", name="Cancel").click()
    expect(said(page)).to_have_text("cancelled")
    server.resume()
    send(page)

    expect(said(page)).to_contain_text("200 OK")


@pytest.mark.parametrize("parameters", ["{}", '{"tag": "it\'s"}'])
def test_files_are_sent_as_they_are(
    make: Make, visit: Visit, tmp_path: Path, parameters: str
) -> None:
    """As bytes; and with parameters as base64, since a body of bytes has no room for them."""
    content = bytes(range(256)) * 50
    (tmp_path / "it's a.bin").write_bytes(content)
    got: list[tuple[Any, Any]] = []

    def keep(inputs: list[Any], tag: Any = None) -> list[Any]:
        got.extend((given, tag) for given in inputs)
        return [["kept"] for _ in inputs]

    page = visit(make(keep).url)
    choose(page, "file")
    page.get_by_label("file", exact=True).set_input_files(tmp_path / "it's a.bin")
    page.get_by_label("parameters").fill(parameters)
    send(page)
    for form in ("curl", "Python"):
        assert told(form, ran(form, command(page, form), tmp_path)) == ["kept"]
    wanted: Any = (content, None)
    if parameters != "{}":
        wanted = (base64.b64encode(content).decode(), "it's")

    assert got == [wanted] * 3


def picture() -> Any:
    """An image of one pixel."""
    return PIL.Image.new("RGB", (1, 1), "red")


def test_pictures_and_sounds_are_shown(make: Make, visit: Visit, tmp_path: Path) -> None:
    """An answer that is a file, and files within an answer; never as markup."""
    server = make(lambda inputs: [{"mask": picture(), "said": "<img src=y>"} for _ in inputs])
    page = visit(server.url)
    send(page)
    shown = page.locator(".ns-said img")
    expect(shown).to_have_count(1)
    expect(page.locator(".ns-said pre")).to_contain_text("<img src=y>")

    page.get_by_label("answer as").select_option("image/png")
    send(page)
    expect(page.locator(".ns-said pre")).to_have_count(0)
    expect(shown).to_have_js_property("naturalWidth", 1)
    for form in ("curl", "Python"):
        ran(form, command(page, form), tmp_path)
        assert (tmp_path / "answer.png").read_bytes().startswith(b"\x89PNG")
        (tmp_path / "answer.png").unlink()


# -- the same as a command and as a program -----------------------------------------------------


@pytest.mark.parametrize("way", ["text", "JSON", "parameters"])
def test_what_is_copied_asks_the_same(make: Make, visit: Visit, tmp_path: Path, way: str) -> None:
    """Whatever the text is, curl and Python send what the form sends."""
    page = visit(make(tell).url)
    if way == "JSON":
        choose(page, "JSON")
    for text in TEXTS if way != "JSON" else TEXTS[1:3]:
        given: Any = {"text": text, "all": [None, True, False, -1.5e-7]} if way == "JSON" else text
        tag = {"quote": "'\"\\", "none": None} if way != "text" else None
        field(page).fill(json.dumps(given) if way == "JSON" else text)
        page.get_by_label("parameters").fill(json.dumps({"tag": tag}) if tag else "")
        for form in ("curl", "Python"):
            done = told(form, ran(form, command(page, form), tmp_path))
            assert (done["given"], done["tag"]) == (given, tag), command(page, form)


def test_the_token_is_never_told(make: Make, visit: Visit, tmp_path: Path) -> None:
    """Commands read it from the environment; the page itself works by its cookie."""
    server = make(tell, token="s3cret")
    page = visit(server.url + "/?token=s3cret")
    send(page)
    expect(said(page)).to_contain_text("200 OK")
    cookie = page.context.cookies()[0]["value"]
    for form in ("curl", "Python"):
        text = command(page, form)
        assert "s3cret" not in text
        assert cookie not in text
        done = told(form, ran(form, text, tmp_path, TOKEN="s3cret"))
        assert done["given"] == "your text"
        # The line that sets it, once it is no comment any more and the token is put in.
        (setting,) = re.findall(r"^# .*your token.*$", text, re.MULTILINE)
        own = text.replace(setting, setting.removeprefix("# ").replace("your token", "s3cret"))
        assert told(form, ran(form, own, tmp_path))["given"] == "your text"

    assert cookie not in page.content()


def test_each_model_is_asked_by_its_own_address(make: Make, visit: Visit, tmp_path: Path) -> None:
    """The first at the server's, another at its name's."""
    server = make(tell)
    server.add("second", lambda inputs: [{"second": item} for item in inputs])
    page = visit(server.url + "/?model=second")
    send(page)

    assert answer(page) == {"second": "your text"}
    for form in ("curl", "Python"):
        assert "/models/second" in command(page, form)
        assert told(form, ran(form, command(page, form), tmp_path)) == {"second": "your text"}


def test_what_was_typed_stays(make: Make, visit: Visit) -> None:
    """Also while the model is loaded anew; before it ever was, there is nothing to ask."""
    server = make(tell)
    shown: dict[str, Any] = {"question": None}

    def look(route: Route) -> None:
        told = server_picture | shown
        route.fulfill(json=told)

    server_picture = httpx.get(server.url + "/live").json()
    page = visit(server.url, lambda page: page.route("**/live", look))
    expect(page.get_by_text("The model is not loaded.")).to_be_visible()
    shown["question"] = server_picture["question"]
    field(page).fill("typed")
    shown["question"] = None
    with page.expect_response("**/live"), page.expect_response("**/live"):
        pass

    expect(field(page)).to_have_value("typed")


def test_nothing_of_the_page_is_missing(make: Make, visit: Visit) -> None:
    """Its parts, its icon and the addresses that it names are there."""
    answered: list[tuple[int, str]] = []

    def hear(page: Page) -> None:
        page.on("response", lambda response: answered.append((response.status, response.url)))

    server = make(tell)
    page = visit(server.url, hear)
    send(page)
    icon = page.locator("link[rel=icon]").get_attribute("href") or ""
    assert base64.b64decode(icon.partition("base64,")[2]).startswith(b"<svg")
    for link in page.locator("footer a").all():
        url = link.evaluate("link => link.href")
        answered.append((page.request.get(url).status, url))

    assert len(answered) > 10
    assert {status for status, _ in answered} == {200}, answered


# -- examples -----------------------------------------------------------------------------------


@pytest.mark.parametrize("task", small_models.TASKS)
def test_the_example_is_answered(make: Make, visit: Visit, task: str) -> None:
    """What the form holds at first, sent as it is."""
    page = visit(make(small_models.pipeline(task)).url)
    send(page)

    expect(said(page)).to_contain_text("200 OK")
