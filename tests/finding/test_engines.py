"""llama-server is found where it usually is, and asked what it is before it is believed."""

from __future__ import annotations

from pathlib import Path

import pytest

from trio_gateway.finding import engines
from trio_gateway.finding.engines import find_engine

pytestmark = pytest.mark.processes  # each of these programs

RUNS = """#!/bin/sh
case "$1" in
  --version) echo "version: 6500 (abc)" >&2;;
  --list-devices) printf 'Available devices:\\n  CUDA0: RTX 4090 (24080 MiB, 23700 MiB free)\\n'; \
printf '  CPU: x (1 MiB, 1 MiB free)\\n';;
esac
"""
LACKS_A_LIBRARY = (
    "#!/bin/sh\necho 'error while loading shared libraries: libx.so.1' >&2\nexit 127\n"
)


def program(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "llama-server"
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def no_other_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_FOLDERS", ())
    monkeypatch.setattr(engines, "embedded_binary", lambda: None)


def test_one_that_does_not_run_is_passed_by_with_the_reason(tmp_path: Path) -> None:
    broken = program(tmp_path / "bin", LACKS_A_LIBRARY)
    good = program(tmp_path / "llama.cpp/build/bin", RUNS)
    found = find_engine({"PATH": str(tmp_path / "bin")}, tmp_path)
    assert found.engine is not None
    assert found.engine.binary == str(good)
    assert found.engine.version == "6500"
    assert found.engine.devices == (("CUDA0: RTX 4090", 24080 * 2**20),)
    assert found.engine.uses_gpu
    why = "does not run: error while loading shared libraries: libx.so.1"
    assert found.unfit == (f"{broken} {why}",)


def test_one_that_never_answers_is_passed_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_ANSWER_S", 0.2)
    program(tmp_path, "#!/bin/sh\nexec sleep 60\n")
    found = find_engine({"PATH": str(tmp_path)}, tmp_path / "home")
    assert found.engine is None
    assert "does not answer --version within 0.2 s" in found.unfit[0]


def test_jan_brings_one(tmp_path: Path) -> None:
    build = ".local/share/Jan/data/llamacpp/backends/b6500/linux-cuda/build/bin"
    good = program(tmp_path / build, RUNS)
    found = find_engine({"PATH": ""}, tmp_path)
    assert found.engine is not None
    assert found.engine.binary == str(good)


def test_without_any_the_one_in_the_package_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_engine({"PATH": ""}, tmp_path).engine is None
    monkeypatch.setattr(engines, "embedded_binary", lambda: "/v/bin/trio-gateway-llama-server")
    found = find_engine({"PATH": ""}, tmp_path)
    assert found.engine is not None
    assert found.engine.is_embedded
