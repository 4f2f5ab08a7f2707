"""From a Lua file to a checked configuration, or to every mistake in it at once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.configurations import SMALLEST, load, mistakes, smallest
from tests.support.thoroughness import examples
from trio_gateway.config.engine_types import LLAMACPP, UNLIMITED_ENGINES
from trio_gateway.config.history_schema import HistoryConfig
from trio_gateway.config.keepalive import KeepaliveStyle, LoadingState
from trio_gateway.config.loader import ConfigError, ConfigLoader
from trio_gateway.config.lua import presets
from trio_gateway.config.pool_schema import PoolConfig
from trio_gateway.config.schema import (
    EngineTimeouts,
    GatewayConfig,
    ListenAddress,
    ServerConfig,
    VariantConfig,
)

REPOSITORY = Path(__file__).parents[2]
EARLIER = REPOSITORY / "tests" / "support" / "data" / "earlier_gateway.lua"


def only_variant(config: GatewayConfig) -> VariantConfig:
    (model,) = config.models
    (variant,) = model.variants
    return variant


# -- a valid file ---------------------------------------------------------------------------


def test_the_smallest_file_gets_all_defaults(tmp_path: Path) -> None:
    config = smallest(tmp_path)
    assert config.source == tmp_path / "gateway.lua"
    assert config.server == ServerConfig()
    assert config.server.listen == (ListenAddress("127.0.0.1", 7777),)
    assert config.server.timeouts == EngineTimeouts(
        health_check_s=5, startup_s=120, idle_s=300, stop_s=10
    )
    assert {name: pool.engines for name, pool in config.pools.items()} == {
        "primary": 1,
        "secondary": 1,
        "remote": UNLIMITED_ENGINES,
        "ray": UNLIMITED_ENGINES,
    }
    (model,) = config.models
    assert (model.name, model.aliases, model.engine) == ("m", (), LLAMACPP)
    assert (model.pool, model.pinned, model.hidden, model.description) == (
        "primary", False, False, "",
    )  # fmt: skip
    assert model.tokenization is None
    assert only_variant(config) == VariantConfig(
        name="4096",
        binary=f"{tmp_path}/bin/llama-server",
        args=("-m", "m.gguf"),
        context=4096,
        connect=None,
        env={},
        workdir=tmp_path / "bin",
        parallel=None,
        memory_bytes=None,
        timeouts=EngineTimeouts(),
    )
    assert config.notes == ()


def test_every_key_of_the_server_is_read(tmp_path: Path) -> None:
    config = smallest(
        tmp_path,
        """
        server = {
          listen_v4 = { "127.0.0.1:7777", "127.0.0.2:8080" }, listen_v6 = "[::1]:7777",
          health_check_timeout = 1, engine_startup_timeout = 2.5, engine_idle_timeout = 3,
          engine_stop_timeout = 4, shutdown_grace = 0, dumps_dir = "dumps",
          clear_dumps_on_start = true, max_body_size = "1MiB", default_answer_tokens = 512,
          max_buffered = "2GiB", max_spooled = "3GiB",
          queue_limit = 8, queue_timeout = 60, fairness_window = 0, stream_keepalive = 0,
          stream_keepalive_style = "data", loading_state = "reasoning",
          session_headers = { "X-Chat" },
        }
        """,
    )
    assert config.server == ServerConfig(
        listen=(
            ListenAddress("127.0.0.1", 7777),
            ListenAddress("127.0.0.2", 8080),
            ListenAddress("::1", 7777),
        ),
        timeouts=EngineTimeouts(health_check_s=1, startup_s=2.5, idle_s=3, stop_s=4),
        shutdown_grace_s=0,
        dumps_dir=tmp_path / "dumps",
        clear_dumps_on_start=True,
        max_body_bytes=2**20,
        max_buffered_bytes=2 * 2**30,
        max_spooled_bytes=3 * 2**30,
        default_answer_tokens=512,
        stream_keepalive_style=KeepaliveStyle.DATA,
        loading_state=LoadingState.REASONING,
        session_headers=("x-chat",),
        queue_limit=8,
        queue_timeout_s=60,
        fairness_window_s=0,
        stream_keepalive_s=0,
    )


def test_every_key_of_a_model_and_a_variant_is_read(tmp_path: Path) -> None:
    config = smallest(
        tmp_path,
        """
        pools = { big = { engines = 2, memory = "24GiB", longest_answer = "2m" } }
        model.aliases, model.pool, model.description = { "default", "org/m:Q4" }, "big", "words"
        model.pinned, model.hidden = true, true
        model.tokenization = {
          binary = "bin/llama-tokenize", extra_args = { "-m", "m.gguf" },
          extra_tokens_per_message = 5, extra_tokens = 8,
        }
        variant.name, variant.env, variant.workdir = "small", { GGML_X = "1" }, "work"
        variant.parallel, variant.memory, variant.load_time = 4, "6GiB", 12.5
        """,
    )
    (model,) = config.models
    assert config.pools["big"] == PoolConfig(
        "big", engines=2, memory_bytes=24 * 2**30, longest_answer_s=120
    )
    assert (model.aliases, model.pool, model.description, model.pinned, model.hidden) == (
        ("default", "org/m:Q4"), "big", "words", True, True,
    )  # fmt: skip
    assert model.name == "m"
    assert model.tokenization is not None
    assert model.tokenization.binary == f"{tmp_path}/bin/llama-tokenize"
    assert model.tokenization.base_args == ("--log-disable", "--stdin", "--ids")
    assert model.tokenization.extra_args == ("-m", "m.gguf")
    assert model.tokenization.extra_tokens_per_message == 5
    assert model.tokenization.extra_tokens == 8
    variant = only_variant(config)
    assert (variant.name, variant.env, variant.workdir) == (
        "small", {"GGML_X": "1"}, tmp_path / "work",
    )  # fmt: skip
    assert (variant.parallel, variant.memory_bytes) == (4, 6 * 2**30)
    assert (variant.load_time_s, variant.estimated_memory_bytes) == (12.5, None)


def test_numbers_may_be_integral_floats(tmp_path: Path) -> None:
    variant = only_variant(smallest(tmp_path, "variant.context = 8192 / 2"))
    assert (variant.context, type(variant.context), variant.name) == (4096, int, "4096")


def test_variants_are_sorted_by_context(tmp_path: Path) -> None:
    config = smallest(
        tmp_path,
        """
        model.variants = {}
        for i, context in ipairs { 8192, 2048, 32768 } do
          model.variants[i] = merge_tables(variant, { context = context })
        end
        """,
    )
    assert [v.context for v in config.models[0].variants] == [2048, 8192, 32768]
    assert config.models[0].largest_context == 32768


def test_variants_of_the_same_context_get_different_names(tmp_path: Path) -> None:
    config = smallest(tmp_path, "model.variants = { variant, variant, variant }")
    assert [v.name for v in config.models[0].variants] == ["4096", "4096-2", "4096-3"]


def test_the_innermost_timeout_counts(tmp_path: Path) -> None:
    config = smallest(
        tmp_path,
        """
        server = { health_check_timeout = 1, engine_startup_timeout = 1, engine_idle_timeout = 1 }
        model.engine_startup_timeout, model.engine_idle_timeout = 2, 2
        model.variants = { merge_tables(variant, { engine_idle_timeout = 3 }), variant }
        """,
    )
    (model,) = config.models
    assert [v.timeouts for v in model.variants] == [
        EngineTimeouts(health_check_s=1, startup_s=2, idle_s=3, stop_s=10),
        EngineTimeouts(health_check_s=1, startup_s=2, idle_s=2, stop_s=10),
    ]


def test_a_variant_may_have_another_connect_than_its_model(tmp_path: Path) -> None:
    config = smallest(
        tmp_path,
        """
        model.connect = "http://127.0.0.1:8080/"
        model.variants = { variant, merge_tables(variant, { connect = "http://127.0.0.1:8081" }) }
        """,
    )
    assert [v.connect for v in config.models[0].variants] == [
        "http://127.0.0.1:8080",
        "http://127.0.0.1:8081",
    ]


def test_the_secondary_engine_is_in_the_secondary_pool_unless_told_otherwise(
    tmp_path: Path,
) -> None:
    config = smallest(
        tmp_path,
        """
        model.engine = presets.engines.llamacpp_secondary
        models[2] = merge_tables(model, { name = "other", pool = "primary" })
        """,
    )
    assert [m.pool for m in config.models] == ["secondary", "primary"]


def test_a_pool_that_is_given_leaves_the_other_as_it_is(tmp_path: Path) -> None:
    config = smallest(tmp_path, "pools = { primary = { engines = 2 } }")
    assert {name: pool.engines for name, pool in config.pools.items()} == {
        "primary": 2,
        "secondary": 1,
        "remote": UNLIMITED_ENGINES,
        "ray": UNLIMITED_ENGINES,
    }


def test_a_bare_binary_name_is_looked_up_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "on_path" / "my-server"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    assert only_variant(smallest(tmp_path, "variant.binary = 'my-server'")).binary == str(program)
    assert only_variant(smallest(tmp_path, "variant.binary = 'none'")).binary == "none"


def test_a_tilde_in_a_path_is_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    config = smallest(tmp_path, "server.dumps_dir = '~/dumps' variant.binary = '~/bin/x'")
    assert config.server.dumps_dir == tmp_path / "home" / "dumps"
    assert only_variant(config).binary == f"{tmp_path}/home/bin/x"


def test_relative_paths_do_not_depend_on_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gateway.lua").write_text(SMALLEST)
    monkeypatch.chdir(tmp_path.parent)
    config = ConfigLoader(Path(tmp_path.name) / "gateway.lua").load()
    assert only_variant(config).binary == f"{tmp_path}/bin/llama-server"


def test_a_file_is_read_anew_each_time(tmp_path: Path) -> None:
    loader = ConfigLoader(tmp_path / "gateway.lua")
    for name in ("first", "second"):
        (tmp_path / "gateway.lua").write_text(SMALLEST + f"model.name = '{name}'")
        assert loader.load().models[0].name == name


def test_a_model_for_each_gguf_file_takes_a_loop(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    for name in ("b.gguf", "a.gguf", "old/a.gguf"):
        (tmp_path / "models" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "models" / name).touch()
    config = load(
        tmp_path,
        """
        server, models = {}, {}
        local files, names = find_gguf("models")
        for i, file in ipairs(files) do
          models[#models + 1] = {
            name = names[i],
            engine = presets.engines.llamacpp,
            variants = { { binary = "llama-server", args = { "-m", file }, context = 4096 } },
          }
        end
        """,
    )
    assert [m.name for m in config.models] == ["a", "b", "old/a"]
    assert config.models[0].variants[0].args == ("-m", f"{tmp_path}/models/a.gguf")


def test_models_may_stand_in_files_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "one.lua").write_text(SMALLEST + "return model")
    config = load(tmp_path, "models = { include('models/one.lua') }\nserver = {}")
    assert [m.name for m in config.models] == ["m"]


# -- files that exist -----------------------------------------------------------------------


def test_a_file_of_the_earlier_gateway_loads_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODELS_DIR", raising=False)
    config = ConfigLoader(EARLIER).load()
    server = config.server
    assert [str(address) for address in server.listen] == [
        "127.0.0.1:7777", "192.168.1.20:7777", "[::1]:7777", "[fd00::20]:7777",
    ]  # fmt: skip
    assert server.timeouts == EngineTimeouts(health_check_s=5, startup_s=60, idle_s=120)
    assert (server.dumps_dir, server.clear_dumps_on_start) == (EARLIER.parent / "dumps", True)

    instruct, thinking, slow, embeddings = config.models
    assert [m.name for m in config.models] == [
        "qwen3-30b-instruct", "qwen3-30b-thinking", "qwen3-30b-cpu", "embeddings",
    ]  # fmt: skip
    assert [v.context for v in instruct.variants] == [20480, 40960]
    common = ("--no-webui", "--port", "8080", "-m", "/mnt/data/GGUF models/qwen3.gguf", "-c")
    assert instruct.variants[0].args == (*common, "20480", "-ngl", "99")
    longer = (*common, "40960", "-ngl", "99", "-ctk", "q8_0", "-ctv", "q8_0")
    assert instruct.variants[1].args == longer
    assert instruct.variants[0].binary == "/home/user/llama.cpp/build/bin/llama-server"
    assert {v.connect for v in instruct.variants} == {"http://127.0.0.1:8080"}
    assert instruct.tokenization is not None
    assert instruct.tokenization.extra_tokens_per_message == 8
    assert instruct.tokenization.extra_tokens == 16

    assert thinking.tokenization == instruct.tokenization
    assert thinking.variants[1].args == (*longer, "--reasoning-budget", "-1")
    assert {v.timeouts.idle_s for v in thinking.variants} == {600}

    assert slow.tokenization is None
    assert slow.variants[0].args[:3] == ("--no-webui", "--port", "8081")
    assert slow.variants[0].args[-2:] == ("-ngl", "0")
    assert {v.connect for v in slow.variants} == {"http://127.0.0.1:8081"}
    assert {v.timeouts.startup_s for v in slow.variants} == {300}
    assert {v.timeouts.startup_s for v in instruct.variants} == {60}

    assert (embeddings.engine.preset, embeddings.pool) == ("llamacpp_secondary", "secondary")
    assert embeddings.tokenization is not None
    assert embeddings.tokenization.base_args[-1] == "--no-bos"
    assert embeddings.variants[0].args[-1] == r"C:\Models\new\tiny.gguf"
    assert embeddings.variants[0].timeouts == EngineTimeouts(
        health_check_s=2.5, startup_s=60, idle_s=120
    )


def test_an_old_tokenize_in_a_variant_is_accepted_with_one_note() -> None:
    (note,) = ConfigLoader(EARLIER).load().notes
    assert note == (
        'models[1] "qwen3-30b-instruct".variants[1].tokenize (and 5 more) has no effect: '
        "tokens are counted when needed"
    )


def test_the_base_arguments_of_a_tokenizer_may_be_one_string(tmp_path: Path) -> None:
    config = smallest(tmp_path, "model.tokenization = { binary = 'x', base_args = '--ids -p' }")
    tokenization = config.models[0].tokenization
    assert tokenization is not None
    assert tokenization.base_args == ("--ids", "-p")


def test_the_example_loads_on_a_machine_without_its_models(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    monkeypatch.delenv("GGUF", raising=False)
    config = ConfigLoader(REPOSITORY / "config" / "example.lua").load()
    assert [(m.pool, len(m.variants)) for m in config.models] == [
        ("primary", 3), ("primary", 3), ("secondary", 1),
    ]  # fmt: skip
    assert "--embeddings" in config.models[2].variants[0].args
    for model in config.models:
        for variant in model.variants:
            slots = variant.parallel or 1
            assert str(variant.context * slots) in variant.args


def test_the_embedded_configuration_loads_where_its_packages_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(presets._PRESETS["binaries"], "embedded", lambda: "/x/server")
    monkeypatch.setitem(presets._PRESETS["models"], "smollm2", lambda: "/x/m.gguf")
    shutil.copy(REPOSITORY / "config" / "embedded.lua", tmp_path)
    config = ConfigLoader(tmp_path / "embedded.lua").load()
    assert [v.context for v in config.models[0].variants] == [2048, 8192]


# -- mistakes -------------------------------------------------------------------------------


def test_all_mistakes_of_a_file_are_reported_in_one_go(tmp_path: Path) -> None:
    source = """
    server = { listen_v4 = "nowhere", health_check_timeout = 0, listen = "x", dumps_dir = 7 }
    pools = { primary = { engines = 0, memory = "24 gigs", size = 1 }, "x" }
    models = {
      { name = "a", engine = "vllm", variants = { { binary = "x", args = "y", context = "32k" } } },
      { engine = presets.engines.llamacpp, variants = {}, pool = "gpu", alias = "b" },
      "c",
      { name = "d", variants = { 7, { arg = {} } }, tokenization = { extra_tokens = -1 } },
    }
    """
    assert mistakes(tmp_path, source, before="") == [
        'server.listen_v4: expected "host:port", an array of them, or "none", got "nowhere"',
        "server.dumps_dir: expected a string that is not empty, got 7",
        'server.health_check_timeout: expected a positive time: seconds, or text such as "90s" or '
        '"5m", got 0',
        'server.listen: unknown key; use "listen_v4", such as "127.0.0.1:7777"',
        "pools: expected names as keys, got 1",
        "pools.primary.engines: expected a positive integer, got 0",
        'pools.primary.memory: expected a size: bytes, or text such as "100MiB" or "6GiB", '
        'got "24 gigs"',
        "pools.primary.size: unknown key",
        'models[1] "a".engine: expected presets.engines.llamacpp, '
        "presets.engines.llamacpp_secondary, presets.engines.openai, presets.engines.remote or "
        "presets.engines.ray, "
        'got "vllm"; write presets.engines.openai, without quotes',
        'models[1] "a".variants[1].context: expected a positive integer, got "32k"',
        'models[1] "a".variants[1].args: expected an array of strings, got "y"; write one string '
        'for each: args = { "y", … }',
        "models[2].variants: expected at least one variant",
        "models[2].name: missing; expected a string",
        'models[2].alias: unknown key; did you mean "aliases"?',
        'models[2].pool: no pool "gpu"; known: primary, secondary, remote, ray; '
        "or add `pools = { gpu = {} }`",
        'models[3]: expected a table, got "c"',
        'models[4] "d".engine: missing; expected one of presets.engines, such as '
        "presets.engines.llamacpp",
        'models[4] "d".variants[1]: expected a table, got 7',
        'models[4] "d".variants[2].binary: missing; expected a path',
        'models[4] "d".variants[2].context: missing; expected a positive integer',
        'models[4] "d".variants[2].args: missing; expected an array of strings',
        'models[4] "d".variants[2].arg: unknown key; did you mean "args"?',
        'models[4] "d".tokenization.binary: missing; expected a path',
        'models[4] "d".tokenization.extra_tokens: expected an integer that is not negative, got -1',
    ]


def test_an_empty_file_misses_both_tables(tmp_path: Path) -> None:
    assert mistakes(tmp_path, "", before="") == [
        "server: missing; expected a table (it may be empty: server = {})",
        "models: missing; expected an array of models",
    ]


def test_a_misspelt_table_is_named(tmp_path: Path) -> None:
    assert mistakes(tmp_path, "sever, model = {}, {}", before="") == [
        'server: missing; expected a table (it may be empty: server = {}); found "sever"; '
        'rename it to "server"',
        'models: missing; expected an array of models; found "model"; rename it to "models"',
    ]


@pytest.mark.parametrize("table", ["server", "models", "pools"])
def test_a_table_that_is_something_else_is_a_mistake(tmp_path: Path, table: str) -> None:
    (message,) = mistakes(tmp_path, f"{table} = 7")
    assert message.startswith(f"{table}: expected a")
    assert message.endswith(", got 7")


def test_no_models_at_all_is_a_mistake(tmp_path: Path) -> None:
    assert mistakes(tmp_path, "models = {}") == ["models: expected at least one model"]


def test_no_address_at_all_is_a_mistake_whatever_else_is_wrong(tmp_path: Path) -> None:
    assert mistakes(tmp_path, "server.listen_v4, models = 'none', nil") == [
        "models: missing; expected an array of models",
        'server: listen_v4 and listen_v6 are both "none": nothing to listen on',
    ]


def test_the_same_address_twice_is_a_mistake_but_free_ports_are_not(tmp_path: Path) -> None:
    twice = "server.listen_v4 = { '127.0.0.1:80', '127.0.0.1:80' }"
    assert mistakes(tmp_path, twice) == ["server: 127.0.0.1:80 is listed twice; remove one"]
    config = smallest(tmp_path, "server.listen_v4 = { '127.0.0.1:0', '127.0.0.1:0' }")
    assert len(config.server.listen) == 2


def test_a_name_or_an_alias_belongs_to_one_model(tmp_path: Path) -> None:
    changes = """
    models[2] = merge_tables(model, { name = "n", aliases = { "m", "other" } })
    models[3] = merge_tables(model, { name = "other" })
    """
    assert mistakes(tmp_path, changes) == [
        'models[2] "n".aliases: "m" is already a name of models[1] "m"; rename one of the two',
        'models[3] "other": "other" is already a name of models[2] "n"; rename one of the two',
    ]


def test_two_variants_of_a_model_do_not_share_a_name_that_was_given(tmp_path: Path) -> None:
    changes = "variant.name = 'fast' model.variants = { variant, variant }"
    assert mistakes(tmp_path, changes) == [
        'models[1] "m": two variants are named "fast"; give each a name of its own'
    ]


def test_a_name_that_no_header_can_carry_is_a_mistake(tmp_path: Path) -> None:
    assert mistakes(tmp_path, r"model.name = 'a\r\nb'") == [
        r'models[1] "a\r\nb".name: expected a name (one line, no spaces around it), got "a\r\nb"'
    ]


def test_a_hole_in_the_arguments_is_a_mistake(tmp_path: Path) -> None:
    assert mistakes(tmp_path, "variant.args = { '-m', undefined, '-c' }") == [
        'models[1] "m".variants[1].args: expected an array of strings, '
        "but element 2 is nil (an undefined name?)"
    ]


def test_a_key_that_this_version_does_not_have_is_unknown(tmp_path: Path) -> None:
    (message,) = mistakes(tmp_path, 'pools = { primary = { vram = "24GiB" } }')
    assert message == 'pools.primary.vram: unknown key; use "memory"'


def test_a_string_that_is_not_utf_8_is_a_mistake(tmp_path: Path) -> None:
    assert mistakes(tmp_path, r"model.name = '\xff'") == ["a string in it is not UTF-8 text"]


def test_a_program_that_fails_is_one_mistake_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "server = {}\nmodels = { preset.engines }")
    assert caught.value.mistakes == [
        f"{tmp_path}/gateway.lua:2: attempt to index a nil value (global 'preset')"
        '; did you mean "presets"?'
    ]


# -- any file at all ------------------------------------------------------------------------

BOUNDED = settings(
    max_examples=examples(75),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

lua_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["127.0.0.1:80", "none", "http://127.0.0.1:80", "1GiB", "llama.cpp"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["name", "engine", "variants", "args", "context", "binary", "connect", "env",
                 "tokenization", "aliases", "pool", "listen_v4", "listen_v6", "engines",
                 "max_body_size", "engine_idle_timeout", "extra_tokens", "tokenize", "primary",
                 "memory", "load_time"]
            ) | st.text(max_size=4),
            inner,
            max_size=6,
        )
    ),
    max_leaves=30,
)  # fmt: skip


def as_lua(value: object) -> str:
    match value:
        case None:
            return "nil"
        case bool():
            return "true" if value else "false"
        case str():
            return '"' + "".join(f"\\x{byte:02x}" for byte in value.encode()) + '"'
        case float() if value != value or value in (float("inf"), float("-inf")):
            return {"nan": "(0/0)", "inf": "(1/0)", "-inf": "(-1/0)"}[str(value)]
        case list():
            return "{" + ", ".join(as_lua(entry) for entry in value) + "}"
        case dict():
            return "{" + ", ".join(f"[{as_lua(k)}] = {as_lua(v)}" for k, v in value.items()) + "}"
        case _:
            return str(value)


def loads_or_says_why(folder: Path, source: str) -> None:
    lines = ["no mistake"]
    try:
        load(folder, source)
    except ConfigError as error:
        lines = error.mistakes
    assert lines
    assert all(line and line.isprintable() for line in lines)


@pytest.mark.untraced
@BOUNDED
@given(source=st.text())
def test_any_text_is_a_configuration_or_a_config_error(tmp_path: Path, source: str) -> None:
    loads_or_says_why(tmp_path, source)
    loads_or_says_why(tmp_path, SMALLEST + source)


@pytest.mark.untraced
@BOUNDED
@given(server=lua_values, models=lua_values, pools=lua_values)
def test_any_tables_are_a_configuration_or_a_config_error(
    tmp_path: Path, server: object, models: object, pools: object
) -> None:
    tables = {"server": server, "models": models, "pools": pools}
    loads_or_says_why(tmp_path, "\n".join(f"{k} = {as_lua(v)}" for k, v in tables.items()))


@pytest.mark.untraced
@BOUNDED
@given(changes=st.dictionaries(st.sampled_from(["model", "variant", "server"]), lua_values))
def test_any_change_of_one_key_is_a_configuration_or_a_config_error(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    for table, value in changes.items():
        for key in ("name", "connect", "args", "listen_v4", "engine_idle_timeout", "env"):
            loads_or_says_why(tmp_path, f"{SMALLEST}\n{table}.{key} = {as_lua(value)}")


def test_the_examples_in_the_documentation_load(tmp_path: Path) -> None:
    text = (REPOSITORY / "docs" / "configuration.md").read_text(encoding="utf-8")
    programs = [part.split("```")[0] for part in text.split("```lua\n")[1:]]
    smallest_file, worked = programs[0], next(p for p in programs if "local models_dir" in p)
    assert [m.name for m in load(tmp_path, smallest_file).models] == ["qwen3-30b"]
    assert [m.name for m in load(tmp_path, worked).models] == ["qwen3-30b", "embeddings"]


@pytest.mark.parametrize("name", ["", "X Chat", "X-Chat:", "Authorization", "x-api-key"])
def test_a_session_header_is_the_name_of_one_that_is_no_key(tmp_path: Path, name: str) -> None:
    (message,) = mistakes(tmp_path, f'server = {{ session_headers = {{ "{name}" }} }}')
    wanted = 'server.session_headers: expected names of headers, as "X-Session-Id", got'
    assert f'{wanted} "{name}"' in message


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ("7", "server.history: expected a table, got 7"),
        ("{ requests = 0 }", "server.history.requests: expected a positive integer, got 0"),
        ("{ requests = 1e9 }", "server.history.requests: expected 1 to 100000, got 1000000000.0"),
        ("{ count = 9 }", "server.history.count: unknown key"),
        ('{ keep = "9d" }', "server.history.keep: there is no file; set `file` as well"),
        ('{ file = "" }', 'server.history.file: expected a string that is not empty, got ""'),
    ],
)
def test_a_history_is_checked(tmp_path: Path, history: str, message: str) -> None:
    assert mistakes(tmp_path, f"server.history = {history}") == [message]


def test_a_history_has_a_file_beside_the_configuration(tmp_path: Path) -> None:
    given = 'server.history = { requests = 50, file = "history.sqlite", keep = "7d" }'
    history = smallest(tmp_path, given).server.history
    assert (history.requests, history.keep_s) == (50, 7 * 86400)
    assert history.file == tmp_path / "history.sqlite"
    assert smallest(tmp_path, "").server.history == HistoryConfig()


@pytest.mark.parametrize(
    ("said", "loading_state"),
    [("false", LoadingState.NONE), ('"none"', LoadingState.NONE),
     ('"reasoning"', LoadingState.REASONING), ("nil", None)],
)  # fmt: skip
def test_a_model_has_a_loading_state_of_its_own(
    tmp_path: Path, said: str, loading_state: LoadingState | None
) -> None:
    source = f"""
        server = {{}}
        models = {{ {{ name = "m", engine = presets.engines.llamacpp, loading_state = {said},
          variants = {{ {{ binary = "x", args = {{}}, context = 9 }} }} }} }}
        """
    assert load(tmp_path, source).models[0].loading_state is loading_state


def test_a_loading_state_is_reasoning_or_none(tmp_path: Path) -> None:
    (message,) = mistakes(tmp_path, "server = { loading_state = true }")
    assert 'server.loading_state: expected "reasoning" or false, got true' in message
    (message,) = mistakes(tmp_path, 'server = { stream_keepalive_style = "reasoning" }')
    assert 'use loading_state = "reasoning"' in message


def test_a_style_of_keepalive_is_one_of_two(tmp_path: Path) -> None:
    (message,) = mistakes(tmp_path, 'server = { stream_keepalive_style = "ping" }')
    assert 'stream_keepalive_style: expected "comment" or "data", got "ping"' in message


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("variant.load_time", "0", "a positive time"),
        ("server.stream_keepalive", "-1", "a time of 0 or more"),
    ],
)
def test_a_time_out_of_range_is_a_mistake(tmp_path: Path, key: str, value: str, what: str) -> None:
    (message,) = mistakes(tmp_path, f"{key} = {value}")
    assert f".{key.split('.')[1]}: expected {what}: seconds, or text such as " in message
    assert message.endswith(f", got {value}")


@pytest.mark.parametrize(
    ("fields", "path", "words"),
    [
        ('args = { "--port", "99999" }', "args", '--port to be 1 to 65535, or "${PORT}"'),
        ('args = { "--port=0" }', "args", "--port to be 1 to 65535"),
        ('args = { "--port", "http" }', "args", "--port to be 1 to 65535"),
        ('args = {}, env = { ["my.var"] = "x" }', "env", "names of variables as keys"),
    ],
)
def test_what_no_engine_could_use_is_a_mistake(
    tmp_path: Path, fields: str, path: str, words: str
) -> None:
    file = tmp_path / "gateway.lua"
    file.write_text(
        "server = {}\nmodels = {{ name = 'm', engine = presets.engines.llamacpp, variants = {"
        f"{{ binary = 'sh', context = 1024, {fields} }} }} }} }}\n"
    )
    with pytest.raises(ConfigError) as caught:
        ConfigLoader(file).load()
    (mistake,) = caught.value.mistakes
    assert f'models[1] "m".variants[1].{path}: expected' in mistake
    assert words in mistake


def test_a_port_in_the_arguments_may_be_left_to_the_gateway(tmp_path: Path) -> None:
    file = tmp_path / "gateway.lua"
    file.write_text(
        "server = {}\nmodels = {{ name = 'm', engine = presets.engines.llamacpp, variants = {"
        "{ binary = 'sh', context = 1024, args = { '--port', '${PORT}' } } } }}\n"
    )
    assert ConfigLoader(file).load().models[0].variants[0].args == ("--port", "${PORT}")


URL = "http://127.0.0.1:4318/v1/traces"
A_URL = f'the full URL of a collector for OTLP over HTTP, such as "{URL}"'


@pytest.mark.parametrize(
    ("traces", "message"),
    [
        ("true", ": expected a table, got true"),
        ("{}", f".endpoint: missing; expected {A_URL}"),
        ("{ endpoint = 4318 }", f".endpoint: expected {A_URL}"),
        ('{ endpoint = "127.0.0.1:4318" }', f".endpoint: expected {A_URL}"),
        ('{ endpoint = "grpc://h:4317/" }', f".endpoint: expected {A_URL}"),
        (
            '{ endpoint = "http://h:4318/" }',
            f".endpoint: expected {A_URL}; this one has no path",
        ),
        (
            '{ endpoint = "http://me:secret@h/v1/traces" }',
            ".endpoint: expected a URL without a user; what it asks for belongs in headers",
        ),
        (
            f'{{ endpoint = "{URL}", sample = 2 }}',
            ".sample: expected a share of the requests, 0 to 1, got 2",
        ),
        (f'{{ endpoint = "{URL}", share = 1 }}', ".share: unknown key"),
        (
            f'{{ endpoint = "{URL}", headers = {{ Authorization = "a\\nb" }} }}',
            ".headers.Authorization: expected a text (printable ASCII)",
        ),
        (
            f'{{ endpoint = "{URL}", headers = {{ ["Content-Type"] = "x" }} }}',
            ".headers.Content-Type: this header is set by the gateway",
        ),
        (
            f'{{ endpoint = "{URL}", headers = {{ "x" }} }}',
            ".headers: expected names of headers as keys, got 1",
        ),
    ],
)  # fmt: skip
def test_traces_are_checked(tmp_path: Path, traces: str, message: str) -> None:
    assert mistakes(tmp_path, f"server.traces = {traces}") == [f"server.traces{message}"]


def test_traces_have_a_place_headers_and_a_share(tmp_path: Path) -> None:
    assert smallest(tmp_path, "").server.traces is None
    alone = smallest(tmp_path, f'server.traces = {{ endpoint = "{URL}" }}').server.traces
    assert alone is not None
    assert (alone.endpoint, alone.headers, alone.sample) == (URL, {}, 1.0)
    headers = '{ Authorization = "Basic a b", ["x-team"] = "t" }'
    given = f'server.traces = {{ endpoint = "{URL}", headers = {headers}, sample = 0 }}'
    traces = smallest(tmp_path, given).server.traces
    assert traces is not None
    assert {name: value.reveal() for name, value in traces.headers.items()} == {
        "Authorization": "Basic a b", "x-team": "t",
    }  # fmt: skip
    assert traces.sample == 0.0
