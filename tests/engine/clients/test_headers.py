"""Which of a client's headers leave this machine, and which of an engine's reach the client."""

from __future__ import annotations

import pytest

from trio_gateway.engine.clients.headers import for_client
from trio_gateway.engine.clients.llamacpp import LlamaCppEngine
from trio_gateway.engine.clients.openai import OpenAIEngine

ACCEPT, USER, PARENT = (b"accept", b"*/*"), (b"baggage", b"user=ann"), (b"traceparent", b"00-x")
SENT = [ACCEPT, USER, PARENT]


@pytest.mark.parametrize("kind", [LlamaCppEngine, OpenAIEngine])
@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "localhost", "[::1]"])
async def test_an_engine_on_this_machine_gets_the_baggage(
    kind: type[OpenAIEngine | LlamaCppEngine], host: str
) -> None:
    assert kind(f"http://{host}:8080").with_own_headers(SENT) == SENT


@pytest.mark.parametrize("host", ["192.168.1.5", "gpu.lan", "[2001:db8::1]", "0.0.0.0"])
async def test_one_on_another_machine_does_not(host: str) -> None:
    assert OpenAIEngine(f"http://{host}:8080").with_own_headers(SENT) == [ACCEPT, PARENT]


def test_an_engines_own_trace_is_not_its_clients() -> None:
    kept = [(b"content-type", b"application/json"), (b"etag", b"x")]
    own = [PARENT, (b"tracestate", b"x=1"), USER]
    assert for_client([*own, *kept]) == kept
