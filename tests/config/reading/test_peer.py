"""Entries of `models` that stand for what other gateways have."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.configurations import load, mistakes, smallest
from trio_gateway.commands.root import root
from trio_gateway.config.difference import changes
from trio_gateway.config.readable_files import readable_secrets
from trio_gateway.config.shown import shown_configuration

KEY = "tg-not-to-be-seen-0123456789"
BOX = f'name = "box2", models = "all", urls = "http://box2:7777", api_key = "{KEY}"'


def adding(entry: str = BOX) -> str:
    return f"models[2] = {{ {entry} }}\n"


def test_all_that_it_may_say(tmp_path: Path) -> None:
    read = smallest(tmp_path, adding(f"{BOX}, parallel = 4, hidden = true, health_interval = 60"))
    (peer,) = read.peers
    assert [model.name for model in read.models] == ["m"]
    assert (peer.name, peer.models, peer.pool) == ("box2", None, "remote")
    assert (peer.parallel, peer.hidden) == (4, True)
    assert (peer.options.urls, peer.options.gateway) == (("http://box2:7777",), True)
    assert peer.options.health_interval_s == 60.0


def test_some_of_its_models_and_no_word_of_who_asks(tmp_path: Path) -> None:
    entry = 'name = "x", models = { "a", "b" }, urls = "http://h", gateway = false'
    (peer,) = smallest(tmp_path, adding(entry)).peers
    assert (peer.models, peer.options.gateway, peer.parallel) == (("a", "b"), False, 64)


def test_a_configuration_may_have_nothing_else(tmp_path: Path) -> None:
    assert load(tmp_path, f"server = {{}}\nmodels = {{ {{ {BOX} }} }}").models == ()


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ('name = "b", models = "some", urls = "http://h"', 'models: expected "all", or an array'),
        ('name = "b", models = {}, urls = "http://h"', 'models: expected at least one name'),
        ('name = "b", models = "all"', "urls: missing"),
        (f'{BOX}, variants = {{}}', "variants: unknown key; that gateway says it"),
        (f'{BOX}, served_name = "x"', "served_name: has no place here"),
        (f'{BOX}, pinned = true', "pinned: unknown key; it is of one model"),
        (f'{BOX}, pool = "none"', 'pool: no pool "none"'),
        (f"{BOX}, engine = presets.engines.llamacpp", "models: only presets.engines.remote has it"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_it_is_said(tmp_path: Path, entry: str, said: str) -> None:
    found = mistakes(tmp_path, adding(entry))
    assert any(said in line for line in found), found
    assert not any(KEY in line for line in found)


def test_two_of_one_name_are_a_mistake(tmp_path: Path) -> None:
    (line,) = mistakes(tmp_path, adding() + adding().replace("[2]", "[3]"))
    assert line == 'models[3] "box2": models[2] "box2" has the same name; rename one of the two'


def test_its_name_is_needed(tmp_path: Path) -> None:
    (line,) = mistakes(tmp_path, adding('models = "all", urls = "http://h"'))
    assert 'name: missing; expected what these gateways are called here, such as "box2"' in line


def test_a_key_may_be_for_a_model_that_nobody_knows_yet(tmp_path: Path) -> None:
    server = 'server.api_keys = { { key = "a-key-long-enough-1", models = { "m", "theirs" } } }\n'
    (key,) = smallest(tmp_path, adding() + server).server.access.api_keys
    assert key.models == frozenset({"m", "theirs"})
    (line,) = mistakes(tmp_path, server)
    assert 'no model "theirs"' in line


def test_its_key_is_shown_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = smallest(tmp_path, adding())
    assert KEY not in repr(read)
    shown = shown_configuration(read)
    assert KEY not in str(shown)
    assert shown["peers"][0]["name"] == "box2"
    (tmp_path / "gateway.lua").chmod(0o644)
    (warning,) = readable_secrets(read)
    assert 'models "box2"' in warning
    monkeypatch.setenv("BOX2_KEY", KEY)
    entry = BOX.replace(f'"{KEY}"', 'env("BOX2_KEY")')
    assert smallest(tmp_path, adding(entry)).secret_variables == {"BOX2_KEY"}


def test_what_a_reload_changes_of_it_is_named(tmp_path: Path) -> None:
    before = smallest(tmp_path, adding())
    after = smallest(tmp_path, adding(f"{BOX}, parallel = 2"))
    assert [str(change) for change in changes(before, after)] == ["~ peer box2: parallel"]


def test_check_shows_where_models_come_from(tmp_path: Path) -> None:
    path = tmp_path / "gateway.lua"
    path.write_text(f"server = {{}}\nmodels = {{ {{ {BOX} }} }}")
    path.chmod(0o600)
    result = CliRunner().invoke(root, ["check", "-c", str(path)])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("box2: all models of http://box2:7777\n")
