"""Programs of engines that cannot be loaded are told before anybody asks for their models."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.configurations import SMALLEST, smallest
from trio_gateway.commands.check import check
from trio_gateway.commands.loading import EXIT_WRONG_CONFIG
from trio_gateway.engine.loadable import cannot_load

pytestmark = pytest.mark.processes

LACKS = "error while loading shared libraries: libgomp.so.1: cannot open shared object file"


def script(path: Path, *lines: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(("#!/bin/sh", *lines, "")))
    path.chmod(0o755)


def lacks(folder: Path, changes: str = "") -> list[str]:
    return [lack.text for lack in cannot_load(smallest(folder, changes))]


def test_a_library_that_a_program_lacks_is_told_by_check(tmp_path: Path) -> None:
    server = tmp_path / "bin" / "llama-server"
    script(server, f'[ "$1" = --version ] && echo "llama-server: {LACKS}" >&2', "exit 127")
    (told,) = lacks(tmp_path)
    assert told.startswith(f'model "m": binary: {server} cannot be loaded: libgomp.so.1 is missing')
    assert "install libgomp1 (Debian, Ubuntu)" in told
    (tmp_path / "gateway.lua").write_text(SMALLEST)
    result = CliRunner().invoke(check, ["-c", str(tmp_path / "gateway.lua")])
    assert result.exit_code == EXIT_WRONG_CONFIG
    assert "libgomp.so.1 is missing" in result.output


def test_a_program_that_can_be_loaded_or_fails_otherwise_is_not_told(tmp_path: Path) -> None:
    server = tmp_path / "bin" / "llama-server"
    for lines in (("echo version: 1",), ("echo no such option: --version", "exit 1"), ("exec x",)):
        script(server, *lines)
        assert lacks(tmp_path) == []


def test_each_program_is_asked_once_with_the_variables_of_its_engine(tmp_path: Path) -> None:
    server, calls = tmp_path / "bin" / "llama-server", tmp_path / "calls"
    script(server, f"echo $LIBS >> {calls}", f'[ "$LIBS" = here ] || echo "x: {LACKS}" >&2',
           '[ "$LIBS" = here ]')  # fmt: skip
    with_libraries = 'variant, { context = 1024, env = { LIBS = "here" } }'
    (told,) = lacks(
        tmp_path, f"model.variants = {{ variant, merge_tables({with_libraries}) }}\n"
        'models[2] = merge_tables(model, { name = "n" }) models[2].variants = { variant }'
    )[:1]  # fmt: skip
    assert 'model "m"' in told
    assert sorted(calls.read_text().split("\n")) == ["", "", "here"]


def test_no_other_script_is_run_as_it_may_not_know_the_option(tmp_path: Path) -> None:
    script(tmp_path / "bin" / "serve.sh", f'echo "{LACKS}"; touch {tmp_path}/was-run; exit 1')
    assert lacks(tmp_path, 'variant.binary = "bin/serve.sh"') == []
    assert not (tmp_path / "was-run").exists()
