"""`trio-gateway explain`: what would become of a request, with a running gateway or without."""

from __future__ import annotations

import contextlib

import httpx
import msgspec
import trio

from trio_gateway.config.schema import GatewayConfig
from trio_gateway.engine.engine_manager import EngineManager
from trio_gateway.models.explanation import Explanation, explain
from trio_gateway.models.model_selector import ModelSelector
from trio_gateway.models.token_counter import TokenCounter
from trio_gateway.models.vocabulary import Vocabulary
from trio_gateway.server.errors import ApiError
from trio_gateway.server.relay import Relay
from trio_gateway.server.request_body import counted_as, endpoint_of, read_body

CONNECT_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 60.0  # a llama-tokenize on a slow disk takes its time


class ExplainFailed(Exception):
    """There is nothing to explain; the message says why."""


def ask_gateway(base_url: str, body: bytes) -> Explanation | None:
    """The running gateway's own answer; None if none answers there.

    Raises:
        ExplainFailed: it answered with an error.
    """
    timeout = httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    try:
        answer = httpx.post(
            f"{base_url}/gateway/explain", content=body, timeout=timeout, trust_env=False
        )
    except httpx.ConnectError:
        return None
    except httpx.HTTPError as error:
        raise ExplainFailed(f"{base_url}: {error!r}") from None
    try:
        if answer.status_code != 200:
            raise ExplainFailed(f"{base_url}: {answer.json()['error']['message']}")
        return msgspec.json.decode(answer.content, type=Explanation)
    except (ValueError, TypeError, KeyError):  # msgspec's and json's are ValueErrors
        raise ExplainFailed(f"{base_url} is not a gateway of this version") from None


def explain_offline(config: GatewayConfig, body: bytes) -> Explanation:
    """The same without a gateway: no engine runs, and the vocabulary counts.

    Raises:
        ExplainFailed: the request is wrong.
    """
    try:
        return trio.run(_explain_offline, config, body)
    except ApiError as error:
        raise ExplainFailed(str(error)) from None


async def _explain_offline(config: GatewayConfig, body: bytes) -> Explanation:
    manager, vocabulary = EngineManager(config), Vocabulary(None)
    counter = TokenCounter(manager, vocabulary)
    selector = ModelSelector(config, manager, counter)
    relay, endpoint = Relay(manager, selector, 0), endpoint_of(body)
    wanted = relay.find(read_body(body, endpoint).model)
    relay.check_served(endpoint, wanted.model)
    form, fields = counted_as(endpoint, body)
    carryover = config.server.kv_carryover
    result: Explanation | None = None
    async with trio.open_nursery() as nursery:
        await nursery.start(vocabulary.run)
        if carryover is not None and carryover.persist:
            await nursery.start(manager.kv.run)
        with contextlib.suppress(RecursionError):  # else it came out of here in a group
            result = await explain(selector, counter, manager, wanted, form, fields)
        nursery.cancel_scope.cancel(reason="all is explained")
    if result is None:
        raise ExplainFailed("the request is nested too deeply")
    return result


def rows_of(found: Explanation) -> list[tuple[str, str]]:
    """The lines of the table: what, and what about it."""
    bounds = f"{found.bounds.lower} to {found.bounds.upper} tokens"
    counted = "nobody can say"
    if found.counted is not None:
        counted = f"{found.counted} tokens, by {found.counted_by}"
        counted += "" if found.is_exact else " (not fewer)"
    variants = ", ".join(f"{v.variant}{' holds it' if v.holds else ''}" for v in found.variants)
    rows = [
        ("Model", f"{found.model}, {found.endpoint}"),
        ("Prompt, by its bytes", bounds),
        ("Prompt, counted", counted),
    ]
    if found.need is not None:
        answer = "no maximum" if found.answer is None else f"{found.answer} tokens"
        if found.clamped_from is not None:
            answer += f", lowered from {found.clamped_from}"
        rows += [
            ("Answer", answer),
            ("Need", f"{found.need} tokens ({found.start_need} for an engine started for it)"),
        ]
    rows.append(("Variants", variants))
    if found.need is not None:
        rows += [("Choice", f"{found.variant}: {found.reason}"), *_engine_rows(found)]
    if found.refused is not None:
        rows.append(("Refused", found.refused))
    return rows


def _engine_rows(found: Explanation) -> list[tuple[str, str]]:
    engine = f"{found.decision}, {found.engine_state or 'not running'}"
    if found.evicts:
        engine += f"; makes way: {', '.join(found.evicts)}"
    wait = f"{found.expected_wait_s:g} s, of it {found.expected_load_s:g} s of load"
    return [("Engine", engine), ("Expected wait", wait), ("KV carry-over", found.kv)]
