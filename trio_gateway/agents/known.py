"""The agents that are known: their programs, and the words in which each is told of the gateway.

The figures are tokens of the first request with SmolLM2's vocabulary, measured in November 2026
with the versions that docs/clients.md names; a larger vocabulary makes them up to a sixth less.
Those of aider and Open WebUI are with a map of a repository, and with its 36 tools.
"""

from __future__ import annotations

import json

from trio_gateway.agents.settings import KEY_VARIABLE, Agent, Settings, Target

_PROVIDER = "trio-gateway"
_ROOM_FOR_ANSWER = 4  # of a context, a quarter


def _trust_of_node(to: Target) -> dict[str, str]:
    return {} if to.certificate is None else {"NODE_EXTRA_CA_CERTS": to.certificate}


def _trust_of_python(to: Target) -> dict[str, str]:
    if to.certificate is None:
        return {}
    return {"SSL_CERT_FILE": to.certificate, "REQUESTS_CA_BUNDLE": to.certificate}


def _claude(to: Target) -> Settings:
    """All of its models are the one: another for its small tasks would be swapped in for each."""
    of_model = (
        "ANTHROPIC_MODEL",
        "ANTHROPIC_DEFAULT_OPUS_MODEL",
        "ANTHROPIC_DEFAULT_SONNET_MODEL",
        "ANTHROPIC_DEFAULT_HAIKU_MODEL",
        "CLAUDE_CODE_SUBAGENT_MODEL",
    )
    environment = {
        "ANTHROPIC_BASE_URL": to.url,
        **dict.fromkeys(of_model, to.model),
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",  # it changes, and so would the cache be lost
        **_trust_of_node(to),
    }
    return Settings(
        # What the user's settings.json has in its `env` would win over variables, but not over
        # this. The key is left out, as all users of the machine can see arguments.
        arguments=("--settings", json.dumps({"env": environment})),
        environment={"ANTHROPIC_AUTH_TOKEN": to.key, **environment},
        unset=("ANTHROPIC_API_KEY", "CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX"),
    )


def _codex(to: Target) -> Settings:
    """Its `-c` takes TOML, in which a string may be written as in JSON."""
    provider = f"model_providers.{_PROVIDER}"
    options = {
        "model": to.model,
        "model_provider": _PROVIDER,
        f"{provider}.name": _PROVIDER,
        f"{provider}.base_url": f"{to.url}/v1",
        f"{provider}.wire_api": "responses",
    }
    environment = _trust_of_node(to)
    if to.has_key:
        options[f"{provider}.env_key"] = KEY_VARIABLE
        environment[KEY_VARIABLE] = to.key
    if to.certificate is not None:
        environment["SSL_CERT_FILE"] = to.certificate
    arguments = [f"{name}={json.dumps(value)}" for name, value in options.items()]
    arguments.append(f"model_context_window={to.context}")
    return Settings(
        arguments=tuple(word for argument in arguments for word in ("-c", argument)),
        environment=environment,
    )


def _opencode(to: Target) -> Settings:
    limit = {"context": to.context, "output": to.context // _ROOM_FOR_ANSWER}
    model = {"name": to.model, "limit": limit}
    options = {
        "baseURL": f"{to.url}/v1",
        "apiKey": f"{{env:{KEY_VARIABLE}}}" if to.has_key else to.key,
    }
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": _PROVIDER,
        "options": options,
        "models": {to.model: model},
    }
    name = f"{_PROVIDER}/{to.model}"
    config = {"provider": {_PROVIDER: provider}, "model": name, "small_model": name}
    environment = {"OPENCODE_CONFIG_CONTENT": json.dumps(config), **_trust_of_node(to)}
    if to.has_key:
        environment[KEY_VARIABLE] = to.key
    return Settings(environment=environment)


def _qwen(to: Target) -> Settings:
    # Of settings.json, its own address and model would win over the variables.
    address = ("--openai-base-url", f"{to.url}/v1")
    return Settings(
        arguments=("--auth-type", "openai", "--model", to.model, *address),
        environment={
            "OPENAI_BASE_URL": f"{to.url}/v1",
            "OPENAI_API_KEY": to.key,
            "OPENAI_MODEL": to.model,
            **_trust_of_node(to),
        },
    )


def _aider(to: Target) -> Settings:
    """It takes what it knows of a model from a file: without it, it sends more than fits."""
    about = {
        f"openai/{to.model}": {
            "max_input_tokens": to.context,
            "max_output_tokens": to.context // _ROOM_FOR_ANSWER,
            "input_cost_per_token": 0,
            "output_cost_per_token": 0,
            "litellm_provider": "openai",
            "mode": "chat",
        }
    }
    path = f"{to.folder}/aider.model.metadata.json"
    return Settings(
        arguments=("--model", f"openai/{to.model}", "--model-metadata-file", path),
        environment={
            # By these names they win over what .aider.conf.yml has.
            "AIDER_OPENAI_API_BASE": f"{to.url}/v1",
            "AIDER_OPENAI_API_KEY": to.key,
            "OPENAI_API_BASE": f"{to.url}/v1",
            "OPENAI_API_KEY": to.key,
            **_trust_of_python(to),
        },
        files={path: json.dumps(about)},
    )


def _open_webui(to: Target) -> Settings:
    """It keeps its settings in a database, and reads variables at its first start only unless it is
    told otherwise."""
    return Settings(
        arguments=("serve",),
        environment={
            "OPENAI_API_BASE_URL": f"{to.url}/v1",
            "OPENAI_API_BASE_URLS": f"{to.url}/v1",
            "OPENAI_API_KEY": to.key,
            "OPENAI_API_KEYS": to.key,
            "ENABLE_OLLAMA_API": "False",
            "ENABLE_PERSISTENT_CONFIG": "False",
            "DEFAULT_MODELS": to.model,
            **_trust_of_python(to),
        },
    )


AGENTS = (
    Agent(
        name="claude",
        title="Claude Code",
        program="claude",
        install="npm install -g @anthropic-ai/claude-code",
        first_prompt=21_500,
        settings_for=_claude,
    ),
    Agent(
        name="codex",
        title="Codex",
        program="codex",
        install="npm install -g @openai/codex",
        first_prompt=7_000,
        settings_for=_codex,
    ),
    Agent(
        name="opencode",
        title="opencode",
        program="opencode",
        install="npm install -g opencode-ai",
        first_prompt=8_000,
        settings_for=_opencode,
    ),
    Agent(
        name="qwen",
        title="Qwen Code",
        program="qwen",
        install="npm install -g @qwen-code/qwen-code",
        first_prompt=17_000,
        settings_for=_qwen,
    ),
    Agent(
        name="aider",
        title="aider",
        program="aider",
        install="pipx install aider-chat",
        first_prompt=3_000,
        uses_tools=False,
        settings_for=_aider,
    ),
    Agent(
        name="open-webui",
        title="Open WebUI",
        program="open-webui",
        install="pipx install open-webui",
        first_prompt=9_000,
        uses_tools=False,
        settings_for=_open_webui,
    ),
)
# What else they are called.
NAMES = {
    **{agent.name: agent for agent in AGENTS},
    "claude-code": AGENTS[0],
    "qwen-code": AGENTS[3],
    "openwebui": AGENTS[5],
}
