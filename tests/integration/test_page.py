"""The page in a real browser, with a feed of the tests' own: what it makes of any moment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.driven_browser import Browser, Page, driven_browser
from tests.support.fake_feed import (
    GIB,
    FakeFeed,
    Json,
    chat_pieces,
    engine,
    fake_feed,
    model,
    moment,
    pool,
    request,
    snapshot,
)
from tests.support.patience import eventually

pytestmark = pytest.mark.untraced  # nothing of the product's Python runs

VIEWS = ("now", "timeline", "requests", "models", "logs", "chat", "configuration")
LIVE = "document.body.dataset.connection === 'live'"
HOSTILE = "<img src=x onerror=\"document.title='gone'\"><script>document.title='gone'</script>"


@pytest.fixture(scope="module")
def shared_browser() -> Iterator[Browser]:
    with driven_browser() as browser:
        yield browser


@pytest.fixture
def chromium(shared_browser: Browser) -> Iterator[Browser]:
    yield shared_browser
    shared_browser.close_pages()


@pytest.fixture
def feed() -> Iterator[FakeFeed]:
    started = snapshot(pools=[pool()], models=[model("qwen"), model("gemma")])
    with fake_feed(started) as made:
        yield made


def opened(chromium: Browser, feed: FakeFeed, place: str = "", **size: int) -> Page:
    page = chromium.page("about:blank", **size)
    page.prefer(reduced_motion="reduce")
    page.go(f"{feed.url}#{place}")
    page.wait_for(LIVE)
    return page


def texts(page: Page, selector: str) -> list[str]:
    found: list[str] = page.evaluate(
        f"[...document.querySelectorAll({json.dumps(selector)})].map((e) => e.innerText)"
    )
    return found


# -- now ------------------------------------------------------------------------------------------


def test_it_says_what_to_do_first(chromium: Browser, feed: FakeFeed) -> None:
    page = opened(chromium, feed)
    page.wait_for_text("Nothing has happened yet")
    line = page.evaluate("document.querySelector('.first pre').textContent")
    assert line.startswith(f"curl {feed.url.removesuffix('ui/')}v1/chat/completions ")
    assert json.loads(line.partition(" -d ")[2].strip("'"))["model"] == "qwen"
    feed.say("request", request(1, "qwen", "waiting", sentence="qwen loads (about 8 s)"))
    page.wait_for("document.querySelector('.first').hidden")


def test_a_swap_is_seen(chromium: Browser, feed: FakeFeed) -> None:
    feed.snapshot["engines"] = [engine(1, "qwen", leases=1, next="serves 1 answer")]
    page = opened(chromium, feed)
    page.wait_for("document.querySelector('.engine')?.innerText.includes('serving')")
    waits = "waits for 1 answer of qwen to end, then gemma loads (about 8 s)"
    feed.say("request", request(2, "gemma", "waiting", position=1, sentence=waits))
    drains = "drains for gemma: 1 answer is running"
    feed.say("engine", engine(1, "qwen", leases=1, state="draining", next=drains))
    page.wait_for_text(waits)
    page.wait_for_text(drains)
    spoken = "document.querySelector('gw-now [role=status]').textContent"
    page.wait_for(f"{spoken} === 'qwen draining, 0 running, 1 waiting'")
    feed.say("engine_gone", {"engine": 1})
    feed.say("engine", engine(2, "gemma", state="starting", loading_s=0.5, evicted=["qwen:1"]))
    page.wait_for("document.querySelector('.engine')?.innerText.includes('in place of qwen:1')")
    assert texts(page, ".engine .tag:not([hidden])") == ["loading"]
    feed.say("engine", engine(2, "gemma", leases=1, speed=41.5))
    feed.say("request", request(2, "gemma", "answering", generated_tokens=12, speed=41.5))
    page.wait_for("document.querySelector('.engine')?.innerText.includes('42 tok/s')")
    page.wait_for("[...document.querySelectorAll('.request')].length === 1")
    feed.say("request", request(2, "gemma", "done", outcome="ok", took_s=9.0))
    page.wait_for("document.querySelector('.ended .request')?.innerText.includes('done')")
    assert page.complaints == []


def test_an_answer_in_one_piece_is_not_said_to_be_a_prompt_that_is_read(
    chromium: Browser, feed: FakeFeed
) -> None:
    feed.snapshot["requests"] = [
        request(1, "qwen", "reading", arrived_s=1.0),
        request(2, "gemma", "reading", is_streamed=False, arrived_s=2.0),
    ]
    page = opened(chromium, feed)
    page.wait_for("document.querySelectorAll('.request .tag').length === 2")
    assert texts(page, ".request .tag") == ["reads its prompt", "is answered"]
    page.evaluate("location.hash = 'requests'")
    page.wait_for("document.querySelectorAll('tbody .tag').length === 2")
    assert texts(page, "tbody .tag") == ["is answered", "reads its prompt"]


def test_what_is_below_the_lists_does_not_move(chromium: Browser, feed: FakeFeed) -> None:
    """From the first request to a long queue and back."""
    feed.snapshot["pools"] = [pool(engines_max=1)]
    page = opened(chromium, feed)
    page.wait_for_text("Nothing has happened yet")
    place = "document.querySelector('{}').getBoundingClientRect().top"
    assert page.evaluate(place.format(".pair")) == 0  # it takes no place yet
    first = page.evaluate(place.format(".first"))
    feed.say("request", request(1, "qwen", "waiting", sentence="qwen loads"))
    page.wait_for("document.querySelector('.first').hidden")
    assert page.evaluate(place.format(".pair")) == first
    below = page.evaluate(place.format(".ended"))
    for number in range(2, 9):
        feed.say("request", request(number, "qwen", "waiting", sentence="it waits long " * 20))
    page.wait_for("document.querySelectorAll('.pair .request').length === 8")
    assert page.evaluate(place.format(".ended")) == below
    for number in range(1, 9):
        feed.say("request", request(number, "qwen", "done", outcome="ok", took_s=1))
    page.wait_for("document.querySelectorAll('.pair .request').length === 0")
    assert page.evaluate(place.format(".ended")) == below
    assert_clean(page, feed)


def test_times_are_counted_on_without_asking(chromium: Browser, feed: FakeFeed) -> None:
    feed.snapshot["engines"] = [engine(1, "qwen", next="stops in 140 s if nobody asks")]
    feed.snapshot["requests"] = [request(1, "qwen", "answering")]
    page = opened(chromium, feed)
    shown_s = "parseInt(document.querySelector('.request .time').innerText)"
    page.wait_for(f"{shown_s} > 0")
    first_s = page.evaluate(shown_s)
    page.wait_for(f"{shown_s} > {first_s + 1}")
    assert int(texts(page, ".engine .says")[0].split()[2]) < 140
    assert feed.asked == ["GET /gateway/events"]


def test_the_memory_of_a_pool_is_a_bar(chromium: Browser, feed: FakeFeed) -> None:
    feed.snapshot["pools"] = [pool(used_bytes=12 * GIB, other_bytes=3 * GIB)]
    feed.snapshot["engines"] = [engine(1, "qwen", memory_bytes=12 * GIB)]
    page = opened(chromium, feed)
    page.wait_for("document.querySelectorAll('.segment').length === 2")
    widths = page.evaluate(
        "[...document.querySelectorAll('.segment')].map((e) => e.getBoundingClientRect().width"
        " / e.parentElement.getBoundingClientRect().width)"
    )
    assert widths == pytest.approx([0.5, 0.125], abs=0.01)
    label = page.evaluate("document.querySelector('.memory').getAttribute('aria-label')")
    assert "12 GiB of 24 GiB" in label
    assert "others hold 3.0 GiB" in label


def test_cancel_asks_for_just_that(chromium: Browser, feed: FakeFeed) -> None:
    feed.snapshot["requests"] = [request(1, "qwen", "answering")]
    feed.answers["/gateway/requests/req-1/cancel"] = {"id": "req-1"}
    page = opened(chromium, feed)
    page.click(".request button")
    page.wait_for("document.querySelector('.request button').disabled")
    eventually(lambda: len(feed.asked) > 1, within_s=10)  # the button does not wait for the server
    assert feed.asked == ["GET /gateway/events", "POST /gateway/requests/req-1/cancel"]


# -- the timeline ---------------------------------------------------------------------------------


def test_lanes_say_what_engines_did_and_why(chromium: Browser, feed: FakeFeed) -> None:
    feed.answers["/gateway/requests"] = {"requests": [], "more": False}
    feed.snapshot["engines"] = [engine(2, "gemma", pool="gpu")]
    feed.snapshot["timeline"] = [
        moment(600, 1, "qwen", "starting"),
        moment(590, 1, "qwen", "ready", load_s=10.0),
        moment(300, 1, "qwen", "draining", reason="gemma waits for its memory"),
        moment(290, 1, "qwen", "gone"),
        moment(290, 2, "gemma", "starting", evicted=["qwen:1"]),
        moment(280, 2, "gemma", "ready", load_s=10.0),
    ]
    done: Json = {"engine": 1, "took_s": 60.0, "granted_after_s": 0.0, "first_byte_after_s": 2.0}
    done |= {"arrived_s": feed.snapshot["now_s"] - 500, "outcome": "ok"}
    feed.snapshot["recent"] = [request(1, "qwen", "done", **done)]
    page = opened(chromium, feed, "timeline")
    page.wait_for("document.querySelector('svg .engine')")
    said = page.evaluate(
        "[...document.querySelectorAll('svg [data-says]')].map((e) => e.dataset.says)"
    )
    states = [words.split(",")[0] for words in said]
    assert states[:6] == [
        "qwen:1 loading", "qwen:1 ready", "qwen:1 draining", "qwen:1 served 1 request",
        "gemma:1 loading", "gemma:1 ready",
    ]  # fmt: skip
    lanes = page.evaluate("document.querySelectorAll('svg .lane').length")
    assert lanes == 1  # one after the other
    assert said[2].endswith("for 10 s: gemma waits for its memory")
    assert "in place of qwen:1" in said[4]
    assert "reading 2.0 s, answering 58 s" in said[6]
    # With the keyboard alone: one stop, and from there the arrow keys.
    page.evaluate("document.querySelector('svg [tabindex]').focus()")
    for _ in range(2):
        page.press("ArrowRight")
    assert page.evaluate("document.querySelector('.tip').innerText") == said[2]
    page.evaluate("document.activeElement.blur()")
    feed.say("moment", moment(0, 2, "gemma", "stopping", reason="idle for 280 s"))
    page.wait_for_text("stops: idle for 280 s")
    assert page.complaints == []


# -- chat -----------------------------------------------------------------------------------------


def test_a_chat_shows_its_answer_and_what_was_decided(chromium: Browser, feed: FakeFeed) -> None:
    feed.chat = [b": waits for 1 answer of gemma to end\n\n", *chat_pieces("Hello ", "there")]
    feed.chat_headers = {
        "x-gateway-request-id": "req-7", "x-gateway-model": "qwen", "x-gateway-variant": "8k",
        "x-gateway-need": "512", "x-gateway-decision": "swapped; evicted=gemma:1",
        "x-gateway-queue-ms": "9100", "x-gateway-load-ms": "8000",
        "x-gateway-kv": "restored=3190 saved=2393",
    }  # fmt: skip
    page = opened(chromium, feed, "chat")
    page.fill("#chat-prompt", "Hi")
    page.press("Enter")
    page.wait_for("document.querySelector('.assistant .body')?.innerText === 'Hello there'")
    decided = texts(page, ".decision")[-1]
    assert "qwen:8k" in decided
    assert "swapped, in place of gemma:1" in decided
    assert "9.1 s in line, 8.0 s for a load" in decided
    assert "tokens: 3,190 restored, 2,393 saved" in decided
    took = {"outcome": "ok", "took_s": 9.9, "generated_tokens": 2, "why": "512 fit into 8k"}
    feed.say("request", request(7, "qwen", "done", **took))
    page.wait_for("document.querySelector('.assistant .decision').innerText.includes('9.9 s')")
    page.reload()
    page.wait_for("document.querySelector('.assistant .body')?.innerText === 'Hello there'")
    assert "512 fit into 8k" in texts(page, ".decision")[-1]


def test_a_chat_that_waits_says_for_what_and_then_what_was_decided(
    chromium: Browser, feed: FakeFeed
) -> None:
    thought = {"reasoning_content": "trio-gateway: waits for qwen to load (2 s so far)\n\n"}
    feed.chat = [
        f"data: {json.dumps({'choices': [{'delta': thought}]})}\n\n".encode(),
        b": X-Gateway-Model: qwen; X-Gateway-Counted: bound; at-most; X-Gateway-Variant: 8k; "
        b"X-Gateway-Decision: swapped; evicted=gemma:1; X-Gateway-Queue-Ms: 5; "
        b"X-Gateway-Load-Ms: 8000\n\n",
        *chat_pieces("Hello"),
    ]
    feed.chat_headers = {"x-gateway-request-id": "req-7", "x-gateway-need": "512"}
    page = opened(chromium, feed, "chat")
    page.fill("#chat-prompt", "Hi")
    feed.chat_pause.clear()
    page.press("Enter")
    page.wait_for("document.querySelector('.assistant .waits')?.innerText.startsWith('waits for')")
    feed.chat_pause.set()
    page.wait_for("document.querySelector('.assistant .decision').innerText.includes('qwen:8k')")
    decided = texts(page, ".decision")[-1]
    assert "swapped, in place of gemma:1" in decided
    assert "at most 512 tokens, by its size" in decided
    assert "8.0 s for a load" in decided
    assert texts(page, ".assistant .waits:not([hidden]), .reasoning:not([hidden])") == []


def test_an_answer_that_breaks_off_says_so(chromium: Browser, feed: FakeFeed) -> None:
    error = {"error": {"message": "the engine of qwen crashed", "code": "engine_failed"}}
    feed.chat = [*chat_pieces("Hel")[:1], f"data: {json.dumps(error)}\n\n".encode()]
    page = opened(chromium, feed, "chat")
    page.fill("#chat-prompt", "Hi")
    page.press("Enter")
    page.wait_for_text("the engine of qwen crashed")
    assert "Hel" in texts(page, ".assistant .body")[-1]


def test_a_question_that_got_no_answer_is_not_asked_again(
    chromium: Browser, feed: FakeFeed
) -> None:
    """It may be what fails; and a template may want an answer between two questions."""
    feed.chat = chat_pieces("Hello")
    page = opened(chromium, feed, "chat")
    for question in ("one", "two", "three"):
        if question == "two":
            error = {"error": {"message": "image input is not supported", "code": "no_images"}}
            feed.chat = [f"data: {json.dumps(error)}\n\n".encode()]
        page.fill("#chat-prompt", question)
        page.press("Enter")
        answers = ("one", "two", "three").index(question) + 1
        page.wait_for(f"document.querySelectorAll('.assistant').length === {answers}")
        page.wait_for("document.querySelector('.compose button:not([type=submit])').hidden")
    said = [(message["role"], message["content"]) for message in feed.chats[-1]["messages"]]
    assert said == [("user", "one"), ("assistant", "Hello"), ("user", "three")]


def test_a_load_test_is_bounded_and_drawn(chromium: Browser, feed: FakeFeed) -> None:
    feed.chat = chat_pieces("one", "two")
    feed.chat_headers = {"x-gateway-load-ms": "0"}
    page = opened(chromium, feed, "chat")
    page.wait_for("document.querySelector('#chat-model')?.options.length === 2")
    page.evaluate("document.querySelector('#load-all').removeAttribute('max')")
    page.fill("#load-at_once", "3")
    page.fill("#load-all", "7")
    page.click(".load-test .primary")
    page.wait_for_text("7 of 7 done")
    assert len(texts(page, ".runs li")) == 7
    assert feed.asked.count("POST /v1/chat/completions") == 7


def test_a_load_test_leaves_the_page_usable(chromium: Browser, feed: FakeFeed) -> None:
    """A browser has six connections to one server: chats beyond them would only seem to wait."""
    feed.chat = chat_pieces("one", "two")
    feed.chat_pause.clear()
    page = opened(chromium, feed, "chat")
    page.wait_for("document.querySelector('#chat-model')?.options.length === 2")
    page.fill("#load-at_once", "32")
    page.fill("#load-all", "6")
    page.click(".load-test .primary")
    sent = "POST /v1/chat/completions"
    eventually(lambda: feed.asked.count(sent) == 4, within_s=10)
    assert page.evaluate("document.querySelector('#load-at_once').value") == "4"
    page.evaluate("location.hash = 'logs'")
    page.wait_for("document.querySelector('main > gw-logs')", within_s=10)
    eventually(lambda: any("logs=gateway" in path for path in feed.asked), within_s=10)
    page.wait_for(LIVE)
    feed.chat_pause.set()
    page.evaluate("location.hash = 'chat'")
    page.wait_for_text("6 of 6 done")
    assert feed.asked.count(sent) == 6


# -- models ----------------------------------------------------------------------------------------


def test_a_request_is_explained_as_the_command_does(chromium: Browser, feed: FakeFeed) -> None:
    variants = [
        {"variant": "2k", "context": 2048, "holds": False},
        {"variant": "8k", "context": 8192, "holds": True},
    ]
    feed.answers["/gateway/explain"] = {
        "counted": 36, "counted_by": "engine", "is_exact": True, "answer": 4000,
        "clamped_from": 9000, "need": 4089, "start_need": 4498, "variants": variants,
        "variant": "8k", "reason": "both bounds need this one", "decision": "swapped",
        "evicts": ["gemma:1"], "expected_wait_s": 12.0, "expected_load_s": 8.0,
        "back_off": "qwen:8k failed once; the next start is in 0.5 s", "kv": "nothing is saved",
    }  # fmt: skip
    page = opened(chromium, feed, "models")
    page.fill("#explain-text", "Hi")
    page.click("gw-models form .primary")
    page.wait_for("document.querySelector('.explained').innerText.includes('nothing is saved')")
    (said,) = texts(page, ".explained")
    for part in (
        "36 tokens, counted by engine", "at most 4,000 tokens, lowered from 9,000",
        "4,089 tokens with the answer, 4,498 for an engine", "2k, 8k (fits)",
        "8k: both bounds need this one", "gemma:1", "12 s, 8.0 s of it for a load", "failed once",
    ):  # fmt: skip
        assert part in said


# -- requests --------------------------------------------------------------------------------------


def test_the_way_of_a_request_that_waits_goes_on_by_itself(
    chromium: Browser, feed: FakeFeed
) -> None:
    feed.snapshot["requests"] = [request(1, "qwen", "waiting", sentence="qwen loads")]
    page = opened(chromium, feed, "requests/req-1")
    way = "document.querySelector('.waterfall')?.innerText"
    page.wait_for(way)
    page.wait_for(f"{way} !== {json.dumps(page.evaluate(way))}", within_s=10)
    assert feed.asked == ["GET /gateway/events"]


def test_a_table_says_in_csv_when_a_request_came_and_no_formula(
    chromium: Browser, feed: FakeFeed
) -> None:
    over: Json = {"outcome": "ok", "arrived_s": 1764374400.25, "client": "=1+1", "took_s": 2.5}
    feed.snapshot["recent"] = [request(1, "qwen", "done", **over)]
    page = opened(chromium, feed, "requests")
    page.wait_for("document.querySelector('tbody tr')")
    page.evaluate(
        "Object.defineProperty(navigator, 'clipboard',"
        " { value: { writeText: async (text) => { window.copied = text; } } })"
    )
    page.evaluate(
        "[...document.querySelectorAll('button')]"
        ".find((button) => button.textContent === 'Copy as CSV').click()"
    )
    page.wait_for("window.copied")
    titles, row = page.evaluate("window.copied").split("\r\n")
    assert titles.startswith("Time,Model,Client,")
    assert row.startswith("2025-11-29T00:00:00.250Z,qwen,'=1+1,done,")


def test_older_requests_may_be_forgotten_by_now(chromium: Browser, feed: FakeFeed) -> None:
    page = opened(chromium, feed, "requests")
    forgotten = {"message": "?before=req-1 is not …", "code": "invalid_parameter"}
    feed.answers["/gateway/requests"] = {"error": forgotten}
    page.click("gw-requests .foot button")
    page.wait_for_text("The gateway remembers no older ones.")


def test_a_request_that_waited_in_vain_was_in_line(chromium: Browser, feed: FakeFeed) -> None:
    lost = request(4, "qwen", "done", outcome="cancelled", took_s=9.0, waited_s=8.5)
    feed.snapshot["recent"] = [lost]
    page = opened(chromium, feed, "requests/" + lost["id"])
    page.wait_for("document.querySelector('.waterfall')")
    steps = [step.split("\n") for step in texts(page, ".waterfall li")]
    assert [(step[0], step[-1]) for step in steps] == [
        ("read and counted", "0.50 s"), ("in line", "8.5 s")
    ]  # fmt: skip


# -- the connection -------------------------------------------------------------------------------


def test_a_lost_connection_is_shown_and_goes_on_where_it_broke_off(
    chromium: Browser, feed: FakeFeed
) -> None:
    page = opened(chromium, feed)
    feed.refuses = True
    feed.break_off()
    page.wait_for_text("Connection lost")
    feed.refuses = False
    page.wait_for(LIVE)
    assert feed.last_ids[0] is None
    assert feed.last_ids[1] == "run-1"


@pytest.mark.parametrize("file", ["views/now.css", "views/now.js", "views/first_steps.js"])
def test_a_view_that_was_missing_is_loaded_once_the_gateway_is_back(
    chromium: Browser, feed: FakeFeed, file: str
) -> None:
    """The gateway went while the page was being loaded."""
    feed.missing.add(file)
    page = opened(chromium, feed, "now")
    page.wait_for_text("could not be loaded")
    feed.missing.clear()
    feed.break_off()
    page.wait_for_text("Nothing has happened yet")
    assert page.evaluate("document.styleSheets.length") == 2


def test_a_view_that_stays_missing_is_not_asked_for_again_and_again(
    chromium: Browser, feed: FakeFeed
) -> None:
    feed.missing.add("views/now.js")
    page = opened(chromium, feed, "models")
    page.wait_for("document.querySelector('main > gw-models')")
    page.evaluate("location.hash = 'now'")
    page.wait_for_text("could not be loaded")
    feed.break_off()
    page.wait_for("performance.getEntriesByType('navigation')[0].type === 'reload'")
    page.wait_for_text("could not be loaded")
    page.wait_for(LIVE)
    page.evaluate("new Promise((resolve) => setTimeout(resolve, 300))")
    assert len(feed.last_ids) == 3
    page.evaluate("location.hash = 'models'")
    page.wait_for("document.querySelector('main > gw-models')")


def test_a_key_is_asked_for_and_kept_for_the_tab(chromium: Browser) -> None:
    with fake_feed(snapshot(pools=[pool()]), key="tg-secret-0123") as feed:
        page = chromium.page(feed.url)
        page.wait_for("document.querySelector('dialog.key')?.open")
        page.fill("#key", "wrong")
        page.press("Enter")
        page.wait_for_text("unknown API key")
        page.fill("#key", "tg-secret-0123")
        page.press("Enter")
        page.wait_for(f"{LIVE} && !document.querySelector('dialog.key').open")
        page.reload()
        page.wait_for(LIVE)
        assert page.evaluate("Object.keys(localStorage).length + document.cookie.length") == 0
        other = chromium.page(feed.url)
        other.wait_for("document.querySelector('dialog.key')?.open")


def test_escape_does_not_leave_a_page_without_a_way_to_give_a_key(chromium: Browser) -> None:
    """A browser lets a page keep its dialog once, and closes it at the second try."""
    with fake_feed(snapshot(pools=[pool()]), key="tg-secret-0123") as feed:
        page = chromium.page(feed.url)
        page.wait_for("document.querySelector('dialog.key')?.open")
        for _ in range(3):
            page.press("Escape")
            page.wait_for("document.querySelector('dialog.key').open")
            page.wait_for("document.activeElement?.id === 'key'")
        page.fill("#key", "tg-secret-0123")
        page.press("Enter")
        page.wait_for(f"{LIVE} && !document.querySelector('dialog.key').open")


# -- all of it ------------------------------------------------------------------------------------


def filled(feed: FakeFeed, word: str) -> None:
    """So that each view has this in all that others say: names, reasons, errors, lines, answers."""
    feed.answers["/gateway/requests"] = {"requests": [], "more": False}
    feed.answers["/gateway/explain"] = {
        "bounds": {"lower": 1, "upper": 9}, "counted": 5, "counted_by": word, "is_exact": True,
        "need": 9, "variant": word, "reason": word, "decision": word, "engine_state": word,
        "refused": word, "evicts": [word], "kv": word, "expected_wait_s": None,
    }  # fmt: skip
    feed.answers["/gateway/configuration"] = {
        "source": word, "notes": [word], "missing": [word], "mistakes": [word],
        "configuration": {"server": {word: word}, "models": [{"name": word, "args": [word, word]}]},
    }  # fmt: skip
    variant = {"name": word, "context": 8192, "parallel": 1, "load_is": word, "load_s": 1.0}
    variant |= {"memory_bytes": GIB, "memory_is": word}
    feed.snapshot["pools"] = [pool(word)]
    feed.snapshot["models"] = [
        model(word, variants=[variant], aliases=[word], pool=word, carryover=word, engine_type=word)
    ]
    feed.snapshot["engines"] = [engine(1, word, pool=word, variant=word, next=word)]
    feed.snapshot["requests"] = [
        request(1, word, "waiting", sentence=word, client=word),
        request(2, word, "answering", variant=word, client=word, evicted=[word]),
    ]
    over: Json = {"error": word, "took_s": 1, "why": word, "conversation": word, "client": word}
    over |= {"cache_break": word, "counted_by": word, "counted_tokens": 1, "variant": word}
    feed.snapshot["recent"] = [request(3, word, "done", outcome="failed", **over)]
    told = {"pool": word, "reason": word, "variant": word, "evicted": [word]}
    feed.snapshot["timeline"] = [moment(9, 1, word, "starting", **told)]
    feed.logs = [{"at_s": 1.0, "level": "ERROR", "text": f"\x1b[31m{word}\x1b[0m"}]
    feed.chat = chat_pieces(word)
    feed.chat_headers = {"x-gateway-variant": word, "x-gateway-model": word}


# What is the last to come.
SHOWN = {"logs": "document.querySelectorAll('.lines > div').length === 2"}


def say_lines(feed: FakeFeed, *texts: str, begins: bool = True) -> None:
    """Of both logs that the page follows."""
    sources = ("gateway", "qwen:1")
    lines = [
        {"at_s": 1.0, "level": "ERROR", "source": source, "text": text}
        for source in sources
        for text in texts
    ]
    feed.say("lines", {"begins": begins, "lines": lines})


# What is done in a view before it shows all that it can.
DONE_FIRST = {
    "requests": "location.hash = 'requests/req-3'",
    "models": "document.querySelector('gw-models form').requestSubmit()",
    "configuration": "document.querySelectorAll('details').forEach((d) => { d.open = true; })",
}


@pytest.mark.parametrize("view", VIEWS)
def test_whatever_is_said_is_text(chromium: Browser, feed: FakeFeed, view: str) -> None:
    """Scripts in names, sentences, reasons, configurations, log lines and answers."""
    filled(feed, HOSTILE)
    page = opened(chromium, feed, view)
    page.wait_for(f"document.querySelector('main > gw-{view}')")
    feed.say("request", feed.snapshot["requests"][0])
    feed.say("log", {"at_s": 1.0, "level": "ERROR", "source": HOSTILE, "text": HOSTILE})
    if view == "logs":
        page.wait_for(SHOWN["logs"])
        say_lines(feed, HOSTILE, begins=False)
        page.wait_for("document.querySelectorAll('.lines > div').length === 4")
    if view == "chat":
        page.fill("#chat-prompt", HOSTILE)
        page.press("Enter")
        page.wait_for("document.querySelector('.assistant .body')?.textContent.length > 20")
    page.wait_for(f"document.querySelector('main').textContent.includes({json.dumps(HOSTILE)})")
    page.evaluate(DONE_FIRST.get(view, "0"))
    page.wait_for(f"document.querySelectorAll('.explained dd').length > 5 || '{view}' !== 'models'")
    page.wait_for(f"document.querySelector('.detail .facts') || '{view}' !== 'requests'")
    assert page.evaluate("document.querySelectorAll('main script, main img').length") == 0
    page.evaluate("new Promise((resolve) => setTimeout(resolve, 50))")
    assert "gone" not in page.evaluate("document.title")
    assert_clean(page, feed)


def assert_clean(page: Page, feed: FakeFeed) -> None:
    """Nothing in the console, and no request to elsewhere."""
    assert page.complaints == []
    assert [url for url in page.asked if not url.startswith(feed.url.removesuffix("ui/"))] == []


@pytest.mark.parametrize("view", VIEWS)
def test_a_lost_connection_is_shown_and_mended_in_each_view(
    chromium: Browser, feed: FakeFeed, view: str
) -> None:
    filled(feed, "a-word")
    page = opened(chromium, feed, view)
    page.wait_for("document.querySelector('main').textContent.includes('a-word')")
    page.wait_for(SHOWN.get(view, "true"))
    feed.refuses = True
    feed.break_off()
    page.wait_for_text("Connection lost")
    feed.refuses = False
    assert "a-word" in page.evaluate("document.querySelector('main').textContent")
    page.wait_for(LIVE)
    feed.say("model", model("a-newer-word"))
    if view in ("models", "chat", "logs"):
        page.wait_for("document.querySelector('main').textContent.includes('a-newer-word')")
    if view == "logs":
        page.wait_for(SHOWN["logs"])
        say_lines(feed, "once", "more", begins=False)
        page.wait_for("document.querySelectorAll('.lines > div').length === 6")
    assert page.evaluate(f"document.querySelector('main > gw-{view}') !== null")
    page.complaints = [said for said in page.complaints if "503" not in said]  # while it refuses
    assert_clean(page, feed)


def test_filters_and_order_of_requests_stay_over_a_reload(
    chromium: Browser, feed: FakeFeed
) -> None:
    feed.answers["/gateway/requests"] = {"requests": [], "more": False}
    feed.snapshot["recent"] = [
        request(number, name, "done", outcome="ok", took_s=took_s, conversation=conversation)
        for number, name, took_s, conversation in (
            (1, "qwen", 3.0, "ann: A"), (2, "gemma", 1.0, "ann: a"), (3, "gemma", 2.0, "bob: a"),
        )
    ]  # fmt: skip
    page = opened(chromium, feed, "requests")
    rows = "[...document.querySelectorAll('tbody tr a')].map((a) => a.hash).join(' ')"
    page.wait_for(f"{rows} === '#requests/req-3 #requests/req-2 #requests/req-1'")
    page.fill("gw-requests input[type=search]", "gemma")
    heads = "[...document.querySelectorAll('th button')].find((b) => b.innerText === 'Took')"
    page.evaluate(f"{heads}.click()")
    page.evaluate(f"{heads}.click()")
    page.evaluate("location.hash = 'requests/req-2'")
    for _ in range(2):
        page.wait_for(f"{rows} === '#requests/req-2 #requests/req-3'")
        page.wait_for(
            "document.querySelector('.detail:not([hidden])')?.innerText.includes('req-2')"
        )
        assert page.evaluate("location.hash") == "#requests/req-2"
        assert page.evaluate("document.querySelector('[aria-sort]').ariaSort") == "ascending"
        page.reload()
        page.wait_for(LIVE)
    page.click(".detail .foot button")  # its conversation, and none that looks alike
    page.wait_for(f"{rows} === '#requests/req-2'")
    assert_clean(page, feed)


def test_what_is_shown_of_logs_stays_over_a_reload(chromium: Browser, feed: FakeFeed) -> None:
    feed.logs = [
        {"at_s": 1.0, "level": "INFO", "text": text} for text in ("one", "two", "three", "one two")
    ]
    page = opened(chromium, feed, "logs/gemma")
    page.click("#log-expression")
    page.click("#log-follow")
    page.fill("gw-logs input[type=search]", "^(one|two)$")
    shown = "[...document.querySelectorAll('.lines > div:not([hidden])')].length"
    for _ in range(2):
        page.wait_for(f"{shown} === 4")
        assert page.evaluate("location.hash") == "#logs/gemma"
        assert page.evaluate("document.querySelector('#log-follow').checked") is False
        page.reload()
        page.wait_for(LIVE)
    logs = "GET /gateway/events?logs=gateway&logs=gemma&lines=500"
    assert {*feed.asked} == {"GET /gateway/events", logs}
    assert_clean(page, feed)


def test_a_change_of_view_or_engine_asks_for_other_logs_and_no_snapshot(
    chromium: Browser, feed: FakeFeed
) -> None:
    page = opened(chromium, feed, "logs/gemma")
    asked = "GET /gateway/events?logs=gateway&logs={}&lines=500"
    eventually(lambda: asked.format("gemma") in feed.asked, within_s=10)
    page.evaluate("location.hash = 'logs/qwen'")
    eventually(lambda: asked.format("qwen") in feed.asked, within_s=10)
    page.evaluate("location.hash = 'now'")
    eventually(lambda: feed.asked.count("GET /gateway/events") == 2, within_s=10)
    assert feed.last_ids[0] is None
    assert None not in feed.last_ids[1:]
    assert page.evaluate("document.body.dataset.connection") == "live"
    assert_clean(page, feed)


def test_who_is_no_admin_is_told_that_logs_are_not_for_them(
    chromium: Browser, feed: FakeFeed
) -> None:
    feed.snapshot["admin"] = False
    page = opened(chromium, feed, "logs")
    page.wait_for_text("key to see the logs.")
    assert feed.asked == ["GET /gateway/events"]


def test_colours_of_all_kinds_are_shown_and_what_is_for_a_terminal_is_not(
    chromium: Browser, feed: FakeFeed
) -> None:
    said = (
        "\x1b[38;5;196mred\x1b[0m \x1b[38;5;37mcyan\x1b[m \x1b[48;5;1mground\x1b[0m"
        " \x1b[38;2;20;240;10mgreen\x1b[39m \x1b[2K\x1b[1Gnone \x1b]0;title\x07end"
    )
    feed.logs = [{"at_s": 1.0, "level": "INFO", "text": said}]
    page = opened(chromium, feed, "logs/qwen")
    line = ".card:last-child .lines > div"
    page.wait_for(f"document.querySelector({json.dumps(line)})")
    assert texts(page, line)[0].endswith(" red cyan ground green none end")
    assert texts(page, f"{line} .ansi-red") == ["red"]
    assert texts(page, f"{line} .ansi-cyan") == ["cyan"]
    assert texts(page, f"{line} .ansi-green") == ["green"]
    assert texts(page, f"{line} .ansi-bold") == []
    page.fill("gw-logs input[type=search]", "green none end")
    assert texts(page, f"{line}:not([hidden])") != []


@pytest.mark.parametrize("place", ["logs/100%", "models/%E0%A4%A", "requests/%", "timeline/%"])
def test_a_place_that_nobody_made_is_a_view_all_the_same(
    chromium: Browser, feed: FakeFeed, place: str
) -> None:
    feed.answers["/gateway/requests"] = {"requests": [], "more": False}
    page = opened(chromium, feed, place)
    page.wait_for(f"document.querySelector('main > gw-{place.partition('/')[0]}')")
    page.evaluate("location.hash = 'now'")
    page.wait_for("document.querySelector('main > gw-now')")
    assert_clean(page, feed)


def test_a_link_to_a_model_leads_to_it(chromium: Browser, feed: FakeFeed) -> None:
    feed.snapshot["models"] += [model(f"m/{number}") for number in range(30)]
    feed.snapshot["engines"] = [engine(1, "m/25")]
    page = opened(chromium, feed)
    page.click(".engine a.model")
    page.wait_for("document.activeElement.getAttribute('aria-label') === 'm/25'")
    top = page.evaluate("document.activeElement.getBoundingClientRect().top")
    assert 0 < top < page.evaluate("innerHeight")
    page.reload()
    page.wait_for("document.activeElement?.getAttribute('aria-label') === 'm/25'")
    assert_clean(page, feed)


def test_an_older_request_stays_open_over_a_reload(chromium: Browser, feed: FakeFeed) -> None:
    """The snapshot has the last ones only."""
    over: Json = {"outcome": "ok", "took_s": 1.0}
    feed.snapshot["recent"] = [request(9, "qwen", "done", **over)]
    feed.answers["/gateway/requests"] = {
        "requests": [request(number, "gemma", "done", **over) for number in (9, 8, 7)],
        "more": False,
    }
    page = opened(chromium, feed, "requests/req-7")
    for _ in range(2):
        page.wait_for("!document.querySelector('.detail').hidden")
        assert "req-7" in texts(page, ".detail")[0]
        page.reload()
    page.evaluate("location.hash = 'requests/req-1'")
    page.wait_for_text("does not remember the request")
    assert page.evaluate("document.querySelector('.detail').hidden") is True
    page.evaluate("location.hash = 'requests/req-9'")
    page.wait_for("!document.querySelector('.detail').hidden")
    assert "does not remember" not in page.seen()
    assert_clean(page, feed)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("width", [360, 1280])
def test_a_very_long_name_makes_no_view_wider(
    chromium: Browser, feed: FakeFeed, view: str, width: int
) -> None:
    name = "vendor/" + "A-Model-With-A-Very-Long-Name-" * 6
    filled(feed, name)
    page = opened(chromium, feed, view, width=width, height=740)
    page.wait_for(f"document.querySelector('main > gw-{view}')")
    page.wait_for(f"document.querySelector('main').textContent.includes({json.dumps(name)})")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_fits_a_narrow_screen_and_keeps_its_place(
    chromium: Browser, feed: FakeFeed, view: str
) -> None:
    feed.answers["/gateway/requests"] = {"requests": [], "more": False}
    feed.snapshot["engines"] = [engine(1, "a-model-with-quite-a-long-name-q4_k_m", leases=3)]
    feed.snapshot["requests"] = [
        request(1, "a-model-with-quite-a-long-name-q4_k_m", "waiting", sentence="waits " * 30)
    ]
    page = opened(chromium, feed, view, width=360, height=740)
    page.wait_for(f"document.querySelector('main > gw-{view}')")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    page.reload()
    page.wait_for(LIVE)
    page.wait_for(f"document.querySelector('main > gw-{view}')")
    current = page.evaluate("document.querySelector('[aria-current]').getAttribute('href')")
    assert current == f"#{view}"
    assert not [url for url in page.asked if not url.startswith(feed.url.removesuffix("ui/"))]


def test_tabs_stay_where_they_are_while_the_connection_is_lost(chromium: Browser) -> None:
    with fake_feed(snapshot(pools=[pool()]), key="tg-secret-0123") as feed:
        page = chromium.page(feed.url, width=360, height=740)
        page.wait_for("document.querySelector('dialog.key')?.open")
        page.fill("#key", "tg-secret-0123")
        page.press("Enter")
        page.wait_for(LIVE)
        place = "document.querySelector('nav').getBoundingClientRect().top"
        before = page.evaluate(place)
        feed.refuses = True
        feed.break_off()
        page.wait_for_text("Connection lost")
        assert page.evaluate(place) == before


def test_tabs_are_reached_with_the_keyboard_alone(chromium: Browser, feed: FakeFeed) -> None:
    page = opened(chromium, feed)
    page.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for _ in range(3):
        page.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#timeline"
    page.press("Enter")
    page.wait_for("document.querySelector('main > gw-timeline')")


def test_it_is_dark_and_light_after_the_system(chromium: Browser, feed: FakeFeed) -> None:
    page = opened(chromium, feed)
    ground = "getComputedStyle(document.body).backgroundColor"
    page.prefer(color_scheme="light")
    light = page.evaluate(ground)
    page.prefer(color_scheme="dark")
    assert page.evaluate(ground) != light


def test_a_picture_can_be_taken(chromium: Browser, feed: FakeFeed, tmp_path: Path) -> None:
    """So that views can be looked at: a PNG of what is to be seen."""
    opened(chromium, feed).picture(tmp_path / "now.png")
    assert (tmp_path / "now.png").read_bytes().startswith(b"\x89PNG")
