"""Where a gateway listens, for commands that find another address in its file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.configurations import smallest
from trio_gateway.commands.gateway_client import place_of_running
from trio_gateway.commands.gateway_failures import Place
from trio_gateway.config.access_schema import TlsConfig, UnixAddress
from trio_gateway.config.schema import ListenAddress
from trio_gateway.server.http.whereabouts import Whereabouts

ELSEWHERE = (ListenAddress("127.0.0.1", 7000), ListenAddress("0.0.0.0", 7001))


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def test_a_command_asks_where_the_gateway_is_and_not_where_it_is_to_be(tmp_path: Path) -> None:
    config = smallest(tmp_path, 'server.listen_v4 = "127.0.0.1:7001"')
    at_file, there = Place("http://127.0.0.1:7001"), Whereabouts(config.source)
    assert place_of_running(config) == at_file
    there.tell(ELSEWHERE[:1], None)
    assert place_of_running(config) == Place("http://127.0.0.1:7000")
    there.tell(ELSEWHERE, None)  # the file's is one of them
    assert place_of_running(config) == at_file
    there.tell(
        (*ELSEWHERE, UnixAddress(tmp_path / "s")), TlsConfig(certificate=Path("c"), key=Path("k"))
    )
    assert place_of_running(config) == Place("http://localhost", socket=tmp_path / "s")
    there.tell(ELSEWHERE[:1], TlsConfig(certificate=tmp_path / "c", key=Path("k")))
    assert place_of_running(config) == Place("https://127.0.0.1:7000", certificate=tmp_path / "c")
    there.forget()
    assert place_of_running(config) == at_file


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"pid": 0, "spots": []}', "DEAD"])
def test_what_is_no_gateway_s_is_nothing(text: str, tmp_path: Path) -> None:
    there = Whereabouts(tmp_path / "gateway.lua")
    there.tell(ELSEWHERE, None)
    (file,) = (tmp_path / "state").rglob("*.json")
    if text == "DEAD":
        text = file.read_text().replace(f'"pid":{os.getpid()}', '"pid":2147480000')
    file.write_text(text)
    assert there.spots() == []
    there.forget()
    assert file.exists()  # it may be another gateway's
