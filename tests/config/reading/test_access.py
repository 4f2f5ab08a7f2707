"""The keys of `server` for who may call: read, checked, and no message that quotes a key."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.configurations import mistakes, smallest
from trio_gateway.config.access_schema import (
    AccessConfig,
    ConnectionLimits,
    TlsConfig,
    UnixAddress,
    is_loopback,
)
from trio_gateway.config.key_hash import KeyHash, hash_of, new_key, parse_hash
from trio_gateway.config.priority import Priority

SECRET = "tg-0123456789abcdefghijklmnopqrstuvwxyz"


def test_without_any_of_them_the_defaults_stand(tmp_path: Path) -> None:
    server = smallest(tmp_path).server
    assert server.access == AccessConfig(allowed_origins=("localhost",))
    assert (server.tls, server.listen_unix, server.limits) == (None, (), ConnectionLimits())


def test_a_key_s_models_are_named_with_latest_or_without(tmp_path: Path) -> None:
    server = smallest(
        tmp_path,
        f"""
        model.name, model.aliases = "llama3:latest", {{ "a" }}
        server = {{ api_keys = {{
          {{ key = "{SECRET}1", models = {{ "llama3" }} }},
          {{ key = "{SECRET}2", models = {{ "a:latest" }} }},
        }} }}
        """,
    ).server
    assert [key.models for key in server.access.api_keys] == [frozenset({"llama3:latest"})] * 2


def test_a_key_for_metrics_may_use_no_model(tmp_path: Path) -> None:
    keys = f'api_keys = {{ {{ key = "{SECRET}", metrics = true, models = {{}} }} }}'
    (key,) = smallest(tmp_path, f"server = {{ {keys} }}").server.access.api_keys
    assert (key.metrics, key.models) == (True, frozenset())


def test_every_key_is_read(tmp_path: Path) -> None:
    hashed = str(hash_of("anything"))
    server = smallest(
        tmp_path,
        f"""
        model.aliases = {{ "alias" }}
        server = {{
          api_keys = {{ "{SECRET}", {{
            key = "{hashed}", name = "laptop", models = {{ "alias" }}, priority = "batch",
            max_parallel = 3, admin = true,
          }} }},
          allowed_hosts = {{ "AI.example.org", "box:8080", "[fd00::1]" }},
          allowed_origins = {{ "https://Chat.example.org", "app://*", "*", "localhost" }},
          allow_unauthenticated = false,
          tls = {{ certificate = "c.pem", key = "/k.pem" }},
          listen_unix = {{ "a.sock", {{ path = "/run/b.sock", mode = "0660" }} }},
          max_header_size = "8KiB", header_timeout = 1.5, body_timeout = 2,
          requests_per_connection = 3, connections_per_address = 4, max_connections = 5,
        }}
        """,
    ).server
    plain, laptop = server.access.api_keys
    assert (plain.name, plain.secret, plain.models, plain.admin) == ("key-1", SECRET, None, False)
    assert (plain.priority, plain.max_parallel) == (Priority.INTERACTIVE, None)
    assert (laptop.name, laptop.secret, laptop.models) == ("laptop", hashed, frozenset({"m"}))
    assert (laptop.priority, laptop.max_parallel, laptop.admin) == (Priority.BATCH, 3, True)
    assert server.access.allowed_hosts == ("ai.example.org", "box:8080", "[fd00::1]")
    assert server.access.allowed_origins == (
        "https://chat.example.org",
        "app://*",
        "*",
        "localhost",
    )
    assert server.tls == TlsConfig(certificate=tmp_path / "c.pem", key=Path("/k.pem"))
    assert server.listen_unix == (
        UnixAddress(tmp_path / "a.sock", 0o600),
        UnixAddress(Path("/run/b.sock"), 0o660),
    )
    assert server.limits == ConnectionLimits(
        max_header_bytes=8192,
        header_timeout_s=1.5,
        body_timeout_s=2,
        requests_per_connection=3,
        connections_per_address=4,
        max_connections=5,
    )


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ('api_keys = "{S}"', "server.api_keys: expected an array of keys"),
        ('api_keys = { key = "{S}" }', "server.api_keys: expected an array of keys"),
        ('api_keys = { "{S} " }', "server.api_keys[1]: expected a key of 1 to 256 visible"),
        ("api_keys = { { key = 7 } }", "server.api_keys[1].key: expected a key, as a string"),
        ("api_keys = { { name = 'x' } }", "server.api_keys[1].key: missing; expected the key, or"),
        ('api_keys = { "{S}", "{S}" }', "server.api_keys[2]: this key is listed twice; remove one"),
        (
            'api_keys = { { key = "{S}", name = "a" }, { key = "b", name = "a" } }',
            'server.api_keys[2]: another key has the name "a"; rename one of the two',
        ),
        ('api_keys = { "scrypt:1:2:3" }', "server.api_keys[1]: not a hash that `trio-gateway key`"),
        (
            'api_keys = { { key = "{S}", priority = "high" } }',
            'server.api_keys[1].priority: expected "interactive" or "batch", got "high"',
        ),
        (
            'api_keys = { { key = "{S}", models = {} } }',
            "server.api_keys[1].models: expected at least one model; leave it out",
        ),
        (
            'api_keys = { { key = "{S}", models = {}, admin = true } }',
            "server.api_keys[1].models: expected at least one model; leave it out",
        ),
        (
            'api_keys = { { key = "{S}", models = { 7 }, metrics = true } }',
            "server.api_keys[1].models[1]: expected",
        ),
        (
            'api_keys = { { key = "{S}", name = "a", models = { "n" } } }',
            'server.api_keys "a".models: no model "n"',
        ),
        ('api_keys = { { key = "{S}", modles = {} } }', "server.api_keys[1].modles: unknown key"),
        ('allowed_hosts = { "http://a" }', "server.allowed_hosts[1]: expected a name or address"),
        (
            'allowed_origins = { "https://a/" }',
            "server.allowed_origins[1]: expected an origin such",
        ),
        ('allowed_origins = { "null" }', "server.allowed_origins[1]: expected an origin such"),
        ('allowed_origins = { "https://*" }', "server.allowed_origins[1]: expected an origin such"),
        ('tls = { certificate = "c" }', "server.tls.key: missing; expected the path of a PEM file"),
        ('tls = "c"', "server.tls: expected a table { certificate = …, key = … }"),
        (
            'listen_unix = { path = "a", mode = 660 }',
            'server.listen_unix.mode: expected permissions as text, such as "0600"',
        ),
        ('listen_unix = { "a", "a" }', "server.listen_unix: a socket is listed twice; remove one"),
    ],
)
def test_what_is_wrong_is_said_without_the_key(tmp_path: Path, written: str, message: str) -> None:
    (found,) = mistakes(tmp_path, "server." + written.replace("{S}", SECRET))
    assert found.startswith(message)
    assert SECRET not in found


def test_a_listener_for_other_machines_needs_keys_and_the_mistake_has_both_lines(
    tmp_path: Path,
) -> None:
    listen = 'server.listen_v4 = { "127.0.0.1:1", "0.0.0.0:2" } server.listen_v6 = "[::1]:1" '
    (found,) = mistakes(tmp_path, listen)
    assert found.startswith("server: other machines can reach 0.0.0.0:2, but there are no api_keys")
    for line in ('api_keys = { "KEY" },', "allow_unauthenticated = true,"):
        assert line in found
        smallest(tmp_path, f"{listen} server.{line[:-1]}")


def test_a_unix_socket_is_local_and_may_be_the_only_listener(tmp_path: Path) -> None:
    server = smallest(tmp_path, 'server = { listen_v4 = "none", listen_unix = "/run/g" }').server
    assert (server.listen, server.listen_unix) == ((), (UnixAddress(Path("/run/g")),))


def test_a_weak_key_and_a_line_without_effect_are_worth_a_note(tmp_path: Path) -> None:
    config = smallest(
        tmp_path, 'server.api_keys = { "sk-1234" } server.allow_unauthenticated = true'
    )
    weak, useless = config.notes
    assert weak.startswith("server.api_keys[1]: a key of fewer than 16 characters")
    assert "sk-1234" not in weak
    assert "allow_unauthenticated has no effect" in useless


def test_a_key_s_secret_is_not_in_its_text(tmp_path: Path) -> None:
    config = smallest(tmp_path, f'server.api_keys = {{ "{SECRET}" }}')
    assert SECRET not in repr(config)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True),
        ("::ffff:127.0.0.1", True), ("0.0.0.0", False), ("::", False), ("10.0.0.1", False),
        ("localhost.example.org", False), ("box", False),
    ],
)  # fmt: skip
def test_only_what_cannot_be_another_machine_is_local(host: str, local: bool) -> None:
    assert is_loopback(host) is local


# -- hashes -----------------------------------------------------------------------------------


def test_a_hash_is_of_its_key_only_and_its_text_is_read_back() -> None:
    key = new_key()
    hashed = hash_of(key)
    assert key.startswith("tg-")
    assert len(key) == 3 + 43  # 256 bits in base64
    assert parse_hash(str(hashed)) == hashed
    assert hashed.matches(key)
    assert not hashed.matches(key + "x")
    assert str(hash_of(key)) != str(hashed)  # another salt


GOOD = str(KeyHash(16384, 8, 1, bytes(16), bytes(32)))


@pytest.mark.parametrize(
    "text",
    [
        "plain", "scrypt:", GOOD + ":x", GOOD.replace("16384", "16383"), GOOD.replace("16384", "0"),
        GOOD.replace("16384", "-2"), GOOD.replace(":8:", ":0:"), GOOD.replace("16384", "16777216"),
        GOOD.replace(":8:1:", ":8:999:"), GOOD.replace("AAAA", "????"), "scrypt:2:1:1:AA:AA",
    ],
)  # fmt: skip
def test_what_is_no_hash_or_costs_too_much_is_refused(text: str) -> None:
    parse_hash(GOOD)
    with pytest.raises(ValueError, match=r"\w"):
        parse_hash(text)
