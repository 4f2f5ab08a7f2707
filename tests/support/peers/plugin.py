"""Loaded into the tests' own pytest: what a gateway's client does, and a record of what happened.

It changes nothing of what a test asks, except that a request names a model (both sides get it), and
nothing of what it expects, except for the text that a model wrote. What a test asks of a router
and any server has, is asked of one with a model.
"""

from __future__ import annotations

import json
import os
import random
import socket
from collections.abc import Generator
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

RECORD = "TRIO_GATEWAY_PEERS_RECORD"
SIDE = "TRIO_GATEWAY_PEERS_SIDE"
COUNTS = "counts"
MODEL = "test"
LOAD_LIMIT_S = 60.0
UNNAMED = ("/completions", "/embeddings")  # with a model they are OpenAI's, as under /v1
# What a test sets if it starts a router for what any server has.
NO_ROUTER = ("server_tools", "mcp_servers_config", "mcp_servers_json", "cors_origins")

_counts: list[int] = []  # of the test that runs
_names: dict[int, str] = {}  # of the model at each port


def pytest_configure(config: pytest.Config) -> None:
    utils: Any = import_module("utils")  # of the suite
    requests: Any = import_module("requests")
    utils.ServerPreset.load_all = staticmethod(lambda: None)  # it would download models
    utils.match_regex = lambda _regex, text: isinstance(text, str)  # a tiny model says anything
    utils.download_file = lambda url, *_: url.rsplit("/", 1)[-1]  # the model stands in for it
    utils.counted = _counted
    _name_models(requests)
    _start_elsewhere(utils, requests)
    record = os.environ.get(RECORD)
    if record is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Recorder(Path(record)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    _counts.clear()
    random.seed(item.nodeid)  # so that both sides are asked the same
    try:
        return (yield)
    finally:
        item.user_properties.append((COUNTS, list(_counts)))


def _counted(count: int) -> bool:
    """In place of the number that a test expects of the vocabulary of its model."""
    _counts.append(count)
    return True


def _name_models(requests: Any) -> None:
    real = requests.Session.request

    def request(session: Any, method: str, url: str, **more: Any) -> Any:
        body, place = more.get("json"), urlsplit(url)
        asks = method.upper() == "POST" and place.path not in UNNAMED
        if asks and isinstance(body, dict) and body.get("model") is None:
            name = _names.get(place.port or 0, MODEL)
            more["json"] = {**body, "model": name}
        return real(session, method, url, **more)

    requests.Session.request = request


def _start_elsewhere(utils: Any, requests: Any) -> None:
    """On a free port, and with its model loaded: as llama-server is when it says that it is
    there."""
    init, real = utils.ServerProcess.__init__, utils.ServerProcess.start

    def initialize(server: Any) -> None:
        init(server)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            server.server_port = free.getsockname()[1]

    def start(server: Any, *args: Any, **more: Any) -> None:
        if server.model_hf_repo is None and any(getattr(server, name) for name in NO_ROUTER):
            server.model_hf_repo = MODEL
        _names[server.server_port] = min((server.model_alias or MODEL).split(","))
        real(server, *args, **more)
        if os.environ[SIDE] == "gateway":
            url = f"http://127.0.0.1:{server.server_port}/gateway/models/{MODEL}/load"
            headers = {"Authorization": f"Bearer {server.api_key}"} if server.api_key else {}
            answer = requests.post(url, headers=headers, timeout=LOAD_LIMIT_S)
            if answer.status_code != 200:
                raise RuntimeError(f"Server process died: {answer.text}")

    utils.ServerProcess.__init__ = initialize
    utils.ServerProcess.start = start


class _Recorder:
    """One line of JSON for each test: its name, its outcome, and where in its file it ended."""

    def __init__(self, record: Path) -> None:
        self._record = record

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        line = {
            "test": report.nodeid,
            "outcome": report.outcome,
            "where": _where(report.longrepr),
            "why": _why(report.longrepr),
            "counts": dict(report.user_properties).get(COUNTS, []),
        }
        with self._record.open("a") as file:
            file.write(json.dumps(line) + "\n")


def _where(longrepr: Any) -> int:
    """The last line of the tests themselves; 0: none."""
    entries = getattr(getattr(longrepr, "reprtraceback", None), "reprentries", [])
    places = [place for e in entries if (place := getattr(e, "reprfileloc", None)) is not None]
    return next((p.lineno for p in reversed(places) if "unit" in Path(p.path).parts), 0)


def _why(longrepr: Any) -> str:
    crash = getattr(longrepr, "reprcrash", None)
    return crash.message.splitlines()[0] if crash is not None and crash.message else ""
