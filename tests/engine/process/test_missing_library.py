"""Shared libraries that are missing: which one, and what brings it."""

from __future__ import annotations

import pytest

from trio_gateway.engine.process.missing_library import missing_library

GLIBC = "cannot open shared object file: No such file or directory"


@pytest.mark.parametrize(
    ("said", "name", "cure"),
    [
        (
            f"/opt/llama-server: error while loading shared libraries: libgomp.so.1: {GLIBC}",
            "libgomp.so.1",
            "install libgomp1 (Debian, Ubuntu), libgomp (Fedora), libgomp (Alpine)",
        ),
        (f"ImportError: libstdc++.so.6: {GLIBC}", "libstdc++.so.6", "libstdc++6 (Debian"),
        (f"OSError: /usr/lib/libvulkan.so.1: {GLIBC}", "libvulkan.so.1", "libvulkan1"),
        (f"x: error while loading shared libraries: libcudart.so.12: {GLIBC}",
         "libcudart.so.12", "CUDA's runtime"),
        (f"libcuda.so.1: {GLIBC}", "libcuda.so.1", "NVIDIA's driver"),
        (f"libggml-base.so.0: {GLIBC}", "libggml-base.so.0", "part of llama.cpp"),
        (f"libodd.so: {GLIBC}", "libodd.so", "apt-file search libodd.so"),
        (
            "Error loading shared library libgomp.so.1: No such file or directory (needed by "
            "/srv/llama-server)",
            "libgomp.so.1",
            "libgomp (Alpine)",
        ),
        ("dyld[1]: Library not loaded: @rpath/libmtmd.dylib\n  Referenced from: <X> /opt/x",
         "libmtmd.dylib", "part of llama.cpp"),
    ],
)  # fmt: skip
def test_a_missing_library_is_named_with_what_brings_it(said: str, name: str, cure: str) -> None:
    found = missing_library(f"some line\n{said}\n")
    assert found is not None
    assert found.startswith(f"{name} is missing; ")
    assert cure in found


def test_a_library_that_is_too_old_is_told() -> None:
    said = "x: /lib/libc.so.6: version `GLIBC_2.38' not found (required by x)"
    assert "system's C library is too old for it (GLIBC_2.38" in str(missing_library(said))
    said = "x: /lib/libstdc++.so.6: version `GLIBCXX_3.4.32' not found (required by x)"
    assert "system's C++ library is too old" in str(missing_library(said))


@pytest.mark.parametrize("said", ["", "version: 6097", "error: no such file", "libgomp.so.1 ok"])
def test_what_speaks_of_no_library_says_nothing(said: str) -> None:
    assert missing_library(said) is None
