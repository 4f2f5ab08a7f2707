"""What some tests need besides the gateway: client packages, node, a browser.

Where one is missing, its tests are skipped with the reason. Under CI they fail instead: a CI that
silently stopped trying the clients would prove nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import platformdirs
import pytest

from trio_gateway.config.missing import otel

NODE_TESTS = Path(__file__).with_name("node")
NPM_LIMIT_S = 100.0
# As at the import: while tests run, neither the user's folders nor their settings are in reach.
KEPT = platformdirs.user_cache_path("trio-gateway-tests")
USER = dict(os.environ)


def missing(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason, allow_module_level=True)


def client_package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing(f"{name} is not installed: pip install '.[clients]' ({error})")


def client_package_there(name: str) -> None:
    """As `client_package`, for what runs in a process of its own."""
    if importlib.util.find_spec(name) is None:
        missing(f"{name} is not installed: pip install '.[clients]'")


def traces_there() -> None:
    """What the gateway sends traces with."""
    if (lack := otel()) is not None:
        missing(lack)


def node_packages() -> Path:
    """The folder with tests/node's `node_modules`: installed once for each lock file, and kept."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        missing("node and npm are not on the PATH: node's client, the browser, axe-core need them")
    sources = [NODE_TESTS / "package.json", NODE_TESTS / "package-lock.json"]
    return _kept("node", b"".join(s.read_bytes() for s in sources), _install_with(npm))


def axe_core() -> str:
    """The script that finds what keeps people out of a page, to be run in the page."""
    return (node_packages() / "node_modules" / "axe-core" / "axe.min.js").read_text()


def browser() -> tuple[Path, dict[str, str]]:
    """A Chromium and the environment that it needs."""
    if own := os.environ.get("TRIO_GATEWAY_TEST_BROWSER"):
        return Path(own), {}
    if platform.system() == "Linux" and platform.machine() == "x86_64":
        folder = _packaged_browser()
        return folder / "chromium", {"LD_LIBRARY_PATH": str(folder / "lib")}
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        if found := shutil.which(name):
            return Path(found), {}
    missing("no Chromium: name one in TRIO_GATEWAY_TEST_BROWSER")


def _packaged_browser() -> Path:
    packed = node_packages() / "node_modules" / "@sparticuz" / "chromium"
    key = (packed / "package.json").read_bytes()

    def unpack_into(folder: Path) -> None:
        script = NODE_TESTS / "unpack_browser.mjs"
        unpack = ["node", str(script), str(packed / "bin"), str(folder)]
        subprocess.run(unpack, env=USER, check=True, timeout=NPM_LIMIT_S)
        # The libraries of its own that a machine without a desktop lacks (nss, expat), and its GL.
        for name in ("al2023.tar", "swiftshader.tar"):
            with tarfile.open(folder / name) as tar:
                tar.extractall(folder, filter="data")
            (folder / name).unlink()

    return _kept("chromium", key, unpack_into)


def _install_with(npm: str) -> Callable[[Path], None]:
    def install(folder: Path) -> None:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(NODE_TESTS / name, folder)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        try:
            subprocess.run(
                command,
                cwd=folder,
                env=USER,
                check=True,
                timeout=NPM_LIMIT_S,
                capture_output=True,
                text=True,
            )
        except subprocess.CalledProcessError as error:
            missing(f"npm ci in tests/node failed:\n{error.stderr[-2000:]}")

    return install


def _kept(name: str, key: bytes, build: Callable[[Path], None]) -> Path:
    """A folder of the user's cache, built when it is not there. It appears whole or not at all."""
    folder = KEPT / f"{name}-{sha256(key).hexdigest()[:16]}"
    if folder.exists():
        return folder
    KEPT.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(dir=KEPT))
    try:
        build(new)
        new.rename(folder)
    except OSError:
        if not folder.exists():  # otherwise another run was first
            raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return folder
