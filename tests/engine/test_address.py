"""Where engines listen, and what a client is told whose engine cannot listen there."""

from __future__ import annotations

import pytest
import trio

from tests.support.schema_values import variant
from trio_gateway.engine.address import hold_address, port_taken
from trio_gateway.engine.clients.llamacpp import LlamaCppKind
from trio_gateway.engine.process import ports


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


async def test_engines_that_start_at_once_get_different_ports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def pick_first(taken: set[int], host: str) -> int:
        return next(port for port in range(50_000, 65_536) if port not in taken)

    monkeypatch.setattr(ports, "pick_free_port", pick_first)
    taken = set[int]()
    found = list[tuple[str, int]]()

    async def hold() -> None:
        found.append(await hold_address(variant(), LlamaCppKind(), taken))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(hold)
    assert {port for _, port in found} == taken == {50_000, 50_001, 50_002}
