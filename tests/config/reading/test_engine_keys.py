"""The keys of the configuration that only some types of engine have."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from trio_gateway.commands.root import root
from trio_gateway.config.engine_types import UNLIMITED_ENGINES
from trio_gateway.config.loader import ConfigError, ConfigLoader
from trio_gateway.config.schema import ModelConfig

REMOTE = 'name = "m", engine = presets.engines.remote, urls = "https://h/v1"'
OPENAI = 'name = "m", engine = presets.engines.openai'
VARIANT = 'binary = "/x/vllm", context = 4096'
KEY = "sk-not-to-be-seen"


def load(tmp_path: Path, model: str, more: str = "") -> ModelConfig:
    path = tmp_path / "gateway.lua"
    path.write_text(f"server = {{}}\n{more}\nmodels = {{ {{ {model} }} }}\n")
    return ConfigLoader(path).load().models[0]


def mistakes(tmp_path: Path, model: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, model)
    start = f'{tmp_path}/gateway.lua: models[1] "m".'
    assert all(line.startswith(start) for line in caught.value.mistakes)
    return [line.removeprefix(start) for line in caught.value.mistakes]


# -- remote -----------------------------------------------------------------------------------


def test_a_remote_model_needs_a_url_and_a_context(tmp_path: Path) -> None:
    model = load(tmp_path, f"{REMOTE}, variants = {{ {{ context = 4096 }} }}")
    (variant,) = model.variants
    assert (model.pool, variant.parallel, variant.memory_bytes) == ("remote", 64, 0)
    assert variant.options.urls == ("https://h/v1",)
    # By its own name, not by an alias that nobody knows there.
    assert variant.options.served_name == "m"
    assert variant.options.verify_tls
    assert not variant.has_process


def test_all_that_a_remote_model_may_say_and_a_variant_may_say_otherwise(tmp_path: Path) -> None:
    model = load(
        tmp_path,
        f"""
        name = "m", engine = presets.engines.remote, urls = {{ "https://a/v1/", "http://b:8000" }},
        api_key = "{KEY}", served_name = "org/m", health_path = "/ping", ca_file = "ca.pem",
        verify_tls = false, connect_timeout = 1, first_byte_timeout = 2, health_interval = 3,
        gateway = true,
        variants = {{ {{ context = 1 }}, {{ context = 2, served_name = "org/large", urls = "http://c",
                         parallel = 2, verify_tls = true }} }}
        """,
    )
    small, large = (v.options for v in model.variants)
    assert small.urls == ("https://a/v1", "http://b:8000")
    assert small.api_key is not None
    assert small.api_key.reveal() == KEY
    assert KEY not in repr(model)
    assert small.ca_file == tmp_path / "ca.pem"
    times = (small.connect_timeout_s, small.first_byte_timeout_s, small.health_interval_s)
    assert times == (1.0, 2.0, 3.0)
    assert (small.served_name, small.health_path, small.verify_tls) == ("org/m", "/ping", False)
    assert (large.served_name, large.urls, large.verify_tls) == ("org/large", ("http://c",), True)
    assert large.api_key is small.api_key
    assert small.gateway
    assert large.gateway
    assert model.variants[1].parallel == 2


def test_what_is_of_a_process_is_a_mistake_in_a_remote_model(tmp_path: Path) -> None:
    text = f"{REMOTE}, stop_command = {{ 'x' }}, variants = {{ {{ {VARIANT}, args = {{}} }} }}"
    what = 'an engine of the type "remote" has no process here'
    assert mistakes(tmp_path, text) == [
        f"stop_command: {what}",
        f"variants[1].binary: {what}",
        f"variants[1].args: {what}",
    ]


@pytest.mark.parametrize(
    "url",
    [
        '"h/v1"',
        '"ftp://h"',
        '"https://u:p@h"',
        '"https://h?x=1"',
        '"https://h:0"',
        "7",
        '"http://"',
    ],
)
def test_a_url_is_checked_and_not_shown(tmp_path: Path, url: str) -> None:
    text = f'name = "m", engine = presets.engines.remote, urls = {{ {url} }}'
    (line, *_) = mistakes(tmp_path, f"{text}, variants = {{ {{ context = 1 }} }}")
    assert line.startswith("urls[1]: expected a base URL such as")
    assert "u:p" not in line


def test_a_remote_model_without_a_url_says_so(tmp_path: Path) -> None:
    text = 'name = "m", engine = presets.engines.remote, variants = { { context = 1 } }'
    (line,) = mistakes(tmp_path, text)
    assert line.startswith("variants[1].urls: missing; expected where the engine is")


@pytest.mark.parametrize("key", [f'"{KEY} "', f'"{KEY}\\n"', '""', "7"])
def test_a_wrong_key_is_not_shown(tmp_path: Path, key: str) -> None:
    text = f"{REMOTE}, api_key = {key}, variants = {{ {{ context = 1 }} }}"
    (line,) = mistakes(tmp_path, text)
    assert line.startswith("api_key: expected a key")
    assert KEY not in line


def test_the_pool_of_remote_models_has_no_limit_unless_it_is_given_one(tmp_path: Path) -> None:
    path = tmp_path / "gateway.lua"
    for pools, engines in [("{}", UNLIMITED_ENGINES), ("{ engines = 2 }", 2)]:
        path.write_text(
            f"server = {{}} pools = {{ remote = {pools} }} "
            f"models = {{ {{ {REMOTE}, variants = {{ {{ context = 1 }} }} }} }}"
        )
        assert ConfigLoader(path).load().pools["remote"].engines == engines


def test_a_remote_model_holds_no_memory_of_a_pool(tmp_path: Path) -> None:
    path = tmp_path / "gateway.lua"
    text = f"{REMOTE}, variants = {{ {{ context = 1 }} }}"
    path.write_text(
        f'server = {{}} pools = {{ remote = {{ memory = "1GiB" }} }} models = {{ {{ {text} }} }}'
    )
    assert ConfigLoader(path).load().notes == ()


# -- openai -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "where",
    ['args = { "--port=${PORT}" }', 'args = { "x" }, env = { PORT = "${PORT}" }',
     'args = { "x" }, connect = "http://127.0.0.1:8000"'],
)  # fmt: skip
def test_an_openai_server_is_told_its_port_or_says_it(tmp_path: Path, where: str) -> None:
    model = load(tmp_path, f"{OPENAI}, variants = {{ {{ {VARIANT}, {where} }} }}")
    (variant,) = model.variants
    assert (model.pool, variant.parallel, variant.options.served_name) == ("primary", 8, None)


def test_an_openai_server_that_nobody_would_find_is_a_mistake(tmp_path: Path) -> None:
    variant = f'{{ {VARIANT}, args = {{ "serve" }} }}'
    (line,) = mistakes(tmp_path, f"{OPENAI}, variants = {{ {variant} }}")
    assert line.startswith('variants[1].args: the type "openai" adds nothing to them: write')
    fixed = 'connect = "http://127.0.0.1:8000"'
    assert load(tmp_path, f"{OPENAI}, {fixed}, variants = {{ {variant} }}").variants[0].connect


def test_a_key_of_another_type_is_told_whose_it_is(tmp_path: Path) -> None:
    variant = f'{{ {VARIANT}, args = {{ "${{PORT}}" }}, verify_tls = false }}'
    text = f"{OPENAI}, urls = 'http://h', variants = {{ {variant} }}"
    assert mistakes(tmp_path, text) == [
        "urls: only presets.engines.remote has it",
        "variants[1].verify_tls: only presets.engines.remote or presets.engines.ray has it",
    ]
    llama = 'name = "m", engine = presets.engines.llamacpp'
    (line,) = mistakes(
        tmp_path, f"{llama}, served_name = 'x', variants = {{ {{ {VARIANT}, args = {{}} }} }}"
    )
    having = "presets.engines.openai or presets.engines.remote or presets.engines.ray"
    assert line == f"served_name: only {having} has it"


# -- any type ---------------------------------------------------------------------------------


def test_endpoints_are_given_by_name_or_by_path(tmp_path: Path) -> None:
    names = '{ "/v1/audio/speech", "rerank", "v1/embeddings" }'
    model = load(tmp_path, f"{REMOTE}, endpoints = {names}, variants = {{ {{ context = 1 }} }}")
    assert model.endpoints == frozenset({"audio/speech", "rerank", "embeddings"})


def test_an_unknown_endpoint_is_a_mistake_with_a_near_name(tmp_path: Path) -> None:
    text = f'{REMOTE}, endpoints = {{ "embedings", 7 }}, variants = {{ {{ context = 1 }} }}'
    assert mistakes(tmp_path, text) == [
        'endpoints[1]: not a known endpoint: "embedings"; did you mean "embeddings"?',
        'endpoints[2]: not a known endpoint: 7; such as "chat/completions"',
    ]


def test_a_stop_command_is_of_the_variant_or_of_its_model(tmp_path: Path) -> None:
    (tmp_path / "stop").touch()
    args = 'args = { "${PORT}" }'
    first = f"{{ {VARIANT}, {args} }}"
    second = f'{{ binary = "/x", context = 5000, {args}, stop_command = {{ "/bin/kill", "x" }} }}'
    common = 'stop_command = { "./stop", "${PID}" }'
    model = load(tmp_path, f"{OPENAI}, {common}, variants = {{ {first}, {second} }}")
    assert model.variants[0].stop_command == (str(tmp_path / "stop"), "${PID}")
    assert model.variants[1].stop_command == ("/bin/kill", "x")


@pytest.mark.parametrize("value", ['"docker stop x"', "{}", '{ "" }', "{ 7 }"])
def test_a_stop_command_is_an_array_of_strings(tmp_path: Path, value: str) -> None:
    variant = f'{{ {VARIANT}, args = {{ "${{PORT}}" }}, stop_command = {value} }}'
    (line,) = mistakes(tmp_path, f"{OPENAI}, variants = {{ {variant} }}")
    assert line.startswith("variants[1].stop_command")


def test_check_shows_where_each_engine_is(tmp_path: Path) -> None:
    path = tmp_path / "gateway.lua"
    path.write_text(f"""
    server = {{}}
    pools = {{ primary = {{ memory = "8GiB" }} }}
    models = {{
      {{ name = "m", engine = presets.engines.remote, urls = {{ "https://a/v1", "https://b/v1" }},
         variants = {{ {{ context = 4096 }} }} }},
      {{ name = "v", engine = presets.engines.openai, stop_command = {{ "/no/stop" }}, variants = {{
         {{ {VARIANT}, args = {{ "${{PORT}}" }}, memory = "6GiB" }},
         {{ binary = "/x/vllm", context = 8192, connect = "http://127.0.0.1:8000", args = {{}},
            memory = "6GiB" }},
      }} }},
    }}""")
    result = CliRunner().invoke(root, ["check", "-c", str(path)])
    assert result.exit_code == 2
    rows = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "m remote 4,096 https://a/v1 and 1 more 300 s elsewhere" in rows
    assert "v primary 4,096 a free port 300 s 6.0 GiB" in rows
    assert "8,192 127.0.0.1:8000 300 s 6.0 GiB" in rows
    assert [line.partition(": ")[2] for line in result.stderr.splitlines()[:-1]] == [
        'model "v": binary: /x/vllm does not exist',
        'model "v": stop_command: /no/stop does not exist',
    ]
