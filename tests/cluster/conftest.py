"""Two nodes of a real Ray cluster, for tests that run only with `nox -s cluster`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ray_nodes import WANTED, Nodes

# Without them, and without Ray, there is nothing to collect.
collect_ignore_glob = [] if os.environ.get(WANTED) else ["test_*.py"]


@pytest.fixture(scope="session")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    subject = Nodes(Path(tmp_path_factory.mktemp("r")))
    try:
        subject.start()
        yield subject
    finally:
        subject.stop()
