"""`trio-gateway check`, and how `serve` refuses a wrong configuration."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from trio_gateway.commands.root import root
from trio_gateway.config import pool_memory
from trio_gateway.gguf.memory import MemoryEstimate

REPOSITORY = Path(__file__).parents[2]
EARLIER = REPOSITORY / "tests" / "support" / "data" / "earlier_gateway.lua"

WRONG = """
server = { listen = "127.0.0.1:7777" }
models = { { name = "m", engine = "vllm", variants = {} } }
"""


@pytest.fixture(autouse=True)
def _plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)


def check(path: Path) -> Result:
    return CliRunner().invoke(root, ["check", "-c", str(path)])


def config(folder: Path, *models: str) -> Path:
    path = folder / "gateway.lua"
    variant = '{ binary = "sh", args = {}, context = 8192 }'
    start = f"engine = presets.engines.llamacpp, variants = {{ {variant} }}"
    entries = ", ".join(f"{{ {start}, {model} }}" for model in models)
    path.write_text(f"server = {{}}\nmodels = {{ {entries} }}", encoding="utf-8")
    return path


def test_check_prints_the_models_as_a_table_within_80_columns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    monkeypatch.delenv("GGUF", raising=False)
    result = check(REPOSITORY / "config" / "example.lua")
    table = result.stdout.splitlines()
    assert [line.rstrip() for line in table] == [
        "Model         Pool        Variant   Engine at     Idle stop",
        "─────────────────────────────────────────────────────────────",
        "qwen3-30b     primary     16,384    a free port   600 s",
        "  = default               65,536    a free port   600 s",
        "                          131,072   a free port   1800 s",
        "coder-32b     primary     8,192     a free port   1200 s",
        "                          16,384    a free port   1200 s",
        "                          32,768    a free port   1200 s",
        "embeddings    secondary   2,048     a free port   600 s",
    ]
    assert all(len(line) <= 80 for line in table)


def test_check_shows_the_addresses_and_notes_of_an_earlier_file() -> None:
    result = check(EARLIER)
    assert "127.0.0.1:8081" in result.stdout
    assert result.stdout.count("has no effect: tokens") == 1


def test_check_shows_the_port_that_stands_in_the_arguments(tmp_path: Path) -> None:
    path = tmp_path / "gateway.lua"
    path.write_text(
        """
        server, models = {}, { { name = "m", engine = presets.engines.llamacpp, variants = {
          { binary = "x", args = { "--port", "9123" }, context = 1024, name = "tiny" },
        } } }
        """
    )
    result = check(path)
    assert "1,024 tiny" in result.stdout
    assert "127.0.0.1:9123" in result.stdout


@pytest.mark.parametrize(
    "name",
    [
        "unsloth/Qwen3-30B-A3B-Instruct-2507-GGUF:Q4_K_M",
        "n" * 200,
        "[red]not markup[/red]",
        "not:smile:emoji",
    ],
)
def test_check_never_cuts_or_changes_the_name_of_a_model(tmp_path: Path, name: str) -> None:
    result = check(config(tmp_path, f'name = "{name}", aliases = {{ "a:{name}" }}'))
    assert result.exit_code == 0
    assert any(line.startswith(f"{name} ") for line in result.stdout.splitlines())
    assert any(line.startswith(f"  = a:{name} ") for line in result.stdout.splitlines())


def test_check_of_a_wrong_file_prints_every_mistake_and_exits_with_2(tmp_path: Path) -> None:
    path = tmp_path / "gateway.lua"
    path.write_text(WRONG)
    result = check(path)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        f'{path}: server.listen: unknown key; use "listen_v4", such as "127.0.0.1:7777"',
        f'{path}: models[1] "m".engine: expected presets.engines.llamacpp, '
        "presets.engines.llamacpp_secondary, presets.engines.openai, presets.engines.remote or "
        "presets.engines.ray, "
        'got "vllm"; write presets.engines.openai, without quotes',
        f'{path}: models[1] "m".variants: expected at least one variant',
    ]


def test_check_of_a_missing_file_exits_with_2(tmp_path: Path) -> None:
    result = check(tmp_path / "none.lua")
    assert result.exit_code == 2
    assert result.stderr == f"{tmp_path}/none.lua: no such file (given by -c)\n"


def test_check_without_a_file_says_which_one_it_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRIO_GATEWAY_CONFIG", raising=False)
    config(tmp_path, 'name = "m"')
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(root, ["check"])
    assert result.exit_code == 0
    verdict = result.stdout.splitlines()[-1]
    assert verdict == "gateway.lua is valid (found in this folder). It listens on 127.0.0.1:7777."


@pytest.mark.processes
@pytest.mark.parametrize("command", ["check", "serve"])
def test_a_wrong_file_ends_the_command_with_2_and_without_a_traceback(
    tmp_path: Path, command: str
) -> None:
    path = tmp_path / "gateway.lua"
    path.write_text(WRONG)
    done = subprocess.run(
        [sys.executable, "-m", "trio_gateway", command, "-c", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 3
    assert all(line.startswith(f"{path}: ") for line in done.stderr.splitlines())


def test_a_missing_variable_s_file_is_told_with_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIO_GATEWAY_CONFIG", str(tmp_path / "none.lua"))
    result = CliRunner().invoke(root, ["check"])
    assert result.exit_code == 2
    assert result.stderr == f"{tmp_path}/none.lua: no such file (given by $TRIO_GATEWAY_CONFIG)\n"


def test_what_this_machine_does_not_have_is_an_error_with_the_model(tmp_path: Path) -> None:
    file = tmp_path / "gateway.lua"
    file.write_text(
        "server = {}\nmodels = {{ name = 'm', engine = presets.engines.llamacpp, variants = {"
        "{ binary = '/no/such/server', args = {}, context = 1024 },"
        "{ binary = 'sh', args = {'-m', 'none.gguf'}, workdir = '.', context = 2048 } } }}\n"
    )
    result = check(file)
    assert result.exit_code == 2
    assert "2,048" in result.stdout
    assert result.stderr.splitlines() == [
        f'{file}: model "m", variant 1024: binary: /no/such/server does not exist',
        f'{file}: model "m", variant 2048: its model file {tmp_path}/none.gguf does not exist',
        f"{file} is valid, but not all of it can run on this machine (given by -c).",
    ]


def test_the_memory_of_the_variants_is_shown_where_a_pool_has_a_limit(tmp_path: Path) -> None:
    file = tmp_path / "gateway.lua"
    declared = "binary = 'sh', args = {}, context = 1024, memory = '6GiB'"
    source = (
        "server = {}\nmodels = {{ name = 'm', engine = presets.engines.llamacpp, "
        f"variants = {{ {{ {declared} }}, {{ binary = 'sh', args = {{}}, context = 2048 }} }} }}}}"
    )
    file.write_text(source)
    assert "Memory" not in check(file).stdout
    file.write_text(source + "\npools = { primary = { memory = '24GiB' } }")
    result = check(file)
    assert result.exit_code == 0
    heading, _, first, second, note, *_ = result.stdout.splitlines()
    assert heading.split()[-1] == "Memory"
    assert first.rstrip().endswith("6.0 GiB")
    assert second.rstrip().endswith("unknown")
    assert note.startswith('note: models[1] "m".variants[2]: how much memory it needs is unknown')


def test_an_estimated_memory_is_marked_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimate = MemoryEstimate(weights_bytes=5 * 2**30, kv_bytes=2**30, buffer_bytes=2**27)
    monkeypatch.setattr(pool_memory, "estimate_variants", lambda variants: [estimate])
    path = config(tmp_path, 'name = "m"')
    path.write_text(path.read_text() + "\npools = { primary = { memory = '24GiB' } }")
    assert "~6.1 GiB" in check(path).stdout
