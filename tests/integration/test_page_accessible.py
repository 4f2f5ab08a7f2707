"""The page for everybody: axe-core finds nothing serious, and the keyboard is enough.

Each view with all that it can show, and with nothing yet; light, dark, and as wide as a phone.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.accessibility import (
    NARROW,
    WIDE,
    assert_nothing_serious,
    controls,
    findings,
    settle,
    stops,
)
from tests.support.driven_browser import Browser, Page, driven_browser
from tests.support.fake_feed import FakeFeed, fake_feed, model, pool, snapshot
from tests.support.full_page import FAILED, VIEWS, fill

pytestmark = pytest.mark.untraced  # nothing of the product's Python runs

LIVE = "document.body.dataset.connection === 'live'"
HEAD = ["a Skip to the content", "a trio-gateway"]
TABS = [f"a {view.capitalize()}" for view in VIEWS]
# What the Tab key leads to in each view, in this order; some others are between.
ORDER = {
    "now": ["a qwen:1", "a phi:1", "button Cancel the request for qwen of laptop",
            "button Cancel the request for gemma of laptop", "a mistral:1"],
    "timeline": ["button 1 hour", "button 15 min", "button 5 min",
                 "ol What engines did, as text"],
    "requests": ["button Close", "button Show the requests of this conversation",
                 "input Show requests with this text", "summary Columns", "button Copy as CSV",
                 "button Time", "button Model", "button Speed", "button Older requests"],
    "models": ["button Unload", "button Unpin", "summary How exact its token counts were",
               "button Load", "select Model", "input Max tokens", "textarea Request",
               "button Explain"],
    "logs": ["input Show lines with this text", "input regular expression", "input follow",
             "div Lines of the gateway", "select Engine whose log is shown", "div Lines of qwen"],
    "chat": ["div Conversation", "summary What was decided", "textarea Message", "input Image",
             "button Send", "select Model", "textarea System prompt", "input Temperature",
             "input Max tokens", "button New conversation", "input At once, up to 4",
             "button Start"],
    "configuration": ["button Reload the file", "summary server", "summary pools",
                      "summary models"],
}  # fmt: skip


@pytest.fixture(scope="module")
def shared_browser() -> Iterator[Browser]:
    with driven_browser() as browser:
        yield browser


@pytest.fixture
def chromium(shared_browser: Browser) -> Iterator[Browser]:
    yield shared_browser
    shared_browser.close_pages()


@pytest.fixture(scope="module")
def full() -> Iterator[FakeFeed]:
    with fake_feed(snapshot()) as feed:
        fill(feed)
        yield feed


@pytest.fixture(scope="module")
def empty() -> Iterator[FakeFeed]:
    with fake_feed(snapshot(pools=[pool()], models=[model("qwen")])) as feed:
        feed.answers["/gateway/requests"] = {"requests": [], "more": False}
        remarks = dict.fromkeys(("mistakes", "notes", "missing"), ())
        told = {"source": "gateway.lua", **remarks, "configuration": {}}
        feed.answers["/gateway/configuration"] = told
        yield feed


def opened(chromium: Browser, feed: FakeFeed, view: str, place: str = "") -> Page:
    page = chromium.page("about:blank")
    page.prefer(reduced_motion="reduce", color_scheme="light")
    page.go(f"{feed.url}#{place or view}")
    page.wait_for(f"{LIVE} && document.querySelector('main > gw-{view}')")
    return page


def filled(chromium: Browser, full: FakeFeed, view: str) -> Page:
    place, open_all = VIEWS[view]
    page = opened(chromium, full, view, place)
    open_all(page)
    return page


# -- what axe-core finds --------------------------------------------------------------------------


@pytest.mark.parametrize("view", VIEWS)
def test_nothing_serious_is_found_in_a_view_with_all_that_it_can_show(
    chromium: Browser, full: FakeFeed, view: str
) -> None:
    page = filled(chromium, full, view)
    assert_nothing_serious(page)
    # In the console the browser itself complains of the load that fails.
    assert [said for said in page.complaints if "409 (Conflict)" not in said] == []


@pytest.mark.parametrize("view", VIEWS)
def test_nothing_serious_is_found_in_a_view_with_nothing_in_it(
    chromium: Browser, empty: FakeFeed, view: str
) -> None:
    page = opened(chromium, empty, view)
    page.wait_for("document.querySelector('main').innerText.length > 0")
    assert_nothing_serious(page)
    assert page.complaints == []


def test_nothing_serious_is_found_where_a_key_is_asked_for(chromium: Browser) -> None:
    with fake_feed(snapshot(), key="tg-secret-0123") as feed:
        page = chromium.page(feed.url)
        page.wait_for("document.querySelector('dialog.key')?.open")
        page.fill("#key", "wrong")
        page.press("Enter")
        page.wait_for_text("unknown API key")
        assert_nothing_serious(page)
        assert page.evaluate("document.activeElement.id") == "key"
        assert [stop.name for stop in stops(page)] == ["button Use this key"]  # and nothing behind


def test_nothing_serious_is_found_without_a_connection(chromium: Browser) -> None:
    with fake_feed(snapshot()) as feed:
        fill(feed)
        page = filled(chromium, feed, "now")
        feed.refuses = True
        feed.break_off()
        page.wait_for_text("Connection lost")
        assert_nothing_serious(page)


def test_nothing_serious_is_found_where_a_view_is_missing(
    chromium: Browser, empty: FakeFeed
) -> None:
    empty.missing.add("views/logs.js")
    try:
        page = opened(chromium, empty, "now")
        page.evaluate("location.hash = 'logs'")
        page.wait_for_text("could not be loaded")
        assert_nothing_serious(page)
    finally:
        empty.missing.clear()


def test_axe_core_would_find_something(chromium: Browser, empty: FakeFeed) -> None:
    page = opened(chromium, empty, "now")
    page.evaluate("document.querySelector('main').append(document.createElement('button'))")
    [found] = findings(page)
    assert found.startswith("critical: button-name at ")


# -- the keyboard ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("view", VIEWS)
def test_the_tab_key_reaches_each_control_of_a_view_and_says_where_it_is(
    chromium: Browser, full: FakeFeed, view: str, size: tuple[int, int]
) -> None:
    page = filled(chromium, full, view)
    page.evaluate("document.querySelectorAll('.columns').forEach((menu) => { menu.open = false; })")
    page.resize(*size)
    settle(page)
    reached = stops(page)
    assert [stop.place for stop in reached] == [*range(controls(page))]
    assert [stop.name for stop in reached if not (stop.is_marked and stop.is_in_sight)] == []
    names = [stop.name for stop in reached]
    assert names[: len(HEAD + TABS)] == HEAD + TABS
    rest = iter(names[len(HEAD + TABS) :])
    assert [name for name in ORDER[view] if name not in rest] == []  # in this order


def test_the_menu_of_columns_needs_no_mouse(chromium: Browser, full: FakeFeed) -> None:
    page = opened(chromium, full, "requests")
    menu = "document.querySelector('.columns')"
    page.evaluate(f"{menu}.querySelector('summary').focus()")
    page.press(" ")
    page.press("Tab")
    page.press(" ")
    assert page.evaluate(f"{menu}.open")
    assert page.evaluate("document.activeElement.checked") is False
    page.press(" ")
    page.press("Escape")
    assert not page.evaluate(f"{menu}.open")
    assert page.evaluate("document.activeElement.innerText") == "Columns"
    page.press(" ")
    page.press("Tab", shift=True)
    assert not page.evaluate(f"{menu}.open")


def test_a_button_keeps_the_focus_while_its_request_goes_on(
    chromium: Browser, full: FakeFeed
) -> None:
    page = opened(chromium, full, "requests", "requests/req-1")
    page.wait_for("document.querySelector('.detail .danger')")
    page.evaluate("document.querySelector('.detail .danger').focus()")
    row = next(row for row in full.snapshot["requests"] if row["id"] == "req-1")
    full.say("request", {**row, "generated_tokens": 4711})
    page.wait_for("document.querySelector('.detail').innerText.includes('4,711')")
    assert page.evaluate("document.activeElement.innerText") == "Cancel"


def test_what_failed_is_said(chromium: Browser, full: FakeFeed) -> None:
    """To those who do not see it: in a live region."""
    page = filled(chromium, full, "models")
    said = "[...document.querySelectorAll('[role=alert], [role=status]')].map((e) => e.innerText)"
    assert FAILED in page.evaluate(said)


# -- motion ---------------------------------------------------------------------------------------


def test_nothing_moves_for_those_who_do_not_want_it(chromium: Browser, full: FakeFeed) -> None:
    page = filled(chromium, full, "now")
    moving = """[...document.querySelectorAll('*')].filter((one) => {
      const style = getComputedStyle(one);
      return style.animationName !== 'none' || parseFloat(style.transitionDuration) > 0;
    }).length"""
    page.prefer(reduced_motion="no-preference")
    assert page.evaluate(moving) > 0
    page.prefer(reduced_motion="reduce")
    assert page.evaluate(moving) == 0
    full.say("engine", {**full.snapshot["engines"][0], "memory_bytes": 1 << 30})
    page.wait_for("document.querySelector('.engine').innerText.includes('1.0 GiB')")
    assert page.evaluate("document.getAnimations().length") == 0
