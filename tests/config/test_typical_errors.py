"""The errors that people typically make in a configuration: each is told with what to do next."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.configurations import SMALLEST, load, mistakes, smallest
from trio_gateway.config.loader import ConfigError
from trio_gateway.config.lua.messages import with_hint
from trio_gateway.config.reading import familiar_words

KEY = "tg-0123456789abcdefghijklmnopqrstuvwxyz"


def only(folder: Path, changes: str) -> str:
    (found,) = mistakes(folder, changes)
    return found


def program_error(folder: Path, source: str) -> str:
    """What is said of a program that does not run, behind the name of the file."""
    with pytest.raises(ConfigError) as caught:
        load(folder, source)
    (found,) = caught.value.mistakes
    return found.removeprefix(f"{folder}/")


# -- wrong keys -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('server.listen = "x"', 'server.listen: unknown key; use "listen_v4", such as'),
        ("server.port = 7777", 'server.port: unknown key; use "listen_v4"'),
        ("server.healthCheckTimeout = 500", 'unknown key; use "engine_startup_timeout"'),
        ("server.globalTTL = 60", 'unknown key; use "engine_idle_timeout"'),
        (
            "server.hooks = {}",
            'unknown key; use preload = { "NAME" } in server, or preload = true in a model',
        ),
        ('server.preload = { "n" }', 'no model "n"'),
        ('model.aliases = { "coder" } server.preload = { "codr@8192" }', 'no model "codr@8192"'),
        ('model.filters = { stripParams = "top_k" }', 'unknown key; use "rewrite" in the model'),
        ('server.logLevel = "debug"', "unknown key; run `trio-gateway serve --verbose`"),
        ("server.startPort = 5800", "unknown key; free ports are picked"),
        ("server.engineIdleTimeout = 5", 'unknown key; did you mean "engine_idle_timeout"?'),
        ("server.models = {}", "server.models: unknown key; it belongs at the top level"),
        ('server.tls = { cert = "c", certificate = "c", key = "k" }', 'use "certificate"'),
        (f'server.api_keys = {{ {{ key = "{KEY}", token = 1 }} }}', 'use "key"'),
        ('model.cmd = "x"', '"m".cmd: unknown key; use "binary" and "args" in a variant'),
        ("model.ttl = 300", '"m".ttl: unknown key; use "engine_idle_timeout"'),
        ('model.groups = { "a" }', '"m".groups: unknown key; use "pool" in the model'),
        ('model.proxy = "http://x"', '"m".proxy: unknown key; use "connect"'),
        ('model.checkEndpoint = "/"', 'unknown key; use "health_path" with presets.engines.openai'),
        ("model.macros = {}", "unknown key; use variables and functions of Lua"),
        ('model.useModelName = "n"', 'unknown key; use "served_name" with presets.engines.openai'),
        ("model.unlisted = true", '"m".unlisted: unknown key; use "hidden" in the model'),
        ("model.concurrencyLimit = 4", 'unknown key; use "parallel" in a variant'),
        ("model.context = 4096", '"m".context: unknown key; it belongs in a variant'),
        ("model.queue_limit = 4", '"m".queue_limit: unknown key; it belongs in server'),
        ('variant.aliases = { "a" }', ".variants[1].aliases: unknown key; it belongs in the model"),
        ('variant.cmd = "x"', '.variants[1].cmd: unknown key; use "binary" and "args"'),
        ('variant.model = "m.gguf"', 'unknown key; use args = { "--model", "…" } in a variant'),
        ("variant.ctx_size = 1", 'unknown key; use "context" in a variant, and "--ctx-size"'),
        ("pools = { a = { swap = true } }", 'pools.a.swap: unknown key; use "engines"'),
        ('pools = { a = { members = { "m" } } }', "unknown key; name the pool in each model"),
    ],
)
def test_a_key_from_elsewhere_is_answered_with_ours(tmp_path: Path, line: str, said: str) -> None:
    assert said in only(tmp_path, line)


@pytest.mark.parametrize(
    ("names", "table"),
    [
        (familiar_words._SERVER_KEYS, "server"),
        (familiar_words._MODEL_KEYS, "model"),
        (familiar_words._VARIANT_KEYS, "variant"),
    ],
)
def test_the_keys_that_are_told_where_they_belong_exist_there(
    tmp_path: Path, names: tuple[str, ...], table: str
) -> None:
    for name in names:
        said = mistakes(tmp_path, f"{table}.{name} = function() end")
        assert not any("unknown key" in line for line in said)


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [("models", "model", '"model"; rename it to "models"'),
     ("models", "Models", '"Models"; rename it to "models"'),
     ("server", "Server", '"Server"; rename it to "server"')],
)  # fmt: skip
def test_a_table_of_another_name_is_found(
    tmp_path: Path, before: str, after: str, found: str
) -> None:
    tables = {"server": "server = {}", "models": "models = {}"}
    tables[before] = f"{after} = {{ {{ name = 'm' }} }}"
    said = mistakes(tmp_path, "\n".join(tables.values()), before="")
    assert any(line.startswith(f"{before}: missing;") and f"found {found}" in line for line in said)


@pytest.mark.parametrize(
    ("line", "note"),
    [
        ("groups = {}", 'the global "groups" has no effect: use "pools"'),
        ("healthCheckTimeout = 5", 'use "engine_startup_timeout" in server'),
        ('listen_v4 = "0.0.0.0:1"', 'the global "listen_v4" has no effect: it belongs in server'),
        ("Pools = {}", 'the global "Pools" has no effect; pools are in the table "pools"'),
    ],
)
def test_a_global_without_effect_is_noted(tmp_path: Path, line: str, note: str) -> None:
    (found,) = smallest(tmp_path, f"\n{line}").notes
    assert note in found


def test_a_global_of_the_user_s_own_is_not_noted(tmp_path: Path) -> None:
    assert smallest(tmp_path, "\ncontexts, common_args = {}, {}").notes == ()


# -- shapes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            'model.variants = { binary = "x", context = 1 }',
            'models[1] "m".variants: expected an array of variants; it needs another pair of '
            "braces: variants = { { binary = … } }",
        ),
        (
            'models = { name = "m", engine = "x" }',
            "models: expected an array of models; it needs another pair of braces: "
            "models = { { name = … } }",
        ),
        (
            'models = { ["qwen"] = { engine = "x" } }',
            'models: expected an array of models; write models = { { name = "qwen", … } }',
        ),
        (
            f'server.api_keys = {{ key = "{KEY}" }}',
            "it needs another pair of braces: api_keys = { { key =",
        ),
        (f'server.api_keys = {{ ["{KEY}"] = true }}', "it needs another pair of braces: api_keys"),
    ],
)
def test_missing_braces_are_told(tmp_path: Path, line: str, said: str) -> None:
    found = only(tmp_path, line)
    assert said in found
    assert KEY not in found


@pytest.mark.parametrize(
    ("written", "preset"),
    [
        ("llamacpp", "llamacpp"), ("llama_cpp", "llamacpp"), ("llama-server", "llamacpp"),
        ("vllm", "openai"), ("OpenAI", "openai"), ("ollama", "remote"),
    ],
)  # fmt: skip
def test_an_engine_by_another_name_is_answered_with_the_preset(
    tmp_path: Path, written: str, preset: str
) -> None:
    assert f"; write presets.engines.{preset}, without quotes" in only(
        tmp_path, f'model.engine = "{written}"'
    )


@pytest.mark.parametrize(
    "key",
    [
        "server.engine_idle_timeout", "server.engine_startup_timeout", "server.queue_timeout",
        "server.health_check_timeout", "server.engine_stop_timeout", "server.shutdown_grace",
        "server.fairness_window", "server.stream_keepalive", "server.header_timeout",
        "server.body_timeout", "model.engine_idle_timeout", "variant.engine_startup_timeout",
        "variant.load_time",
    ],
)  # fmt: skip
def test_every_time_may_have_a_unit(tmp_path: Path, key: str) -> None:
    smallest(tmp_path, f'{key} = "5m"')
    assert 'seconds, or text such as "90s" or "5m", got "5 m."' in only(tmp_path, f'{key} = "5 m."')


@pytest.mark.parametrize("written", ["0", "-1", "0.0", "math.huge"])
def test_without_an_idle_timeout_an_engine_is_never_stopped_for_that(
    tmp_path: Path, written: str
) -> None:
    for table in ("server", "model", "variant"):
        config = smallest(tmp_path, f"{table}.engine_idle_timeout = {written}")
        assert config.models[0].variants[0].timeouts.idle_s == float("inf")
    smallest(tmp_path, 'model.engine_idle_timeout = "365d"')


@pytest.mark.parametrize("key", ["server.queue_timeout", "variant.engine_startup_timeout"])
def test_a_time_without_a_limit_is_told_how_to_write_it(tmp_path: Path, key: str) -> None:
    found = only(tmp_path, f"{key} = math.huge")
    assert found.endswith('got inf; for no limit, write a long time, such as "365d"')


def test_a_time_with_a_unit_is_read_in_seconds(tmp_path: Path) -> None:
    config = smallest(tmp_path, 'server.queue_timeout, model.engine_idle_timeout = "90s", "1h"')
    assert config.server.queue_timeout_s == 90
    assert config.models[0].variants[0].timeouts.idle_s == 3600


def test_arguments_in_one_string_are_told_to_be_written_apart(tmp_path: Path) -> None:
    assert only(tmp_path, 'variant.args = "-m x.gguf -c 4096"') == (
        'models[1] "m".variants[1].args: expected an array of strings, got "-m x.gguf -c 4096"; '
        'write one string for each: args = { "-m", "x.gguf", … }'
    )
    where = 'models[1] "m".variants[1]: '
    for written, apart in (
        ("-c 4096", '"-c", "4096"'),
        ("--ctx_size  4096 ", '"--ctx_size", "4096"'),
        ("-m m.gguf -c 4096", '"-m", "m.gguf", "-c", "4096"'),
        ("-a my model", '"-a", "my model"'),
        ("--no-such-option 1", '"--no-such-option", "1"'),
    ):
        config = smallest(tmp_path, f'variant.args = {{ "{written}", "-p", "a b" }}')
        assert config.notes == (f'{where}"{written}" is one argument; write {apart}',)
    script = '"-lc", "exec llama-server -c 4096", "--no such option at all"'
    assert smallest(tmp_path, f"variant.args = {{ {script} }}").notes == ()


def test_a_prefix_of_paths_that_is_no_path_is_told(tmp_path: Path) -> None:
    (note,) = smallest(tmp_path, 'variant.args = { "--api-prefix", "llm" }').notes
    assert note.endswith('"llm" is no path, so nothing gets there; write "/llm"')
    assert smallest(tmp_path, 'variant.env = { LLAMA_ARG_API_PREFIX = "/llm" }').notes == ()


def test_a_context_above_what_the_variables_or_one_slot_give_is_told(tmp_path: Path) -> None:
    (note,) = smallest(tmp_path, 'variant.env = { LLAMA_ARG_CTX_SIZE = "1024" }').notes
    assert "context is 4096, but -c 1024 gives a request 1024 tokens" in note
    args = '"-c", "8192", "-np", "2", "-kvu", "--kv-unified-per-slot", "2048"'
    (note,) = smallest(tmp_path, f"variant.args = {{ {args} }}").notes
    assert "--kv-unified-per-slot 2048 gives a request no more; using 2048" in note


# -- names, pools, contexts -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('model.aliases = { "m" }', 'models[1] "m".aliases: "m" is the model\'s own name; remove'),
        ('model.aliases = { "a", "a" }', 'models[1] "m".aliases: "a" is listed twice; remove one'),
        (
            'models[2] = merge_tables(model, { name = "m" })',
            'models[2] "m": "m" is already a name of models[1] "m"; rename one of the two',
        ),
        (
            'models[2] = merge_tables(model, { name = "n", aliases = { "m" } })',
            'models[2] "n".aliases: "m" is already a name of models[1] "m"; rename one of the two',
        ),
        ('variant.name = "v" model.variants = { variant, variant }', "give each a name of its own"),
        (f'server.api_keys = {{ "{KEY}", "{KEY}" }}', "this key is listed twice; remove one"),
        ('server.listen_unix = { "a", "a" }', "a socket is listed twice; remove one"),
        ('server.listen_v4 = { "127.0.0.1:1", "127.0.0.1:1" }', "127.0.0.1:1 is listed twice;"),
    ],
)
def test_a_duplicate_is_told_with_what_to_change(tmp_path: Path, line: str, said: str) -> None:
    assert said in only(tmp_path, line)


def test_two_variants_of_one_context_get_a_note(tmp_path: Path) -> None:
    (note,) = smallest(tmp_path, "model.variants = { variant, variant }").notes
    assert note == (
        'models[1] "m".variants[2]: has the same context as "4096", 4096, so that it is never '
        "started; remove one of the two, or change its context"
    )


@pytest.mark.parametrize(
    ("pool", "cure"), [("gpu", "pools = { gpu = {} }"), ("my gpu", 'pools = { ["my gpu"] = {} }')]
)
def test_a_missing_pool_is_told_with_the_line_that_adds_it(
    tmp_path: Path, pool: str, cure: str
) -> None:
    assert only(tmp_path, f'model.pool = "{pool}"') == (
        f'models[1] "m".pool: no pool "{pool}"; '
        f"known: primary, secondary, remote, ray; or add `{cure}`"
    )
    smallest(tmp_path, f'\nmodel.pool = "{pool}" {cure}')


@pytest.mark.parametrize(
    ("args", "given", "real", "raised"),
    [
        ('"-c", "2048"', "-c 2048", 2048, 4096),
        ('"--ctx-size=2048", "-np", "1"', "-c 2048", 2048, 4096),
        ('"-c", "4096", "--parallel", "2"', "-c 4096, split between 2 slots,", 2048, 8192),
    ],
)
def test_a_context_above_the_engine_s_own_gets_a_note_with_both_numbers(
    tmp_path: Path, args: str, given: str, real: int, raised: int
) -> None:
    (note,) = smallest(tmp_path, f"variant.args = {{ {args} }}").notes
    assert note == (
        f'models[1] "m".variants[1]: context is 4096, but {given} gives a request {real} tokens; '
        f"using {real}. Raise -c to {raised}, or lower context"
    )


@pytest.mark.parametrize(
    "args",
    [
        "", '"-c", "4096"', '"-c", "0"', '"-c", "4000"', '"-c", "many"', '"-c", "8192", "-np", "2"',
        '"-c", "4096", "-np", "2", "--kv-unified"',
    ],
)  # fmt: skip
def test_a_context_that_the_engine_has_gets_no_note(tmp_path: Path, args: str) -> None:
    assert smallest(tmp_path, f"variant.args = {{ {args} }}").notes == ()


def test_the_arguments_of_another_engine_are_not_taken_for_llama_server_s(tmp_path: Path) -> None:
    config = smallest(
        tmp_path,
        'model.engine = presets.engines.openai variant.args = { "-c", "1", "${PORT}" }',
    )
    assert config.notes == ()


SWA_FULL = 'models[1] "m".variants[1]: no KV carry-over with {}: '


@pytest.mark.parametrize(
    ("line", "inherited", "how"),
    [
        ('variant.args = { "--swa-full" }', None, "--swa-full"),
        ('variant.args = { "--swa_full" }', None, "--swa-full"),
        ('variant.env = { LLAMA_ARG_SWA_FULL = "true" }', None, "LLAMA_ARG_SWA_FULL"),
        ("model.engine = presets.engines.llamacpp_secondary", "1", "LLAMA_ARG_SWA_FULL"),
        ('variant.env = { LLAMA_ARG_SWA_FULL = "0" }', "1", None),
        ('model.kv_carryover = false variant.args = { "--swa-full" }', None, None),
        ('server.kv_carryover = false variant.args = { "--swa-full" }', None, None),
    ],
)
def test_a_full_cache_of_a_sliding_window_gets_a_note_where_caches_are_carried_over(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    inherited: str | None,
    how: str | None,
) -> None:
    if inherited is not None:
        monkeypatch.setenv("LLAMA_ARG_SWA_FULL", inherited)
    notes = smallest(tmp_path, line).notes
    if how is None:
        assert notes == ()
    else:
        (note,) = notes
        assert note.startswith(SWA_FULL.format(how))


# -- other machines -------------------------------------------------------------------------


def test_a_listener_without_keys_is_told_the_two_lines_each_on_its_own(tmp_path: Path) -> None:
    assert only(tmp_path, 'server.listen_v4 = "0.0.0.0:7777"').splitlines() == [
        "server: other machines can reach 0.0.0.0:7777, but there are no api_keys. "
        "Add one of these two lines to server:",
        '    api_keys = { "KEY" },            -- `trio-gateway key` makes one',
        "    allow_unauthenticated = true,    -- anyone who reaches it may use it",
    ]


def test_keys_that_other_machines_send_without_tls_get_a_note(tmp_path: Path) -> None:
    keys = f'server.api_keys = {{ "{KEY}" }} '
    (note,) = smallest(tmp_path, f'{keys} server.listen_v4 = "0.0.0.0:7777"').notes
    assert note == (
        "server.api_keys: keys sent to 0.0.0.0:7777 can be read on the network; set server.tls, or "
        "put a proxy with TLS in front"
    )
    tls = 'server.tls = { certificate = "c.pem", key = "k.pem" }'
    assert smallest(tmp_path, f'{keys} {tls} server.listen_v4 = "0.0.0.0:7777"').notes == ()
    assert smallest(tmp_path, keys).notes == ()


def test_a_short_key_is_called_by_its_place(tmp_path: Path) -> None:
    changes = f'server.api_keys = {{ "{KEY}", {{ name = "laptop", key = "sk-1" }} }}'
    (note,) = smallest(tmp_path, changes).notes
    assert note.startswith("server.api_keys[2]: a key of fewer than 16 characters can be guessed")


# -- Lua ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            'server = {\n  listen_v4 = "none"\n  queue_limit = 5,\n}',
            "gateway.lua:3: '}' expected (to close '{' at line 1) near 'queue_limit' "
            "(a missing comma?): queue_limit = 5,",
        ),
        ("server = {}\nmodels = {", "near <eof> (a missing } or end?)"),
        ("server = {}\nmodels = { {}", "near <eof> (a missing }?): models = { {}"),
        ("if true then\nserver = {}", "near <eof> (a missing end?)"),
        ('server = { listen_v4 = "x }\nmodels = {}', "(a missing quote?): server = { listen_v4"),
        ("server = {\n  listen_v4: 1,\n}", "(Lua writes name = value): listen_v4: 1,"),
        ('args = [ "-m" ]', "(arrays are written in braces: { … }): args = ["),
        ("// server", "(comments begin with --): // server"),
        ("server = {}\n# models", "(comments begin with --): # models"),
        ("server = { a = 1,, b = 2 }", "(an extra comma?): server = { a = 1,, b = 2 }"),
        ("server = { a = “x” }", "(Lua's quotes are \" and '): server = {"),
    ],
)
def test_a_syntax_error_is_told_with_its_line_and_a_guess(
    tmp_path: Path, source: str, said: str
) -> None:
    assert said in program_error(tmp_path, source)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x = preset.engines", "(global 'preset'); did you mean \"presets\"?"),
        ("x = concat_array({}, {})", "(global 'concat_array'); did you mean \"concat_arrays\"?"),
        ("server { }", "(global 'server'); write server = { … }"),
        ("x = mine.own", "(global 'mine')"),
    ],
)
def test_an_undefined_name_is_told_with_the_one_that_is_meant(
    tmp_path: Path, source: str, said: str
) -> None:
    assert program_error(tmp_path, source).endswith(said)


@pytest.mark.parametrize(
    "source",
    [
        f'server = {{ api_keys = {{ "{KEY}" }} queue_limit = 5 }}',
        f"server = {{ api_keys = {{\n  '{KEY}'\n  '{KEY}' }} }}",
        f'models = {{ {{ api_key = "{KEY} }} }}',
    ],
)
def test_a_syntax_error_shows_no_api_key(tmp_path: Path, source: str) -> None:
    found = program_error(tmp_path, source)
    assert "a missing " in found
    assert "…" in found
    assert KEY not in found


def test_a_long_line_is_quoted_in_part_only() -> None:
    said = with_hint("f:1: '}' expected near 'x'", "  x" + " = 1" * 50)
    assert said.startswith("f:1: '}' expected near 'x' (a missing comma?): x = 1 = 1")
    assert said.endswith("…")
    assert len(said) < 140


def test_an_error_in_an_included_file_quotes_that_file(tmp_path: Path) -> None:
    (tmp_path / "part.lua").write_text("return {\n  a = 1\n  b = 2 }")
    found = program_error(tmp_path, SMALLEST + "include('part.lua')")
    assert found.startswith("part.lua:3: ")
    assert found.endswith("(a missing comma?): b = 2 }")
