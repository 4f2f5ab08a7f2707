"""From files on a disk to an answer: `init`, `check`, `serve --watch`, a chat, and a new file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.harness import chat_body, running_gateway
from tests.support.split_model import split_model
from trio_gateway.config.lua.presets import preset

COMMAND = (sys.executable, "-m", "trio_gateway")


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """With no llama-server but the embedded one."""
    environ = {**os.environ, "PATH": "/bin", "HOME": str(folder)}
    command = [*COMMAND, *words]
    return subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, timeout=60, check=False
    )


def test_what_lies_in_a_folder_is_served(tmp_path: Path) -> None:
    smollm2 = Path(preset("models", "smollm2"))
    models = tmp_path / 'my "models" é'
    models.mkdir()
    assert len(split_model(smollm2, models / "In Parts-Q4_1", 100)) == 3
    shutil.copy(smollm2, models / "broken.gguf")
    os.truncate(models / "broken.gguf", 90_000_000)

    wrote = run(tmp_path, "init", str(models), "--yes")
    assert wrote.returncode == 0, wrote.stderr
    assert "broken.gguf" in wrote.stderr
    checked = run(tmp_path, "check")
    assert checked.returncode == 0, checked.stderr

    config = (tmp_path / "gateway.lua").read_text().replace("127.0.0.1:7777", "127.0.0.1:0")
    (tmp_path / "later").mkdir()
    config += 'models = concat_arrays(models, discover { "later" })\n'
    command = (*COMMAND, "serve", "--watch", "-c", str(tmp_path / "gateway.lua"))
    with running_gateway(tmp_path, config, command=command) as gateway, gateway.client() as client:

        def says_something(model: str) -> None:
            body = chat_body(model, max_tokens=4)
            answer = client.post("/v1/chat/completions", json=body, timeout=60)
            assert answer.status_code == 200, answer.text
            assert answer.json()["usage"]["completion_tokens"] > 0

        says_something("in-parts")
        os.link(smollm2, tmp_path / "later" / "New One.gguf")
        gateway.wait_for_line(r"\+ model new-one")
        says_something("new-one")
