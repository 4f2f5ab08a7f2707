"""What a client is told whose engine cannot listen where it should."""

from __future__ import annotations

import pytest

from tests.support.schema_values import variant
from trio_gateway.engine.address import port_taken
from trio_gateway.engine.clients.llamacpp import LlamaCppKind


@pytest.mark.parametrize(
    ("args", "connect", "cure"),
    [
        ((), "http://127.0.0.1:1", "stop that process, or change `connect`"),
        (("--port", "1"), None, "stop that process, or change --port in `args`"),
        ((), None, "stop that process"),
    ],
)
def test_a_port_that_is_held_is_told_with_the_key_that_set_it(
    args: tuple[str, ...], connect: str | None, cure: str
) -> None:
    said = port_taken(1, variant(args=args, connect=connect), LlamaCppKind())
    assert said.startswith("port 1 is held by ")
    assert said.endswith(f", so the engine cannot listen there; {cure}")
