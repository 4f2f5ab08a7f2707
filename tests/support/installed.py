"""Whether an installed trio-gateway is whole: `nox -s build` runs this with a fresh Python.

Run in an empty folder, as a program: the package must be the installed one, not this repository.
It starts the gateway with the embedded model on a free port, asks one chat, and stops it.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from importlib import metadata, resources
from pathlib import Path

import httpx
import psutil

PACKAGE = "trio_gateway"
FILES = ("py.typed", "config/embedded.lua", "config/lua/prelude.lua")
COMMAND = str(Path(sys.executable).with_name("trio-gateway"))
READY = re.compile(r"Base URL for clients: (\S+)")
READY_S = 60.0
CHAT_S = 120.0  # a load and a short answer on a busy machine
END_S = 20.0


def main() -> None:
    began = time.monotonic()
    _check_files()
    _check_without_a_configuration()
    config = Path("gateway.lua")
    embedded = resources.files(PACKAGE).joinpath("config/embedded.lua").read_text()
    config.write_text(embedded.replace('"127.0.0.1:7777"', '"127.0.0.1:0"'))
    command = [COMMAND, "serve", "-c", str(config)]
    with subprocess.Popen(command, stderr=subprocess.STDOUT, stdout=subprocess.PIPE) as gateway:
        deadline = threading.Timer(READY_S + CHAT_S + END_S, gateway.kill)
        deadline.start()
        try:
            base_url = _base_url(gateway)
            answer = _chat(base_url)
            children = psutil.Process(gateway.pid).children(recursive=True)
            gateway.send_signal(signal.SIGTERM)
            rest, _ = gateway.communicate(timeout=END_S)
        finally:
            deadline.cancel()
            gateway.kill()
    print(rest.decode(), end="")
    if gateway.returncode != 0:
        sys.exit(f"the gateway ended with code {gateway.returncode}")
    _, left = psutil.wait_procs(children, timeout=2)
    if left:
        sys.exit(f"still running: {left}")
    if not children:
        sys.exit("no engine was seen")
    print(f"the installed gateway answered {answer!r}, ended with code 0 and left nothing")
    print(f"{1 + len(children)} processes, {time.monotonic() - began:.1f} s")


def _check_files() -> None:
    home = Path(str(resources.files(PACKAGE)))
    if not home.is_relative_to(sys.prefix):
        sys.exit(f"{home} is not the installed package")
    missing = [name for name in FILES if not home.joinpath(name).is_file()]
    packed = [str(file) for file in metadata.files("trio-gateway") or ()]
    if not any(name.endswith("licenses/LICENSE") for name in packed):
        missing.append("LICENSE")
    if missing:
        sys.exit(f"not in the package: {', '.join(missing)}")


def _check_without_a_configuration() -> None:
    """In an empty folder the embedded configuration is used."""
    said = subprocess.run([COMMAND, "check"], check=True, capture_output=True, text=True).stdout
    if "smollm2-135m" not in said:
        sys.exit(f"trio-gateway check does not know the embedded model:\n{said}")


def _base_url(gateway: subprocess.Popen[bytes]) -> str:
    assert gateway.stdout is not None
    for line in gateway.stdout:
        print(line.decode(), end="")
        if match := READY.search(line.decode()):
            return match[1]
    sys.exit("the gateway ended before it was ready")


def _chat(base_url: str) -> str:
    body = {
        "model": "smollm2-135m",
        "messages": [{"role": "user", "content": "Name the capital city of France."}],
        "max_tokens": 16,
        "temperature": 0,
    }
    with httpx.Client(timeout=CHAT_S, trust_env=False) as client:
        response = client.post(f"{base_url}/chat/completions", json=body)
    if response.status_code != 200:
        sys.exit(f"the chat got {response.status_code}: {response.text}")
    text: str = response.json()["choices"][0]["message"]["content"]
    if not text:
        sys.exit("the answer is empty")
    return text


if __name__ == "__main__":
    main()
