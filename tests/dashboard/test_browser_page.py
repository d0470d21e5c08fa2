"""The dashboard's page, in a browser."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Page, Route, expect

from notebook_serve import CostAware, Decision, Greedy, Job, LengthAware, NoBatching, Server, Window
from notebook_serve.display import per_second

from ..helpers.browser import Visit, a_browser, visiting  # noqa: F401 (fixtures)

Make = Callable[..., Server]

#: the least contrast of readable text (WCAG 2.1, level AA)
READABLE = 4.5


def echo(inputs: list[Any]) -> list[Any]:
    """Return the inputs."""
    return inputs


def ask(server: Server, times: int = 1) -> None:
    """Send requests, one after another."""
    for _ in range(times):
        assert httpx.post(server.url, content=b"text").status_code == 200


def chart(name: str) -> str:
    """Return JavaScript that finds a chart."""
    return f"Chart.getChart(document.querySelector('[data-chart={name}]'))"


def total(name: str, dataset: int) -> str:
    """Return JavaScript that adds up the numbers of a chart."""
    return f"{chart(name)}.data.datasets[{dataset}].data.reduce((sum, {{ y }}) => sum + y, 0)"


def wait_until(page: Page, condition: str) -> None:
    """Wait for a condition in JavaScript.

    The page's content policy forbids `eval`, which Playwright's own function needs.
    """
    page.evaluate(
        f"""() => new Promise((done) => {{
          const look = () => ({condition} ? done() : requestAnimationFrame(look));
          look();
        }})"""
    )


def outcome(page: Page) -> Locator:
    """Return the line with the result of a command."""
    return page.locator("main").get_by_role("status")


def apply(page: Page, policy: str, **options: str) -> None:
    """Set a policy with the form."""
    page.get_by_label("policy").first.select_option(policy)
    for name, value in options.items():
        page.get_by_label(name).fill(value)
    page.get_by_role("button", name="Apply").click()


# -- data ---------------------------------------------------------------------------------------


def test_the_page_is_updated(make: Make, visit: Visit) -> None:
    """New requests appear in its tiles and charts."""
    server = make(echo)
    page = visit(server.url)
    expect(page.get_by_text("No requests yet.")).to_be_visible()

    ask(server, 3)
    expect(page.get_by_text("No requests yet.")).to_be_hidden()
    expect(page.locator(".ns-outcomes")).to_have_text("since the start:■ ok 3 (100.0%)")
    wait_until(page, f"{total('rates', 1)} === 3 && {total('rates', 2)} === 3")
    wait_until(page, f"{total('sizes', 0)} === 3")
    # Per second of the server's life so far, and of no more than its last ten.
    rates = re.compile("|".join(re.escape(per_second(3 / n)) for n in range(1, 11)))
    expect(page.locator(".ns-tile", has_text="answers")).to_contain_text(rates)
    expect(page.locator("canvas")).to_have_count(6)
    bars = page.evaluate(f"{chart('timeline')}.data.datasets[1].data")

    assert [len(bar) for bar in bars] == [2, 2, 2]
    assert all(begin <= end for begin, end in bars)


def test_text_is_not_markup(make: Make, visit: Visit) -> None:
    """Names and a user's own policy are escaped; another policy can be selected."""

    @dataclass
    class Own:
        note: str = "<img src=x>"

        def decide(self, waiting: Sequence[Job], now: float) -> Decision:
            return Decision(tuple(waiting[:1]), reason="own")

    server = make(echo, name="<b>bold<b>", policy=Own())
    page = visit(server.url)
    expect(page.locator(".ns-name")).to_have_text("<b>bold<b>")
    expect(page.locator("header")).to_contain_text("<img src=x>")
    expect(page.get_by_label("policy")).to_have_value("Own")
    expect(page.locator(".ns-fields input")).to_have_count(0)
    expect(page.get_by_role("button", name="Apply")).to_be_disabled()
    apply(page, "NoBatching")

    expect(page.locator("header")).to_contain_text("NoBatching()")


def lowest_contrast(page: Page) -> tuple[float, str]:
    """Return the lowest contrast of a text, and that text."""
    found: list[Any] = page.evaluate(
        """() => {
          const parse = (text) => text.match(/[\\d.]+/g).map(Number);
          const light = (text) => parse(text).slice(0, 3)
            .map((n) => n / 255)
            .map((n) => (n <= 0.03928 ? n / 12.92 : ((n + 0.055) / 1.055) ** 2.4))
            .reduce((sum, n, at) => sum + n * [0.2126, 0.7152, 0.0722][at], 0);
          const ground = (node) => {
            const colour = getComputedStyle(node).backgroundColor;
            return parse(colour)[3] === 0 ? ground(node.parentElement) : colour;
          };
          const shown = [...document.body.querySelectorAll("*")].filter((node) =>
            node.checkVisibility() && !node.disabled && node.className !== "ns-square" &&
            [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim()));
          return shown.map((node) => {
            const [a, b] = [getComputedStyle(node).color, ground(node)].map(light);
            return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), node.textContent];
          }).sort((a, b) => a[0] - b[0])[0];
        }"""
    )
    return found[0], found[1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_contrast(make: Make, visit: Visit, scheme: str) -> None:
    """They do in light and dark, in charts and errors too."""
    server = make(echo)
    ask(server)
    page = visit(server.url, color_scheme=scheme)
    apply(page, "Greedy", max_batch_size="no number")
    expect(page.locator(".ns-rejected")).to_be_visible()
    contrast, text = lowest_contrast(page)

    assert contrast >= READABLE, text
    ticks = page.evaluate(f"{chart('rates')}.scales.x.options.ticks.color")
    assert ticks == {"dark": "rgb(165, 176, 187)", "light": "rgb(89, 99, 110)"}[scheme]


def test_charts_follow_the_theme_of_jupyterlab(make: Make, visit: Visit) -> None:
    """The colours of the charts change with those of JupyterLab."""
    server = make(echo)
    ask(server)
    page = visit(server.url)
    page.wait_for_selector("canvas")
    page.evaluate("document.body.style.setProperty('--jp-ui-font-color2', 'rgb(1, 2, 3)')")

    wait_until(page, f"{chart('times')}.scales.y.options.ticks.color === 'rgb(1, 2, 3)'")


# -- controls -----------------------------------------------------------------------------------


def test_a_policy_is_set(make: Make, visit: Visit) -> None:
    """The form changes the policy and the options of the server."""
    server = make(echo)
    page = visit(server.url)
    expect(page.get_by_label("policy")).to_have_value("CostAware")
    apply(page, "Window", max_batch_size="4", max_wait="0.25")
    expect(outcome(page)).to_contain_text("Window(max_batch_size=4, max_wait=0.25)")

    assert server.policy == Window(4, 0.25)
    expect(page.locator("header")).to_contain_text("Window(max_batch_size=4, max_wait=0.25)")
    expect(page.get_by_role("button", name="Undo")).to_be_hidden()


def test_an_invalid_policy_is_rejected(make: Make, visit: Visit) -> None:
    """The page shows the error, and the field keeps its text."""
    server = make(echo, policy=Greedy(3))
    page = visit(server.url)
    apply(page, "Greedy", max_batch_size="-1")
    expect(outcome(page)).to_contain_text("max_batch_size")

    assert server.policy == Greedy(3)
    expect(page.get_by_label("max_batch_size")).to_have_value("-1")


def test_an_edit_is_kept(make: Make, visit: Visit) -> None:
    """A snapshot does not overwrite an edit; Undo shows the policy in effect."""
    server = make(echo, policy=Greedy(3))
    page = visit(server.url)
    field = page.get_by_label("max_batch_size")
    field.fill("12")
    server.policy = LengthAware(5)
    expect(page.locator("header")).to_contain_text("LengthAware(max_batch_size=5")

    expect(field).to_have_value("12")
    expect(page.get_by_label("policy")).to_have_value("Greedy")
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_label("policy")).to_have_value("LengthAware")
    expect(field).to_have_value("5")


def test_pause_and_resume(make: Make, visit: Visit) -> None:
    """The button pauses and resumes the server, by mouse or keyboard."""
    server = make(echo)
    page = visit(server.url)
    page.get_by_role("button", name="Pause").press("Enter")
    expect(page.locator(".ns-state")).to_have_text("paused")

    assert server.stats().state == "paused"
    page.get_by_role("button", name="Resume").click()
    expect(outcome(page)).to_contain_text("Resumed")
    expect(page.locator(".ns-state")).to_have_text("ready")
    assert server.stats().state == "ready"


def test_views_on_one_page_are_removed(make: Make, visit: Visit) -> None:
    """Each view of a widget has its own charts, and removing it leaves nothing."""
    server = make(echo)
    ask(server)
    page = visit(server.url)
    page.wait_for_selector("canvas")
    shown = page.evaluate(
        """async () => {
          const { default: dashboard } = await import("./static/dashboard.js");
          const snapshot = await (await fetch("live")).json();
          const heard = new Set();
          const model = {
            get: (name) => ({ snapshot, every: 4 })[name],
            on: (event, listener) => heard.add(listener),
            off: (event, listener) => heard.delete(listener),
            send: () => {},
          };
          const count = () => [Object.keys(Chart.instances).length, heard.size];
          const views = [1, 2].map(() => dashboard.render({ model, el: document.body }));
          const open = count();
          views.forEach((close) => close());
          return [open, count(), document.querySelectorAll(".notebook-serve-live").length];
        }"""
    )

    assert shown == [[18, 4], [6, 0], 1]


@pytest.mark.parametrize("direct", [False, True])
def test_a_sent_command_says_when_it_takes_effect(make: Make, visit: Visit, direct: bool) -> None:
    """In a notebook it is applied after all queued cells, from the page at once."""
    page = visit(make(echo).url)
    text = page.evaluate(
        """async (direct) => {
          const { default: dashboard } = await import("./static/dashboard.js");
          const snapshot = await (await fetch("live")).json();
          const values = { snapshot, every: 4, ...(direct ? { direct } : {}) };
          const model = { get: (name) => values[name], on() {}, off() {}, send() {} };
          const el = document.createElement("div");
          document.body.append(el);
          dashboard.render({ model, el });
          el.querySelector(".ns-pause").click();
          return el.querySelector(".ns-outcome").textContent;
        }""",
        direct,
    )
    cell = " The kernel applies it after all queued cells."
    elsewhere = " Controls on the server's page take effect at once."

    assert text == ("Sent." if direct else f"Sent.{cell}{elsewhere}")


# -- several models -----------------------------------------------------------------------------


def test_one_of_several_models_is_selected(make: Make, visit: Visit) -> None:
    """A button shows each model's state; data and commands are those of the selected model."""
    server = make(echo, name="first")
    page = visit(server.url)
    buttons = page.get_by_role("navigation", name="models").get_by_role("button")
    expect(page.locator(".ns-state")).to_have_text("ready")
    expect(page.locator(".ns-models")).to_be_hidden()

    server.add("second", echo, policy=Greedy(3)).pause()
    expect(buttons).to_have_text(["■first · ready · 0 waiting", "■second · paused · 0 waiting"])
    expect(page.locator("[aria-current]")).to_contain_text("first")
    page.get_by_label("max_batch_size").fill("12")
    buttons.nth(1).click()
    expect(page.locator(".ns-name")).to_have_text("second")
    expect(page.locator("[aria-current]")).to_contain_text("second")
    page.get_by_text("the same request as").click()
    expect(page.locator("[data-form=curl]")).to_contain_text("/models/second'")
    expect(page.get_by_label("max_batch_size")).to_have_value("3")
    apply(page, "NoBatching")
    expect(page.locator("header")).to_contain_text("NoBatching()")

    assert server["second"].policy == NoBatching()
    assert isinstance(server.policy, CostAware)
    page.get_by_role("button", name="Resume").click()
    expect(buttons.nth(1)).to_contain_text("ready")
    assert server["second"].predict("x") == "x"
    expect(page.locator(".ns-outcomes")).to_have_text("since the start:■ ok 1 (100.0%)")
    buttons.first.click()
    expect(page.get_by_text("No requests yet.")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_buttons_of_models_have_contrast(make: Make, visit: Visit, scheme: str) -> None:
    """They do in light and dark."""
    server = make(echo)
    server.add("other", echo)
    page = visit(server.url, color_scheme=scheme)
    expect(page.locator(".ns-models button")).to_have_count(2)
    contrast, text = lowest_contrast(page)

    assert contrast >= READABLE, text


# -- requests to the server ---------------------------------------------------------------------


HIDE = """hidden => {
  Object.defineProperty(document, "visibilityState", { get: () => hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""
#: resolves after all observers were called
SCROLL = """away => new Promise((done) => {
  const check = (entries) => entries.at(-1).isIntersecting !== away && done();
  document.body.style.paddingTop = away ? "9999px" : "";
  new IntersectionObserver(check).observe(document.querySelector(".notebook-serve-live"));
})"""


@pytest.mark.parametrize(
    ("change", "away", "back"), [(HIDE, "hidden", "visible"), (SCROLL, True, False)]
)
def test_a_hidden_page_sends_no_requests(
    make: Make, visit: Visit, change: str, away: Any, back: Any
) -> None:
    """A background tab or a dashboard outside the viewport costs the server no work."""
    looks: list[str] = []
    server = make(echo)
    page = visit(server.url, lambda page: page.clock.install())
    page.on("request", lambda asked: looks.append(asked.url))
    page.clock.run_for(5_000)
    assert server.url.rstrip("/") + "/live" in looks

    page.evaluate(change, away)
    before = len(looks)
    page.clock.run_for(30_000)
    assert len(looks) == before
    with page.expect_request("**/live"):
        page.evaluate(change, back)


def test_missing_data_is_reported(make: Make, visit: Visit) -> None:
    """Without data, the page says for how long and disables the controls until data arrives.

    An edit is kept.
    """
    server = make(echo)
    page = visit(server.url, lambda page: page.clock.install())
    expect(page.locator(".ns-state")).to_have_text("ready")
    page.route("**/live", lambda route: route.fulfill(body=""))
    buttons = [page.get_by_role("button", name=name) for name in ("Pause", "Apply")]
    page.clock.run_for(9_000)
    expect(page.get_by_text("No data for")).to_be_visible()
    page.get_by_label("max_batch_size").fill("12")
    for button in buttons:
        expect(button).to_be_disabled()
    page.unroute("**/live")
    page.clock.run_for(2_000)

    expect(page.get_by_text("No data for")).to_be_hidden()
    for button in buttons:
        expect(button).to_be_enabled()
    expect(page.get_by_label("max_batch_size")).to_have_value("12")


def test_a_token_in_the_address_opens_the_page(make: Make, visit: Visit) -> None:
    """The page accepts ``?token=``, removes it from the address, and works with its cookie."""
    server = make(echo, token="secret")
    assert httpx.get(server.url + "/live").status_code == 401

    page = visit(server.url + "/?token=secret")
    expect(page.locator(".ns-state")).to_have_text("ready")
    apply(page, "NoBatching")
    expect(page.locator("header")).to_contain_text("NoBatching()")
    assert "secret" not in page.url
    page.get_by_text("the same request as").click()
    expect(page.locator("[data-form=curl]")).to_contain_text('"Authorization: Bearer $TOKEN"')
    assert "secret" not in page.content()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_is_asked_for_the_token(make: Make, visit: Visit, scheme: str) -> None:
    """Without a token or with a wrong one there is a form, with the right one the page."""
    server = make(echo, token="s3cret &?#ü")
    narrow = {"width": 390, "height": 800}
    page = visit(server.url, color_scheme=scheme, viewport=narrow)
    field = page.get_by_label("token")
    expect(field).to_be_focused()
    expect(field).to_have_attribute("type", "password")
    found, text = lowest_contrast(page)
    assert found >= READABLE, text
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"dark": "rgb(15, 20, 25)", "light": "rgb(255, 255, 255)"}[scheme]
    field.fill("wrong")
    field.press("Enter")
    page.wait_for_url("**/?token=wrong")
    expect(field).to_have_value("")
    assert "wrong" not in page.content()
    field.fill("s3cret &?#ü")
    page.get_by_role("button", name="Open").click()

    expect(page.locator(".ns-state")).to_have_text("ready")
    assert page.url.rstrip("/") == server.url.rstrip("/")


def through(server: Server) -> Callable[[Page], object]:
    """Serve a server below a proxy's prefix."""

    def proxy(route: Route) -> None:
        path = route.request.url.removeprefix("http://proxy.test/user/me/")
        headers = {"accept": route.request.headers.get("accept", "*/*")}
        if cookie := route.request.all_headers().get("cookie"):
            headers["cookie"] = cookie
        answer = httpx.get(f"{server.url.rstrip('/')}/{path}", headers=headers)
        route.fulfill(status=answer.status_code, headers=dict(answer.headers), body=answer.content)

    return lambda page: page.route("http://proxy.test/user/me/**", proxy)


def test_behind_the_prefix_of_a_proxy(make: Make, visit: Visit) -> None:
    """Every address is relative, so the page works below any prefix."""
    page = visit("http://proxy.test/user/me/", through(make(echo)))
    expect(page.locator(".ns-state")).to_have_text("ready")

    for name in ("openapi.json", "models", "stats", "metrics", "health", "ready"):
        link = page.get_by_role("link", name=name).evaluate("link => link.href")
        assert link == f"http://proxy.test/user/me/{name}"


def test_the_form_for_the_token_behind_a_prefix(make: Make, visit: Visit) -> None:
    """It is sent to the page's own address."""
    page = visit("http://proxy.test/user/me/", through(make(echo, token="secret")))
    action = page.locator("form").evaluate("form => form.action")

    assert action == "http://proxy.test/user/me/"


def test_without_javascript(make: Make, visit: Visit) -> None:
    """A browser without scripts shows the address of the figures."""
    page = visit(make(echo).url, java_script_enabled=False)

    expect(page.locator("noscript p")).to_be_visible()
