"""What is looked at on this machine and from it."""

from __future__ import annotations

from pathlib import Path

from tests.support.configurations import smallest
from tests.support.harness import free_port
from trio_gateway.examining import probes


def test_other_gateways_are_looked_for_as_other_remotes_are(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    read = smallest(tmp_path, f'models[2] = {{ name = "box", models = "all", urls = "{url}" }}')
    assert probes._unreachable(read) == {url: "Connection refused"}
