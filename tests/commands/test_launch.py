"""`trio-gateway launch`: which model an agent gets, and how it is told of the gateway.

A script in the agent's place writes down how it was started.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.harness import CLIENT_KEY, configuration, fake_model, running_gateway
from trio_gateway.agents.choosing import Candidate, NoChoice, choose
from trio_gateway.agents.known import AGENTS, NAMES
from trio_gateway.agents.settings import Agent, Settings, Target, as_shell, complete

CLAUDE, AIDER = NAMES["claude"], NAMES["aider"]
SECRET = "tg-secret-of-the-tests-0123456789"
KEYED = Target("https://box:7777", "a/b'c", 40_000, has_key=True, certificate="/c.pem", folder="/f")
OPEN = Target("http://127.0.0.1:7777", "m", 40_000, folder="/f")


def candidate(
    name: str,
    context: int = 65_536,
    *,
    chats: bool = True,
    tools: bool = True,
    loaded: bool = False,
) -> Candidate:
    return Candidate(name, context, chats, tools, loaded, aliases=(f"{name}-alias",))


@pytest.mark.parametrize(
    ("agent", "models", "expected"),
    [
        (CLAUDE, [candidate("small", 8192), candidate("large")], "large"),
        (CLAUDE, [candidate("plain", 99_999, tools=False), candidate("tools", 32_768)], "tools"),
        (CLAUDE, [candidate("larger", 131_072), candidate("here", loaded=True)], "here"),
        (CLAUDE, [candidate("emb", chats=False), candidate("only", tools=False)], "only"),
        (AIDER, [candidate("tools", 8192), candidate("large", 16_384, tools=False)], "large"),
        (CLAUDE, [candidate("first"), candidate("second")], "first"),
    ],
    ids=[
        "large enough",
        "takes tools",
        "is loaded",
        "at least chats",
        "needs none",
        "is listed first",
    ],
)
def test_the_model_that_it_gets(agent: Agent, models: list[Candidate], expected: str) -> None:
    assert choose(agent, models, None).model.name == expected


def test_it_says_why_and_what_will_not_work() -> None:
    choice = choose(CLAUDE, [candidate("m", tools=False, loaded=True)], None)
    assert choice.why == (
        "it has 65,536 tokens, and Claude Code's first prompt has about 21,500; it is loaded"
    )
    assert choice.doubts == (
        "it is not known to take tools, without which nothing can be edited or run",
    )


def test_one_that_is_asked_for_is_taken_with_doubts_and_by_any_of_its_names() -> None:
    models = [candidate("m", 8192), candidate("emb", 512, chats=False)]
    assert "only 8,192 tokens" in choose(CLAUDE, models, "m").doubts[0]
    assert choose(CLAUDE, models, "m-alias").model.name == "m-alias"
    assert choose(CLAUDE, models, "m@8192").model.name == "m@8192"
    assert choose(CLAUDE, models, "emb").doubts == ("it does not seem to chat",)


@pytest.mark.parametrize(
    ("models", "wanted", "expected"),
    [
        ([candidate("m", 8192)], None, "The largest, m, has 8,192."),
        ([candidate("emb", chats=False)], None, "no model that chats"),
        ([], None, "no model that chats"),
        ([candidate("m")], "n", "has no model n; those that chat: m"),
    ],
)
def test_where_none_will_do_it_says_so(
    models: list[Candidate], wanted: str | None, expected: str
) -> None:
    with pytest.raises(NoChoice, match=expected):
        choose(CLAUDE, models, wanted)


@pytest.mark.parametrize("target", [OPEN, KEYED], ids=["open", "with key and certificate"])
@pytest.mark.parametrize("agent", AGENTS, ids=lambda agent: agent.name)
def test_each_is_told_the_address_the_model_and_the_key(agent: Agent, target: Target) -> None:
    settings = agent.settings_for(target)
    environment = complete(settings, {"HOME": "/h"}, SECRET if target.has_key else None)
    told = " ".join((*settings.arguments, *environment.values(), *settings.files.values()))
    assert target.url in told
    assert target.model in told
    assert (SECRET in environment.values()) is target.has_key
    assert not any(SECRET in word for word in settings.arguments)  # others see those
    certificates = [name for name, text in environment.items() if text == "/c.pem"]
    assert bool(certificates) is (target.certificate is not None)
    assert environment["HOME"] == "/h"


@pytest.mark.parametrize("agent", AGENTS, ids=lambda agent: agent.name)
def test_what_is_printed_does_the_same_in_a_shell_and_has_no_key_in_it(agent: Agent) -> None:
    settings = agent.settings_for(KEYED)
    lines = as_shell(agent, settings, ["--say", "it's"])
    assert SECRET not in lines
    assert as_shell(agent, settings, [], SECRET).startswith(f"export TRIO_GATEWAY_KEY={SECRET}\n")
    words = shlex.split(lines.splitlines()[-1])
    assert words == [agent.program, *settings.arguments, "--say", "it's"]
    for name, text in settings.environment.items():
        if text != "$TRIO_GATEWAY_KEY":
            assert f"export {name}={shlex.quote(text)}\n" in lines


def test_what_would_get_in_the_way_is_taken_out() -> None:
    settings = CLAUDE.settings_for(OPEN)
    given = complete(settings, {"ANTHROPIC_API_KEY": "theirs", "ANTHROPIC_MODEL": "theirs"}, None)
    assert "ANTHROPIC_API_KEY" not in given
    assert given["ANTHROPIC_MODEL"] == "m"
    assert "unset ANTHROPIC_API_KEY" in as_shell(CLAUDE, settings, [])


def test_what_the_users_own_files_say_does_not_win() -> None:
    """Of these, files win over variables: options win over files."""
    words = CLAUDE.settings_for(OPEN).arguments
    said = json.loads(words[words.index("--settings") + 1])["env"]
    assert (said["ANTHROPIC_BASE_URL"], said["ANTHROPIC_MODEL"]) == (OPEN.url, "m")
    words = NAMES["qwen"].settings_for(OPEN).arguments
    assert words[words.index("--model") + 1] == "m"
    assert words[words.index("--openai-base-url") + 1] == f"{OPEN.url}/v1"
    aider = NAMES["aider"].settings_for(OPEN).environment
    assert aider["AIDER_OPENAI_API_BASE"] == f"{OPEN.url}/v1"


def test_codex_reads_its_options_as_toml() -> None:
    words = NAMES["codex"].settings_for(KEYED).arguments
    read = tomllib.loads("\n".join(words[1::2]))
    assert read["model"] == KEYED.model
    provider = read["model_providers"][read["model_provider"]]
    assert provider["base_url"] == "https://box:7777/v1"
    assert provider["env_key"] == "TRIO_GATEWAY_KEY"
    assert read["model_context_window"] == KEYED.context


def test_opencode_reads_its_variable_as_json() -> None:
    config = json.loads(NAMES["opencode"].settings_for(OPEN).environment["OPENCODE_CONFIG_CONTENT"])
    assert config["model"] == "trio-gateway/m"
    assert config["provider"]["trio-gateway"]["models"]["m"]["limit"]["context"] == 40_000


def test_a_variable_may_stay_as_it_was() -> None:
    assert complete(Settings(), {"A": "b"}, None) == {"A": "b"}


AGENT = """#!/bin/sh
echo "$$ $ANTHROPIC_BASE_URL $ANTHROPIC_AUTH_TOKEN $ANTHROPIC_MODEL $*"
exit 7
"""


@pytest.mark.processes
def test_it_becomes_the_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "claude").write_text(AGENT)
    (programs / "claude").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("TRIO_GATEWAY_KEY", CLIENT_KEY)
    config = configuration(fake_model("m"), api_keys=f'{{ "{CLIENT_KEY}" }}')
    with running_gateway(tmp_path, config) as gateway:
        file = tmp_path / "at.lua"
        port = gateway.base_url.rpartition(":")[2]
        file.write_text(config.replace('"127.0.0.1:0"', f'"127.0.0.1:{port}"'))

        def launch(*words: str) -> tuple[int, int, str, str]:
            command = [sys.executable, "-m", "trio_gateway", "launch", *words]
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            out, err = process.communicate(timeout=30)
            return process.pid, process.returncode, out, err

        at = ("-c", str(file))
        pid, code, out, err = launch("claude", "m", *at, "--", "-p", "two words")
        assert code == 7
        assert out.startswith(f"{pid} {gateway.base_url} {CLIENT_KEY} m --settings ")
        assert out.endswith("} -p two words\n")
        assert "# but it has only 4,096 tokens" in err
        _, code, out, err = launch("claude", *at)
        assert (code, out) == (1, "")
        assert "no model is large enough" in err
        _, code, out, err = launch("codex", "m", *at)
        assert (code, out) == (1, "")
        assert "Install it: npm install -g @openai/codex" in err
        _, code, out, err = launch()
        assert "claude" in out
        assert f"installed: {programs}/claude" in out
    _, code, out, err = launch("claude", *at)
    assert code == 1
    assert "trio-gateway serve" in err  # nobody answers, and this is what starts one
