"""Two nodes of a real Ray cluster, for tests that run only with `nox -s cluster`."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.ray_nodes import WANTED, Nodes, becomes, engines

# Without them, and without Ray, there is nothing to collect.
collect_ignore_glob = [] if os.environ.get(WANTED) else ["test_*.py"]


@pytest.fixture(scope="session")
def machines() -> Iterator[Nodes]:
    subject = Nodes()
    try:
        yield subject
    finally:
        subject.close()


@pytest.fixture
def nodes(machines: Nodes) -> Nodes:
    """A cluster, as most are: what its head knows is gone with it."""
    machines.ensure()
    return machines


@pytest.fixture(autouse=True)
def nothing_is_left(machines: Nodes) -> Iterator[None]:
    """Once a test is over: no engine, and no application of a gateway."""
    yield

    def left() -> list[str]:
        if not machines.is_led:
            return []
        return [name for name in machines.applications() if "trio-gateway-" in name]

    becomes(lambda: not engines() and not left())
    assert (engines(), left()) == ([], [])
