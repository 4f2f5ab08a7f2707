"""The page at /ui/: its files, their headers, the way to it, and who gets them without a key."""

from __future__ import annotations

import json
import re

import httpcore
import pytest

from tests.support import source
from tests.support.asking import Clock, header
from tests.support.schema_values import config, model
from tests.support.stack import Stack, running_stack
from trio_gateway.config.access_schema import AccessConfig, ApiKey
from trio_gateway.config.schema import GatewayConfig
from trio_gateway.server.handlers.page import read_page

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
ADMIN = "tg-admin-0123456789"
KEYED = AccessConfig(
    allowed_hosts=("gateway",), api_keys=(ApiKey(name="admin", secret=ADMIN, admin=True),)
)
VIEW_LINES = 300
FOLDER = source.ROOT / "trio_gateway" / "page"


def served(*, page: bool = True, access: AccessConfig | None = None) -> GatewayConfig:
    plain = config(model("m"), page=page)
    return plain if access is None else config(model("m"), page=page, access=access)


async def get(stack: Stack, path: str, **headers: str) -> httpcore.Response:
    given = {"Host": "gateway", **{n.replace("_", "-"): v for n, v in headers.items()}}
    return await stack.http.request("GET", f"http://gateway{path}", headers=[*given.items()])


async def test_each_file_of_the_page_is_served_as_it_is(autojump_clock: Clock) -> None:
    kinds = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg"}
    async with running_stack(served()) as stack:
        for name, file in read_page().items():
            answer = await get(stack, f"/ui/{name}")
            assert answer.status == 200, name
            assert answer.content == file.body == (FOLDER / name).read_bytes()
            assert header(answer, "Content-Type").startswith(kinds[name.rpartition(".")[2]])
        assert (await get(stack, "/ui/")).content == (FOLDER / "index.html").read_bytes()


async def test_nothing_but_its_own_files_is_run_or_framed(autojump_clock: Clock) -> None:
    async with running_stack(served()) as stack:
        answer = await get(stack, "/ui/")
        policy = header(answer, "Content-Security-Policy").split("; ")
        assert policy[0] == "default-src 'self'"
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in " ".join(policy)
        assert header(answer, "X-Content-Type-Options") == "nosniff"
        assert header(answer, "X-Frame-Options") == "DENY"
        assert header(answer, "Referrer-Policy") == "no-referrer"


async def test_a_file_that_a_browser_has_is_not_sent_again(autojump_clock: Clock) -> None:
    async with running_stack(served()) as stack:
        etag = header(await get(stack, "/ui/app.js"), "ETag")
        for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
            again = await get(stack, "/ui/app.js", If_None_Match=known)
            assert (again.status, again.content, header(again, "ETag")) == (304, b"", etag)
        assert (await get(stack, "/ui/app.js", If_None_Match='"other"')).status == 200
        assert header(await get(stack, "/ui/style.css"), "ETag") != etag
        assert header(await get(stack, "/ui/app.js"), "Cache-Control") == "no-cache"


@pytest.mark.parametrize(
    "path", ["/ui/none.js", "/ui/../gateway.py", "/ui/views/..%2F..%2Flog.py", "/ui/views"]
)
async def test_there_are_no_other_files(path: str, autojump_clock: Clock) -> None:
    async with running_stack(served()) as stack:
        answer = await get(stack, path)
        assert answer.status == 404
        assert json.loads(answer.content)["error"]["code"] == "unknown_path"


async def test_a_browser_is_led_to_the_page_and_ollamas_clients_are_not(
    autojump_clock: Clock,
) -> None:
    async with running_stack(served()) as stack:
        led = await get(stack, "/", **BROWSER)
        assert (led.status, header(led, "Location")) == (302, "/ui/")
        refused = {"Accept": "application/json, text/html; q=0.0"}
        for accepts in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}, refused):
            answer = await get(stack, "/", **accepts)
            assert (answer.status, answer.content) == (200, b"Ollama is running")
            assert "Accept" in header(answer, "Vary")
        for accepted in ("TEXT/HTML", "text/html;q=0.01", "text/html;level=1"):
            assert (await get(stack, "/", Accept=accepted)).status == 302, accepted
        without_slash = await get(stack, "/ui")
        assert (without_slash.status, header(without_slash, "Location")) == (302, "/ui/")


async def test_it_can_be_switched_off(autojump_clock: Clock) -> None:
    async with running_stack(served(page=False)) as stack:
        for path in ("/ui/", "/ui", "/ui/app.js"):
            assert (await get(stack, path)).status == 404, path
        answer = await get(stack, "/", **BROWSER)
        assert (answer.status, answer.content) == (200, b"Ollama is running")


async def test_its_files_need_no_key_and_data_does(autojump_clock: Clock) -> None:
    async with running_stack(served(access=KEYED)) as stack:
        for path in ("/ui/", "/ui", "/ui/app.js", "/ui/views/now.js"):
            assert (await get(stack, path)).status in (200, 302), path
        assert (await get(stack, "/", **BROWSER)).status == 302
        for path in ("/", "/gateway/engines", "/v1/models", "/uix", "/Ui/"):
            assert (await get(stack, path)).status == 401, path
        for path in ("/gateway/engines", "/v1/models"):
            assert (await get(stack, path, **BROWSER)).status == 401, path


async def test_a_page_that_is_switched_off_lets_nobody_by(autojump_clock: Clock) -> None:
    async with running_stack(served(page=False, access=KEYED)) as stack:
        for path in ("/ui/", "/ui/app.js", "/"):
            assert (await get(stack, path, **BROWSER)).status == 401, path


def test_a_module_of_the_page_is_short() -> None:
    long = {
        str(file.relative_to(FOLDER)): lines
        for file in FOLDER.rglob("*.js")
        if (lines := len(file.read_text().splitlines())) >= VIEW_LINES
    }
    assert long == {}


def test_no_module_makes_html_of_text_or_asks_on_a_timer() -> None:
    """Only dom.js touches the document's text, and it has no way to HTML either."""
    html = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|DOMParser")
    elsewhere = re.compile(r"https?://(?!www\.w3\.org/2000/svg)")
    for file in sorted(FOLDER.rglob("*.[jhs]*")):
        text = file.read_text()
        assert not html.search(text), file.name
        if file.name != "icon.svg":
            assert not elsewhere.search(text), file.name
