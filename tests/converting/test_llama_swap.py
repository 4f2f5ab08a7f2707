"""llama-swap's configurations: each of its keys arrives, or is said to have no counterpart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from tests.support.configurations import load
from trio_gateway.config.engine_types import UNLIMITED_ENGINES
from trio_gateway.config.schema import NEVER, GatewayConfig, ModelConfig
from trio_gateway.converting.convert import described, unset_variables
from trio_gateway.converting.description import NotConvertible
from trio_gateway.converting.written import written

KEY = "sk-0123456789abcdef-secret"


def lua_of(
    text: str, environment: Mapping[str, str] = {}, trained: int | None = None
) -> tuple[str, dict[str, str]]:
    """The text, and what is said of each place."""
    found = described(text, "config.yaml", environment, lambda _: trained)
    remarks = {remark.where: remark.what for remark in found.remarks}
    return written(found, "config.yaml", "2026-11-28"), remarks


def convert(folder: Path, text: str, **environment: str) -> tuple[GatewayConfig, dict[str, str]]:
    lua, remarks = lua_of(text, environment)
    return load(folder, lua), remarks


def only_model(folder: Path, text: str, **environment: str) -> ModelConfig:
    return convert(folder, text, **environment)[0].models[0]


FULL = f"""
healthCheckTimeout: 300
globalTTL: 600
unloadTimeout: 20
sendLoadingState: true
logLevel: debug
apiKeys: ["{KEY}", "${{env.SECOND_KEY}}"]
metricsMaxInMemory: 50
macros:
  dir: /opt/models
  "ctx": 16384
  fa: on
  base: "/opt/llama-server-b9000 --port ${{PORT}} -c ${{ctx}} --fa ${{fa}}"
  two-lines: |
    first
    second
models:
  "Small: one":
    macros: {{ ctx: 4096, temp: 0.5 }}
    cmd: |
      # ${{two-lines}} is not a part of it
      ${{base}} \\
      --model "${{dir}}/a model.gguf"   # not a comment here
      --chat-template-kwargs '{{"a": "b c"}}' -np 2
    name: Small
    description: the first
    ttl: 0
    aliases: [s, gpt-4o]
    env: ["CUDA_VISIBLE_DEVICES=0,1", "TOKEN=${{env.TOKEN}}"]
    unlisted: true
    concurrencyLimit: 1
    sendLoadingState: false
    metadata: {{ id: "${{MODEL_ID}}" }}
    filters:
      stripParams: "top_k, temperature,, model"
      setParams: {{ temperature: "${{temp}}", stop: ["x"], none: null }}
  vllm:
    cmd: docker run --rm --name vllm-${{MODEL_ID}} -p ${{PORT}}:8000 vllm/vllm --max-model-len 32k
    cmdStop: docker stop vllm-${{MODEL_ID}}
    proxy: http://127.0.0.1:${{PORT}}
    checkEndpoint: /v1/models
    useModelName: org/name
hooks: {{ on_startup: {{ preload: [gpt-4o, nowhere] }} }}
peers:
  far:
    proxy: https://far.example.org/api
    apiKey: ${{env.FAR}}
    models: [one, two]
    timeouts: {{ connect: 7 }}
"""


def test_what_a_file_says_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SECOND_KEY", "TOKEN", "FAR"):
        monkeypatch.setenv(name, f"{name.lower()}-0123456789abcdef")
    config, remarks = convert(tmp_path, FULL, SECOND_KEY="x", TOKEN="y", FAR="z")
    server = config.server
    assert (server.timeouts.startup_s, server.timeouts.idle_s, server.timeouts.stop_s) == (
        300, 600, 20,
    )  # fmt: skip
    assert [key.secret for key in server.access.api_keys] == [KEY, "second_key-0123456789abcdef"]
    assert (server.loading_state.value, server.history.requests) == ("reasoning", 50)
    assert server.preload == ("gpt-4o",)
    small, vllm, one, _ = config.models
    assert (small.name, small.aliases, small.hidden) == ("Small: one", ("s", "gpt-4o"), True)
    assert small.description == "Small: the first"
    variant = small.variants[0]
    assert (variant.binary, variant.context, variant.parallel) == (
        "/opt/llama-server-b9000", 2048, 1,
    )  # fmt: skip
    assert variant.args[:4] == ("-c", "4096", "--fa", "on")
    assert "/opt/models/a model.gguf" in variant.args
    assert '{"a": "b c"}' in variant.args
    assert variant.args[-1] == "2"
    assert variant.env == {"CUDA_VISIBLE_DEVICES": "0,1", "TOKEN": "token-0123456789abcdef"}
    assert variant.timeouts.idle_s == NEVER
    assert small.rewrite is not None
    assert small.rewrite.remove == ("top_k",)
    assert {k: msgspec.json.decode(v) for k, v in small.rewrite.set.items()} == {
        "temperature": 0.5, "stop": ["x"],
    }  # fmt: skip
    assert (vllm.engine.preset, vllm.variants[0].context) == ("openai", 32_000)
    assert vllm.variants[0].stop_command[1:] == ("stop", "vllm-vllm")
    assert vllm.variants[0].options.served_name == "org/name"
    assert vllm.variants[0].options.health_path == "/v1/models"
    assert (one.name, one.aliases, one.engine.preset) == ("far/one", ("one",), "remote")
    options = one.variants[0].options
    assert options.urls == ("https://far.example.org/api/v1",)
    assert options.api_key is not None
    assert options.api_key.reveal() == "far-0123456789abcdef"
    assert (options.served_name, options.connect_timeout_s) == ("one", 7)
    assert {*remarks} >= {
        "logLevel", "hooks.on_startup.preload", "models.Small: one.metadata", "models.vllm.cmd",
        "models.Small: one.filters.setParams", "models.Small: one.filters.stripParams",
    }  # fmt: skip


def test_no_remark_has_a_secret_of_the_file_in_it() -> None:
    lua, remarks = lua_of(FULL + f"\nunknown: {KEY}\nsomething: [{KEY}]")
    assert lua.count(KEY) == 1  # where it belongs
    assert KEY not in str(remarks)
    assert unset_variables(lua, FULL, {"TOKEN": ""}) == ["SECOND_KEY", "FAR"]


@pytest.mark.parametrize(
    ("model", "address"),
    [
        ("cmd: llama-server --port ${PORT} -m /x", None),
        ("cmd: llama-server --port 9000 -m /x\n    proxy: http://localhost:9000", None),
        ("cmd: llama-server -m /x\n    proxy: http://10.0.0.2:9000", "http://10.0.0.2:9000"),
        ("cmd: tabby --port 9000", "http://127.0.0.1:9000"),
        ("cmd: docker run -p 9000:80 x", "http://127.0.0.1:9000"),
        ("cmd: sd-server --listen-port 9000", "http://127.0.0.1:9000"),
        ("cmd: server --nothing", "http://127.0.0.1:8080"),
        ("cmd: server --x ${PORT}\n    proxy: 'http://[::1'", None),
        ("cmd: server --x ${PORT}\n    proxy: https://elsewhere/v1", None),
    ],
)
def test_an_engine_is_where_it_was(tmp_path: Path, model: str, address: str | None) -> None:
    found = only_model(tmp_path, f"models:\n  m:\n    {model}\n")
    assert found.variants[0].connect == address


@pytest.mark.parametrize(
    ("cmd", "engine", "context"),
    [
        ("/a/llama-server -c 8192 -np 4", "llamacpp", 2048),
        ("/a/llama-server -c 8192 -np 4 --kv-unified", "llamacpp", 8192),
        ("env LLAMA_ARG_CTX_SIZE=4096 nice -n 5 /a/llama-server-cuda", "llamacpp", 4096),
        ("bash -c 'exec llama-server --port ${PORT}'", "llamacpp", 8192),
        ("llama-server -c ${env.CTX}", "llamacpp", 1024),
        ("llama-server ${env.MORE}", "llamacpp", 512),
        ("vllm serve x --port ${PORT} --max-model-len=64K", "openai", 65_536),
        ("python -m sglang.launch_server --context-length 16384 --port ${PORT}", "openai", 16_384),
        ("whisper-server --port ${PORT}", "openai", 4096),
    ],
)
def test_what_a_request_may_use_is_read_off_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cmd: str, engine: str, context: int
) -> None:
    variables = {"CTX": "1024", "MORE": "-c 512 --verbose"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    text = f"models:\n  m:\n    cmd: {cmd}\n"
    found = only_model(tmp_path, text, **variables)
    assert (found.engine.preset, found.variants[0].context) == (engine, context)


def test_a_context_that_nothing_names_is_the_models_own_or_assumed(tmp_path: Path) -> None:
    text = "models:\n  m:\n    cmd: llama-server -m /x.gguf\n"
    assert "context = 40960" in lua_of(text, trained=40_960)[0]
    lua, remarks = lua_of(text)
    assert "context = 8192, -- assumed" in lua
    assert "models.m.cmd" in remarks


MEMBERS = "models: {a: {cmd: s}, b: {cmd: s}, c: {cmd: s}, d: {cmd: s}}\n"


@pytest.mark.parametrize(
    ("groups", "pools", "engines"),
    [
        ("", "pppp", {}),
        ("groups: {x: {members: [a, b]}}", "pppp", {}),
        ("groups: {x: {members: [a, b, c, d], swap: false}}", "pppp", {"primary": 4}),
        ("groups: {x: {members: [a], persistent: true, swap: false, exclusive: false}}",
         "xppp", {"x": 1}),
        ("groups: {x: {members: [a, b], swap: false, exclusive: false}}", "xxpp", {"x": 2}),
        ("routing: {router: {settings: {groups: {x: {members: [d], exclusive: false}}}}}",
         "pppx", {"x": 1}),
        ("matrix: {vars: {q: a}, sets: {s: (q | b) & (c | d)}}", "ppww", {"with-c": 1}),
        ("matrix: {sets: {s: a & b, t: +s & c}}", "pppp", {"primary": 3}),
    ],
)  # fmt: skip
def test_groups_and_a_matrix_become_pools(
    tmp_path: Path, groups: str, pools: str, engines: dict[str, int]
) -> None:
    config, _ = convert(tmp_path, MEMBERS + groups)
    assert "".join(model.pool[0] for model in config.models) == pools
    here = {n: p.engines for n, p in config.pools.items() if p.engines < UNLIMITED_ENGINES}
    assert here == {"primary": 1, "secondary": 1, **engines}


def test_selectors_become_choices(tmp_path: Path) -> None:
    config, remarks = convert(
        tmp_path,
        MEMBERS + "selectors:\n"
        "  w: {strategy: warm, targets: [a, gone, b], name: W, unlisted: true}\n"
        "  s: {strategy: spillover, targets: [c, d], settings: {spillover: 3}}\n"
        "  p: {strategy: pin, targets: [d, a]}\n"
        "  x: {strategy: other, targets: [a]}\n"
        "profiles: {coding: {pins: {a: b}}}\n",
    )
    found = {choice.name: [member.model for member in choice.members] for choice in config.choices}
    assert found == {"w": ["a", "b"], "s": ["c", "d"], "p": ["d"]}
    assert {*remarks} >= {
        "selectors.w.targets", "selectors.p.targets", "selectors.x.strategy", "profiles.coding",
    }  # fmt: skip


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(8)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected llama-swap's"),
        ("[1, 2]", "expected llama-swap's"),
        ("models: []", "expected names and models"),
        ("models: {}", "no models"),
        ("models: {a: {}}", "models.a.cmd: an empty command"),
        ("models: {a: {cmd: 'x \"y'}}", "a quote in it is not closed"),
        ("models: {a: {cmd: s}, a: {cmd: t}}", "is there twice"),
        ("models: {a: {cmd: '${nothing}'}}", "models.a: no macro ${nothing}"),
        ("macros: {x: '${x}'}\nmodels: {a: {cmd: s}}", "has itself in it"),
        ("macros: {x: [1]}\nmodels: {a: {cmd: s}}", "expected a text"),
        ("models: {a: {cmd: !!python/object/apply:os.system [true]}}", "a tag"),
        ("models: &m {a: *m}", "nested too deeply"),
        (BOMB + "models: {a: {cmd: s}}", "more than 100,000 values"),
        ("models: {a: {cmd: s}}\nmatrix: {sets: {s: a & (}}", "not an expression"),
        ("models: {a: {cmd: s}}\nmatrix: {sets: {s: +t, t: +s}}", "cannot be put in"),
        ("models:\n\t- x", "line 2"),
        ('models: {a: {cmd: "s\\0"}}', "line 1: a NUL"),
        ("a: b\n---\nc: d", ""),
    ],
)  # fmt: skip
def test_what_is_no_configuration_is_refused_with_its_place(text: str, said: str) -> None:
    with pytest.raises(NotConvertible) as caught:
        described(text, "c.yaml", {}, lambda _: None)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "name", ['"] = os.exit() --', "]]", "a\\nb", "über", "-- x", "${env.HOME}/m", "end", "1"]
)
def test_no_name_becomes_a_part_of_the_program(name: str) -> None:
    text = msgspec.json.encode({"models": {name: {"cmd": "s", "description": name}}}).decode()
    lua, _ = lua_of(text)
    assert "os.exit" not in lua or '\\"] = os.exit()' in lua
