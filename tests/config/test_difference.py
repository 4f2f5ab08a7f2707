"""What another configuration has otherwise: a table of edits and what is said of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.configurations import smallest
from trio_gateway.config.difference import changes, is_started_otherwise
from trio_gateway.config.schema import Secret

MORE = 'local more = { name = "n", engine = model.engine, variants = { variant } }\n'

EDITS: dict[str, tuple[str, list[str]]] = {
    "nothing": ("", []),
    "a model more": (f"{MORE}models[2] = more", ["+ model n"]),
    "another name": ('model.name = "n"', ["- model m", "+ model n"]),
    "an alias": ('model.aliases = { "x" }', ["~ model m: aliases"]),
    "a pin": ("model.pinned = true", ["~ model m: pinned"]),
    "an argument": (
        'variant.args = { "-m", "m.gguf", "-fa" }',
        ["~ variant m:4096: args (starts anew)"],
    ),
    "a variable": ('variant.env = { A = "1" }', ["~ variant m:4096: env (starts anew)"]),
    "an idle time": ("variant.engine_idle_timeout = 7", ["~ variant m:4096: engine_idle_timeout"]),
    "an idle time of all": (
        "server.engine_idle_timeout = 7",
        ["~ server: engine_idle_timeout", "~ variant m:4096: engine_idle_timeout"],
    ),
    "no carry-over": ("model.kv_carryover = false", ["~ model m: kv_carryover (starts anew)"]),
    "a context": (
        "variant.context = 8192",
        ["- variant m:4096", "+ variant m:8192"],
    ),
    "a pool": ("pools = { primary = { engines = 2 } }", ["~ pool primary: engines"]),
    "a pool more": ("pools = { other = { engines = 1 } }", ["+ pool other"]),
    "a model in another pool": ('model.pool = "secondary"', ["~ model m: pool"]),
    "a limit": ("server.queue_limit = 3", ["~ server: queue_limit"]),
    "a time": ("server.queue_timeout = 3", ["~ server: queue_timeout"]),
    "a port": (
        'server.listen_v4 = "127.0.0.1:9"',
        ["~ server: listen_v4"],
    ),
    "both": (
        "server.queue_limit = 3; server.kv_carryover = false; server.clear_dumps_on_start = true",
        [
            "~ server: queue_limit",
            "! server: kv_carryover (takes effect at the next start: engines that run save into "
            "the folder that there is)",
            "! server: clear_dumps_on_start (takes effect at the next start: it says what is done "
            "then)",
        ],
    ),
    "what is written of requests": (
        'server.dumps_dir, server.history = "d", { file = "h.sqlite" }',
        ["~ server: dumps_dir, history"],
    ),
    "limits": (
        "server.header_timeout, server.body_timeout = 3, 4",
        ["~ server: header_timeout, body_timeout"],
    ),
    "a choice": ('choices = { c = { "m" } }', ["+ choice c"]),
    "keys": ('server.api_keys = { { name = "me", key = "sk-a-long-secret" } }', ["+ key me"]),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_said_in_words(name: str, tmp_path: Path) -> None:
    edit, said = EDITS[name]
    before, after = smallest(tmp_path), smallest(tmp_path, edit)
    assert [str(change) for change in changes(before, after)] == said
    assert changes(after, smallest(tmp_path, edit)) == ()


def test_what_waits_for_the_next_start_is_said_until_it_is_as_it_was(tmp_path: Path) -> None:
    first, other = smallest(tmp_path), smallest(tmp_path, "server.clear_dumps_on_start = true")
    said = [
        "! server: clear_dumps_on_start (takes effect at the next start: it says what is done then)"
    ]
    assert [str(change) for change in changes(other, other, first)] == said
    assert changes(other, first, first) == ()


def test_what_is_the_hypercorn_command_s_waits_under_that(tmp_path: Path) -> None:
    edit = 'server.listen_v4, server.header_timeout, server.body_timeout = "127.0.0.1:9", 3, 4'
    found = changes(smallest(tmp_path), smallest(tmp_path, edit), moves=False)
    assert [str(change) for change in found] == [
        "~ server: body_timeout",
        "! server: listen_v4, header_timeout (takes effect at the next start: the hypercorn "
        "command has addresses, TLS and limits of its own)",
    ]


def test_a_key_that_is_another_is_named_and_not_shown(tmp_path: Path) -> None:
    given = 'server.api_keys = {{ {{ name = "me", key = "sk-a-long-secret-{}" }} }}'
    one, other = (given.format(n) for n in (1, 2))
    found = changes(smallest(tmp_path, one), smallest(tmp_path, other))
    assert [str(change) for change in found] == ["~ key me: key"]
    assert "a-long" not in repr(found)


def test_an_engines_own_key_decides_how_it_is_started(tmp_path: Path) -> None:
    given = (
        "model.engine = presets.engines.remote; "
        'model.variants = {{ {{ urls = {{ "http://127.0.0.1:9" }}, api_key = "{}", '
        "context = 4096 }} }}"
    )
    (one,), (same,), (other,) = (
        smallest(tmp_path, given.format(key)).models
        for key in ("first-key", "first-key", "other-key")
    )
    assert not is_started_otherwise(one, one.variants[0], same, same.variants[0])
    assert is_started_otherwise(one, one.variants[0], other, other.variants[0])


def test_secrets_are_equal_by_what_they_are() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert hash(Secret("a")) == hash(Secret("a"))
    assert Secret("a") != "a"
