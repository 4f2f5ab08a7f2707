"""All that the page can show, at once: a feed with everything in it, and each view with everything
open that it has. For tests of how the views are made, and to look at them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from tests.support.driven_browser import Page
from tests.support.fake_feed import (
    GIB,
    FakeFeed,
    Json,
    chat_pieces,
    engine,
    model,
    moment,
    pool,
    request,
    snapshot,
)

WAITS = "waits for 2 answers of qwen to end, then gemma loads (about 8 s); 3 requests are before it"
OPEN_ALL = "document.querySelectorAll('details').forEach((part) => { part.open = true; })"
FAILED = "the engine exited with 1: CUDA out of memory"


def everything() -> Json:
    """A snapshot: engines in each state, requests in each stage and with each outcome."""
    return snapshot(
        pools=[
            pool(engines_max=4, used_bytes=18 * GIB, other_bytes=3 * GIB, measured_bytes=20 * GIB),
            pool("cpu", memory_bytes=None, engines_max=1),
        ],
        engines=[
            engine(1, "qwen", leases=2, speed=41.5, state="draining", pinned=True,
                   next="drains for gemma: 2 answers are running"),
            engine(2, "gemma", state="starting", evicted=["qwen:1"], started_at_s=time.time() - 3),
            engine(3, "mistral", next="stops in 140 s if nobody asks"),
            engine(4, "phi", state="failed", next=f"starts again in 12 s; {FAILED}"),
        ],
        requests=[
            request(1, "qwen", "answering", generated_tokens=128, speed=41.5, variant="1",
                    granted_after_s=0.1, first_byte_after_s=1.0, engine=1),
            request(2, "qwen", "reading", counted_tokens=2048, variant="1", granted_after_s=0.5,
                    client="editor", priority="batch", engine=1),
            request(3, "gemma", "waiting", sentence=WAITS, position=1, expected_wait_s=9.0),
        ],
        recent=[_over(4, "ok", engine=3), _over(5, "ok", model="qwen", speed=38.0, engine=1),
                _over(6, "failed", error=FAILED, status=502, model="phi", speed=None),
                _over(7, "refused", error="too many requests wait", status=429, speed=None),
                _over(8, "cancelled", speed=None), _over(9, "client_gone", speed=None)],
        timeline=[
            moment(900, 1, "qwen", "starting"), moment(890, 1, "qwen", "ready", load_s=10.0),
            moment(800, 3, "mistral", "starting", evicted=["phi:1"]),
            moment(780, 3, "mistral", "ready", load_s=20.0),
            moment(500, 5, "phi", "starting"), moment(490, 5, "phi", "failed", reason=FAILED),
            moment(480, 5, "phi", "gone"),
            moment(60, 1, "qwen", "draining", reason="gemma waits for its memory"),
            moment(3, 2, "gemma", "starting", evicted=["qwen:1"]),
        ],
        models=[
            _model("qwen", "loaded", pinned=True, aliases=["gpt-4o"]), _model("gemma", "loading"),
            _model("mistral", "loaded", carryover="its cache is one that slides"),
            _model("phi", "failed", hidden=True),
        ],
        captures={"model": "qwen", "left": 2, "until_s": time.time() + 60, "bytes": 4096},
    )  # fmt: skip


def fill(feed: FakeFeed) -> None:
    """What a feed with this snapshot answers."""
    feed.snapshot = everything()
    feed.answers["/gateway/requests"] = {"requests": [_over(10, "ok")], "more": True}
    counts = {"answers": 12, "exact_share": 0.75, "least": -3, "median": 0, "most": 2}
    for name in ("qwen", "gemma", "mistral", "phi"):
        feed.answers[f"/gateway/models/{name}"] = {"count_errors": {"the engine": counts}}
    feed.answers["/gateway/models/phi/load"] = {"error": {"message": FAILED, "code": "engine"}}
    feed.answers["/gateway/explain"] = {
        "counted": 31, "counted_by": "the vocabulary", "is_exact": True, "need": 47,
        "variant": "1", "reason": "47 fit into 32768", "answer": 16, "start_need": 55,
        "decision": "swap", "evicts": ["qwen:1"], "engine_state": None,
        "expected_wait_s": 9.0, "kv": "nothing is saved", "refused": None,
    }  # fmt: skip
    feed.answers["/gateway/reload"] = {"changes": ["+ model mistral"]}
    feed.answers["/gateway/configuration"] = {
        "source": "/etc/trio-gateway/gateway.lua", "notes": ["qwen: its file is not there"],
        "mistakes": ["gateway.lua: server.queue_limit: expected a number"],
        "missing": ["/models/phi.gguf"],
        "configuration": {
            "server": {"listen_v4": "127.0.0.1:7777", "api_keys": [{"name": "a", "key": "•••"}]},
            "pools": {"gpu": {"engines_max": 4, "memory": None}},
            "models": [{"name": "qwen", "variants": [{"context": 32768, "args": ["-ngl", "99"]}]}],
        },
    }  # fmt: skip
    coloured = " ".join(f"\x1b[{30 + colour}mcolour {colour}\x1b[0m" for colour in range(8))
    texts = [f"srv  update_slots: line {number}" for number in range(60)]
    texts += [coloured, "\x1b[1mbold \x1b[2mdim"]
    lines = [*(("INFO", text) for text in texts), ("WARNING", "slow"), ("ERROR", "no")]
    feed.logs = [
        {"at_s": time.time(), "level": level, "source": "gateway", "text": text}
        for level, text in lines
    ]
    reasons = {"choices": [{"index": 0, "delta": {"reasoning_content": "They greet me."}}]}
    feed.chat = [f"data: {json.dumps(reasons)}\n\n".encode(), *chat_pieces("Hello ", "there")]
    feed.chat_headers = {
        "x-gateway-request-id": "req-4", "x-gateway-model": "mistral", "x-gateway-variant": "1",
        "x-gateway-need": "512", "x-gateway-decision": "swapped; evicted=gemma:1",
        "x-gateway-queue-ms": "9100", "x-gateway-load-ms": "8000",
    }  # fmt: skip


def _over(number: int, outcome: str, **parts: object) -> Json:
    row: Json = {
        "arrived_s": time.time() - 60 * (12 - number), "outcome": outcome, "took_s": 9.4,
        "waited_s": 1.5, "load_s": 4.0, "granted_after_s": 5.6, "sent_after_s": 5.7,
        "first_byte_after_s": 6.2, "prompt_tokens": 2019, "cached_tokens": 1800,
        "generated_tokens": 120, "speed": 44.0, "status": 200, "decision": "swapped",
        "evicted": ["gemma:1"], "why": "2,139 fit into 32,768", "variant": "1", "context": 32768,
        "conversation": "7f3a", "request_bytes": 8100, "answer_bytes": 2200,
    }  # fmt: skip
    return {**request(number, "mistral", "done"), **row, **parts}


def _model(name: str, state: str, **parts: object) -> Json:
    variants = [
        {"name": "1", "context": 32768, "parallel": 4, "memory_bytes": 6 * GIB,
         "memory_is": "measured", "load_s": 8.2, "load_is": "measured"},
        {"name": "2", "context": 131072, "parallel": 1, "memory_bytes": None, "memory_is": None,
         "load_s": None, "load_is": None},
    ]  # fmt: skip
    return model(name, state=state, variants=variants, **parts)


# -- each view with all that it has open -----------------------------------------------------------


def _now(page: Page) -> None:
    page.wait_for("document.querySelectorAll('.engine').length === 4")
    page.wait_for("document.querySelectorAll('.ended .request').length === 6")


def _timeline(page: Page) -> None:
    page.wait_for("document.querySelector('svg .request')")
    page.evaluate("document.querySelector('svg [tabindex]').focus()")
    page.wait_for("!document.querySelector('.tip').hidden")


def _requests(page: Page) -> None:
    page.wait_for("document.querySelectorAll('tbody tr').length >= 9")
    page.wait_for("document.querySelector('.waterfall li')")
    page.evaluate("document.querySelector('.columns').open = true")


def _models(page: Page) -> None:
    page.wait_for("document.querySelectorAll('.models .card').length === 4")
    page.evaluate(OPEN_ALL)
    page.wait_for("document.querySelectorAll('.counts td').length === 4 * 6")
    page.click("[aria-label=phi] header button")
    page.wait_for("document.querySelector('[aria-label=phi] .fault').innerText !== ''")
    page.fill("#explain-text", "How long is this?")
    page.click("form .primary")
    page.wait_for("document.querySelector('.explained dt')")


def _logs(page: Page) -> None:
    for place in (0, 1):
        lines = f"document.querySelectorAll('.lines')[{place}]"
        page.wait_for(f"{lines}.querySelector('[data-level=ERROR]')")
    page.click("#log-expression")
    page.fill("input[type=search]", "no [expression")
    page.wait_for("document.querySelector('.fault').innerText !== ''")


def _chat(page: Page) -> None:
    page.fill("#chat-prompt", "Hi")
    page.press("Enter")
    page.wait_for("document.querySelector('.assistant .body')?.innerText === 'Hello there'")
    page.evaluate("document.querySelector('.assistant .reasoning').open = true")
    page.fill("#load-all", "5")
    page.click(".load-test .primary")
    page.wait_for_text("5 of 5 done")


def _configuration(page: Page) -> None:
    page.wait_for("document.querySelector('details')")
    page.evaluate("document.querySelector('details').className = 'before'")
    page.click("main button")
    page.wait_for_text("Changed: + model mistral")
    page.wait_for("document.querySelector('details') && !document.querySelector('.before')")
    page.evaluate(OPEN_ALL)


# Its place, and what opens what it has.
VIEWS: dict[str, tuple[str, Callable[[Page], None]]] = {
    "now": ("now", _now),
    "timeline": ("timeline", _timeline),
    "requests": ("requests/req-6", _requests),
    "models": ("models", _models),
    "logs": ("logs/qwen", _logs),
    "chat": ("chat", _chat),
    "configuration": ("configuration", _configuration),
}
