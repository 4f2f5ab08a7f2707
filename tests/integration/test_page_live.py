"""The page in a real browser, with a real gateway and real engines behind it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.accessibility import assert_nothing_serious
from tests.support.driven_browser import Browser, Page, driven_browser
from tests.support.harness import (
    CLIENT_KEY,
    GatewayProcess,
    chat_body,
    configuration,
    fake_model,
    free_port,
    model,
    real_variant,
    running_gateway,
)

pytestmark = pytest.mark.untraced  # what it goes through, quicker tests count

LIVE = "document.body.dataset.connection === 'live'"
LONG = "Write a very long story about a lighthouse, and do not stop."


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """Two models with a real engine each, of which one is in memory at a time."""
    config = configuration(
        model("storyteller", real_variant(4096)), model("answerer", real_variant(2048))
    )
    with running_gateway(tmp_path_factory.mktemp("page"), config) as running:
        yield running
        assert " ERROR " not in running.log, running.log


@pytest.fixture(scope="module")
def shared_browser() -> Iterator[Browser]:
    with driven_browser() as browser:
        yield browser


@pytest.fixture
def chromium(shared_browser: Browser) -> Iterator[Browser]:
    yield shared_browser
    shared_browser.close_pages()


def opened(chromium: Browser, gateway: GatewayProcess, place: str) -> Page:
    page = chromium.page(f"{gateway.base_url}/ui/#{place}")
    page.wait_for(LIVE)
    return page


def asked_for(gateway: GatewayProcess, name: str, **fields: object) -> threading.Thread:
    """A chat that somebody else has."""
    client = threading.Thread(target=lambda: gateway.chat(name, LONG, ignore_eos=True, **fields))
    client.start()
    return client


def assert_clean(page: Page, gateway: GatewayProcess) -> None:
    """Nothing in the console, and no request to elsewhere."""
    assert page.complaints == []
    assert page.asked
    assert [url for url in page.asked if not url.startswith(f"{gateway.base_url}/")] == []


def test_a_swap_is_seen_with_its_reason(chromium: Browser, gateway: GatewayProcess) -> None:
    page = opened(chromium, gateway, "now")
    first = asked_for(gateway, "storyteller", max_tokens=200)
    page.wait_for("document.querySelector('.engine')?.innerText.includes('serving')")
    second = asked_for(gateway, "answerer", max_tokens=8)
    said = "document.querySelector('[aria-label=Waiting] .says')?.innerText ?? ''"
    page.wait_for(f"({said}).includes('storyteller')")
    page.wait_for("document.querySelector('.engine')?.innerText.includes('answerer')")
    page.wait_for("document.querySelectorAll('.ended .request').length === 2")
    first.join()
    second.join()
    page.evaluate("location.hash = 'timeline'")
    page.wait_for("document.querySelectorAll('svg g.engine').length >= 2")
    page.wait_for_text("in place of storyteller")
    assert_clean(page, gateway)


def test_cancel_ends_a_stream(chromium: Browser, gateway: GatewayProcess) -> None:
    page = opened(chromium, gateway, "now")
    ended: list[bytes] = []

    def stream() -> None:
        body = chat_body("answerer", LONG, stream=True, max_tokens=1900, ignore_eos=True)
        with gateway.client() as client:
            answer = client.stream("POST", "/v1/chat/completions", json=body)
            with answer as response:
                ended.extend(response.iter_bytes())

    client = threading.Thread(target=stream)
    client.start()
    page.wait_for("document.querySelector('[aria-label=Running] .says')?.innerText.includes('tok')")
    page.click("[aria-label=Running] .request button")
    page.wait_for("document.querySelector('.ended .request')?.innerText.includes('cancelled')")
    client.join()
    assert b"request_cancelled" in b"".join(ended)
    assert b"[DONE]" not in b"".join(ended)
    assert_clean(page, gateway)


def test_a_chat_is_answered_and_can_be_stopped(chromium: Browser, gateway: GatewayProcess) -> None:
    page = opened(chromium, gateway, "chat")
    page.wait_for("document.querySelector('#chat-model')?.options.length === 2")
    page.evaluate(
        "(() => { const m = document.querySelector('#chat-model'); m.value = 'answerer';"
        " m.dispatchEvent(new Event('input')); })()"
    )
    page.fill("#chat-max_tokens", "12")
    page.fill("#chat-prompt", "Say hello.")
    page.press("Enter")
    page.wait_for("document.querySelector('.assistant .body')?.innerText.length > 3")
    decided = "document.querySelector('.assistant .decision').innerText"
    page.wait_for(f"/Took\\s+\\d/.test({decided})")
    assert "answerer" in page.evaluate(decided)
    page.fill("#chat-max_tokens", "1500")
    page.fill("#chat-prompt", LONG)
    last = "[...document.querySelectorAll('.assistant')].at(-1)"
    # From within the page, as the answer may be over before a busy machine looks at it from here.
    page.evaluate(f"""new MutationObserver(() => {{
      if (document.querySelectorAll('.assistant').length < 2) return;
      if ({last}.querySelector('.body').textContent.length < 40) return;
      [...document.querySelectorAll('button')].find((b) => b.innerText === 'Stop')?.click();
    }}).observe(document.querySelector('gw-chat'), {{ childList: true, subtree: true,
      characterData: true }}); 0""")
    page.press("Enter")
    page.wait_for(f"{last}.innerText.includes('Stopped.')")
    page.reload()
    page.wait_for(LIVE)
    page.wait_for("document.querySelectorAll('.assistant').length === 2")
    assert page.evaluate("document.querySelector('#chat-model').value") == "answerer"
    assert_clean(page, gateway)


def test_a_load_test_draws_what_each_request_did(
    chromium: Browser, gateway: GatewayProcess
) -> None:
    page = opened(chromium, gateway, "chat")
    page.wait_for("document.querySelector('#chat-model')?.options.length === 2")
    for name, value in (("at_once", "2"), ("all", "3"), ("tokens", "8")):
        page.fill(f"#load-{name}", value)
    page.click(".load-test .primary")
    page.wait_for_text("3 of 3 done", within_s=60)
    page.wait_for("!!document.querySelector('.runs [data-phase=generating]')")
    assert_clean(page, gateway)


def test_a_gateway_with_keys_asks_for_one(chromium: Browser, tmp_path: Path) -> None:
    keys = f'{{ {{ name = "admin", key = "{CLIENT_KEY}", admin = true }} }}'
    with running_gateway(tmp_path, configuration(fake_model("fake"), api_keys=keys)) as gateway:
        page = chromium.page(f"{gateway.base_url}/ui/")
        page.wait_for("document.querySelector('dialog.key')?.open")
        page.fill("#key", CLIENT_KEY)
        page.press("Enter")
        page.wait_for(f"{LIVE} && !document.querySelector('dialog.key').open")
        page.wait_for("document.querySelector('.pool')")
        page.reload()
        page.wait_for("document.querySelector('.pool')")


def test_a_key_that_is_no_admins_sees_its_own_requests(chromium: Browser, tmp_path: Path) -> None:
    other = "tg-other-0123456789abcdef"
    keys = f'{{ {{ name = "one", key = "{CLIENT_KEY}" }}, {{ name = "two", key = "{other}" }} }}'
    with running_gateway(tmp_path, configuration(fake_model("fake"), api_keys=keys)) as gateway:
        page = chromium.page(f"{gateway.base_url}/ui/")
        page.wait_for("document.querySelector('dialog.key')?.open")
        page.fill("#key", CLIENT_KEY)
        page.press("Enter")
        page.wait_for_text("Nothing has happened yet")
        with gateway.client() as client:
            for key in (other, CLIENT_KEY):
                headers = {"Authorization": f"Bearer {key}"}
                body = chat_body("fake")
                client.post("/v1/chat/completions", json=body, headers=headers).raise_for_status()
        page.wait_for("document.querySelector('.ended .request')?.innerText.includes('one')")
        assert page.evaluate("document.querySelectorAll('.ended .request').length") == 1
        assert page.evaluate("document.querySelectorAll('.pool').length") == 0


def test_a_lost_gateway_is_found_again(chromium: Browser, tmp_path: Path) -> None:
    """Stopped and started anew at the same address: the page goes on by itself."""
    with running_gateway(tmp_path, configuration(fake_model("fake"))) as first:
        page = chromium.page(f"{first.base_url}/ui/")
        page.wait_for(LIVE)
        address = first.base_url.removeprefix("http://")
    page.wait_for_text("Connection lost")
    again = configuration(fake_model("fake"), fake_model("other"), listen=f'"{address}"')
    with running_gateway(tmp_path, again):
        page.wait_for(LIVE)
        page.wait_for_text("Nothing has happened yet")


# -- requests, models, logs, configuration ---------------------------------------------------------


def test_a_request_is_found_with_its_whole_way(chromium: Browser, gateway: GatewayProcess) -> None:
    answer = gateway.chat("answerer", "Hi", max_tokens=4)
    request_id = answer.headers["x-gateway-request-id"]
    page = opened(chromium, gateway, "requests")
    page.wait_for(f"document.querySelector('a[href$=\"{request_id}\"]')")
    page.click(f'a[href$="{request_id}"]')
    page.wait_for("document.querySelectorAll('gw-requests .waterfall li').length > 0")
    said = page.evaluate("document.querySelector('gw-requests .detail').innerText")
    assert "answerer" in said
    assert request_id in said
    page.fill("gw-requests input[type=search]", "no such text")
    page.wait_for("document.querySelectorAll('gw-requests tbody tr').length === 0")
    assert_clean(page, gateway)


def test_a_model_is_loaded_and_a_request_explained(
    chromium: Browser, gateway: GatewayProcess
) -> None:
    page = opened(chromium, gateway, "models")
    card = "gw-models section[aria-label=storyteller]"
    page.wait_for(f"document.querySelector('{card}')")
    if page.evaluate(f"document.querySelector('{card} .tag').innerText") == "unloaded":
        page.evaluate(f"document.querySelector('{card} button').click()")
    page.wait_for(f"document.querySelector('{card} .tag').innerText === 'loaded'")
    page.fill("#explain-text", "How long is this?")
    page.evaluate("document.querySelector('gw-models form').requestSubmit()")
    page.wait_for("document.querySelector('gw-models .explained')?.innerText.includes('Need')")
    assert_clean(page, gateway)


def test_logs_follow_and_a_wrong_expression_is_said(
    chromium: Browser, gateway: GatewayProcess
) -> None:
    gateway.chat("answerer", "Hi", max_tokens=4)
    page = opened(chromium, gateway, "logs/answerer")
    page.wait_for("document.querySelector('gw-logs').innerText.includes('ready in')")
    page.wait_for("document.querySelectorAll('gw-logs .lines')[1].childElementCount > 3")
    page.click("#log-expression")
    page.fill("gw-logs input[type=search]", "ready [in")
    page.wait_for("document.querySelector('gw-logs .fault').innerText.length > 0")
    page.fill("gw-logs input[type=search]", "ready (in|out)")
    page.wait_for("document.querySelector('gw-logs .fault').innerText === ''")
    shown = "[...document.querySelectorAll('gw-logs .lines')][0].innerText.split('\\n')"
    assert all("ready in" in line for line in page.evaluate(shown))
    assert_clean(page, gateway)


def test_many_tabs_with_logs_leave_the_gateway_usable(
    chromium: Browser, gateway: GatewayProcess
) -> None:
    """A browser has six connections to a server, for all its tabs; each takes one."""
    pages = [opened(chromium, gateway, "logs/answerer") for _ in range(5)]
    gateway.chat("answerer", "Hi", max_tokens=4)
    for page in pages:
        page.wait_for("document.querySelector('gw-logs .lines').childElementCount > 0")
        page.wait_for("document.querySelectorAll('gw-logs .lines')[1].childElementCount > 0")
    page = pages[-1]
    asked = (
        "Promise.race([fetch('/v1/models', { cache: 'no-store' }).then((r) => r.status),"
        " new Promise((end) => setTimeout(end, 10_000, 'hangs'))])"
    )
    assert page.evaluate(asked) == 200
    page.evaluate("location.hash = 'configuration'")
    page.wait_for("document.querySelector('gw-configuration details')")
    page.evaluate("location.hash = 'logs/storyteller'")
    page.wait_for("document.querySelector('gw-logs select').value === 'storyteller'")
    for page in pages:
        assert_clean(page, gateway)


def test_the_configuration_in_force_is_shown(chromium: Browser, gateway: GatewayProcess) -> None:
    page = opened(chromium, gateway, "configuration")
    page.wait_for("document.querySelector('gw-configuration details')")
    said = page.evaluate("document.querySelector('gw-configuration').textContent")
    assert "storyteller" in said
    assert "fairness_window_s" in said
    assert_clean(page, gateway)


def test_mistakes_are_shown_and_a_mended_file_is_reloaded_from_the_page(
    chromium: Browser, tmp_path: Path
) -> None:
    file, listen = tmp_path / "gateway.lua", f'"127.0.0.1:{free_port()}"'
    with running_gateway(tmp_path, configuration(fake_model("fake"), listen=listen)) as running:
        file.write_text('server = {}\nmodels = { { name = "<b>x</b>" } }')
        with running.client() as client:
            assert client.post("/gateway/reload").status_code == 400
        page = opened(chromium, running, "configuration")
        page.wait_for_text("Mistakes in the file, which is not in force")
        page.wait_for_text('models[1] "<b>x</b>"')
        more = configuration(fake_model("fake"), fake_model("more"), listen=listen)
        file.write_text(more)
        page.evaluate("document.querySelector('gw-configuration button').click()")
        page.wait_for_text("Changed: + model more")
        assert "Mistakes" not in page.evaluate("document.body.innerText")
        page.evaluate("location.hash = 'models'")
        page.wait_for("document.querySelector('main > gw-models')?.innerText.includes('more')")
        assert_clean(page, running)


# -- for everybody ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("view", "something"),
    [
        ("now", ".engine, .first"),
        ("timeline", "svg .pool"),
        ("requests", "thead button"),
        ("models", ".models tbody tr"),
        ("logs", ".lines > div"),
        ("chat", "#chat-model option"),
        ("configuration", "details"),
    ],
)
def test_nothing_serious_is_found_in_a_view_of_a_real_gateway(
    chromium: Browser, gateway: GatewayProcess, view: str, something: str
) -> None:
    """What test_page_accessible.py finds with answers of its own, with those that gateways give."""
    page = opened(chromium, gateway, view)
    page.wait_for(f"document.querySelector('gw-{view} :is({something})')")
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert_nothing_serious(page)
    assert_clean(page, gateway)
