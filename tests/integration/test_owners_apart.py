"""Nobody learns by guessing what another API key has asked: with the real engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import (
    GatewayProcess,
    configuration,
    model,
    real_variant,
    running_gateway,
)

pytestmark = [pytest.mark.untraced, pytest.mark.slow]

KEYS = ", ".join(f'{{ name = "{name}", key = "sk-{name}-0123456789abcdef" }}' for name in "ab")
KEYS = f"{{ {KEYS} }}"
A, B = ({"Authorization": f"Bearer sk-{name}-0123456789abcdef"} for name in "ab")
SECRET = "The code of the door at the back is 7391 and nobody else may ever know about it."
TEMPLATE = 30  # tokens that all of one's chats begin with, at the most
LONG = " ".join(f"Fact {i}: the number {i} follows {i - 1}." for i in range(1, 22))


def post(gateway: GatewayProcess, key: dict[str, str], path: str, **body: Any) -> dict[str, Any]:
    with gateway.client() as client:
        response = client.post(path, headers=key, json={"model": "m", **body})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def chat(gateway: GatewayProcess, key: dict[str, str], text: str, **fields: Any) -> int:
    """How many tokens of it were in the cache."""
    messages = [{"role": "user", "content": text}]
    answer = post(
        gateway,
        key,
        "/v1/chat/completions",
        messages=messages,
        max_tokens=2,
        temperature=0,
        **fields,
    )
    return int(answer["usage"]["prompt_tokens_details"]["cached_tokens"])


def messages(gateway: GatewayProcess, key: dict[str, str], text: str) -> int:
    said = [{"role": "user", "content": text}]
    answer = post(gateway, key, "/v1/messages", messages=said, max_tokens=2)
    return int(answer["usage"].get("cache_read_input_tokens", 0))


def responses(gateway: GatewayProcess, key: dict[str, str], text: str) -> int:
    answer = post(gateway, key, "/v1/responses", input=text, max_output_tokens=2)
    return int(answer["usage"]["input_tokens_details"]["cached_tokens"])


def completion(gateway: GatewayProcess, key: dict[str, str], text: str) -> int:
    templated = f"<|im_start|>system\nYou are<|im_end|>\n<|im_start|>user\n{text}"
    return int(
        post(gateway, key, "/completion", prompt=templated, n_predict=2)["timings"]["cache_n"]
    )


ASKS = {"chat": chat, "messages": messages, "responses": responses, "completion": completion}
LAYOUTS = {"one slot": ("--parallel", "1"), "split": ("--parallel", "2"),
           "unified": ("--parallel", "3", "--kv-unified")}  # fmt: skip


@pytest.fixture(scope="module", params=[*LAYOUTS])
def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny: Path
) -> Iterator[GatewayProcess]:
    args = LAYOUTS[request.param]
    config = configuration(model("m", real_variant(2048, *args, file=tiny)), api_keys=KEYS)
    with running_gateway(tmp_path_factory.mktemp("apart"), config) as running:
        yield running


@pytest.mark.parametrize("ask", [*ASKS])
def test_a_right_guess_looks_like_a_wrong_one(gateway: GatewayProcess, ask: str) -> None:
    guess, secret = ASKS[ask], f"By {ask}: {SECRET}"
    found = []
    for digits in ("5555", "6555", "7391", "8555"):
        guess(gateway, A, secret)
        found.append(guess(gateway, B, secret.replace("7391", digits)))
    assert found[0] < TEMPLATE
    assert found[1] == found[2] == found[3]  # what all guesses of its own begin with


def test_not_even_by_asking_for_the_other_s_slot(gateway: GatewayProcess) -> None:
    for fields in ({"id_slot": 0}, {"id_slot": 1, "cache_prompt": True}, {"n": 1}):
        text = f"{len(str(fields))} times: {SECRET}"
        chat(gateway, A, text)
        assert chat(gateway, B, text, **fields) < TEMPLATE


def test_one_s_own_conversation_is_found_again(gateway: GatewayProcess) -> None:
    for _ in range(2):
        chat(gateway, A, LONG)
    assert chat(gateway, A, f"{LONG} Go on.") > 200


def test_two_who_take_turns_keep_their_caches_where_there_are_slots_for_both(
    tmp_path: Path, tiny: Path
) -> None:
    config = configuration(
        model("m", real_variant(4096, "--parallel", "2", file=tiny).replace("4096", "2048", 1)),
        api_keys=KEYS,
    )
    large = {"x": "a" * 1_100_000}  # is read in a process of its own
    with running_gateway(tmp_path, config) as gateway:
        chat(gateway, A, LONG)
        chat(gateway, B, LONG[::-1])
        chat(gateway, A, LONG)
        for fields in ({}, large):
            assert chat(gateway, A, f"{LONG} Go on.", **fields) > 200
            assert chat(gateway, B, f"{LONG[::-1]} Go on.", **fields) > 200


def test_a_saved_conversation_comes_back_for_its_owner_only(tmp_path: Path, tiny: Path) -> None:
    config = configuration(
        model("m", real_variant(2048, file=tiny)),
        model("other", real_variant(1024, file=tiny)),
        api_keys=KEYS,
        kv_carryover=f'{{ directory = "{tmp_path / "kv"}", persist = true }}',
    )

    def swap(gateway: GatewayProcess) -> None:
        post(gateway, A, "/v1/chat/completions", model="other", max_tokens=1,
             messages=[{"role": "user", "content": "Hi"}])  # fmt: skip

    with running_gateway(tmp_path, config) as gateway:
        chat(gateway, A, LONG)
        swap(gateway)
        assert chat(gateway, B, LONG) == 0
        swap(gateway)
        assert chat(gateway, A, LONG) > 200
        swap(gateway)
        assert gateway.stop() == 0
    with running_gateway(tmp_path, config) as gateway:
        assert chat(gateway, B, f"{LONG} Go on.") > 200  # its own
        swap(gateway)
        assert chat(gateway, A, f"{LONG} Go on.") > 200


def test_who_wants_it_shares(tmp_path: Path, tiny: Path) -> None:
    config = configuration(
        model("m", real_variant(2048, file=tiny)), api_keys=KEYS, share_prefixes="true"
    )
    with running_gateway(tmp_path, config) as gateway:
        chat(gateway, A, LONG)
        assert chat(gateway, B, LONG) > 200
