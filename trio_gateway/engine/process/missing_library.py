"""Shared libraries that a program needs and this system lacks: which one, and what brings it. Pure.

A slim container image or a minimal server has no libgomp, which llama.cpp needs.
"""

from __future__ import annotations

import re

# glibc's loader and Python's ImportError; musl's; macOS's.
_MISSING = re.compile(
    r"(?P<glibc>[^\s:'\"]+\.so[\w.]*): cannot open shared object file"
    r"|Error loading shared library (?P<musl>[^\s:]+): No such file"
    r"|Library not loaded: (?P<macos>\S+)"
)
_TOO_OLD = re.compile(r"version [`'\"](?P<wanted>(?:GLIBC|GLIBCXX|CXXABI)_[\w.]+)['\"`] not found")

# By the beginning of a library's name: the packages of Debian and Ubuntu, Fedora, Alpine, Arch.
_PACKAGES = {
    "libgomp.so": ("libgomp1", "libgomp", "libgomp", "gcc-libs"),
    "libstdc++.so": ("libstdc++6", "libstdc++", "libstdc++", "gcc-libs"),
    "libgcc_s.so": ("libgcc-s1", "libgcc", "libgcc", "gcc-libs"),
    "libatomic.so": ("libatomic1", "libatomic", "libatomic", "gcc-libs"),
    "libcurl.so": ("libcurl4", "libcurl", "libcurl", "curl"),
    "libssl.so": ("libssl3", "openssl-libs", "libssl3", "openssl"),
    "libcrypto.so": ("libssl3", "openssl-libs", "libcrypto3", "openssl"),
    "libvulkan.so": ("libvulkan1", "vulkan-loader", "vulkan-loader", "vulkan-icd-loader"),
    "libopenblas": ("libopenblas0", "openblas", "openblas", "openblas"),
    "libOpenCL.so": ("ocl-icd-libopencl1", "ocl-icd", "opencl-icd-loader", "ocl-icd"),
    "libnuma.so": ("libnuma1", "numactl-libs", "numactl", "numactl"),
    "libze_loader.so": ("libze1", "oneapi-level-zero", "level-zero", "level-zero-loader"),
    "libz.so": ("zlib1g", "zlib", "zlib", "zlib"),
}
_CUDA = ("libcudart", "libcublas", "libcufft", "libcurand", "libcusparse", "libnvrtc", "libnccl")
_ROCM = ("libamdhip64", "libhip", "librocblas", "librocm", "libhsa")
_OWN = ("libllama", "libggml", "libmtmd")


def missing_library(text: str) -> str | None:
    """What is missing, by what a program or an ImportError says, as a sentence with what to do;
    None: it speaks of nothing missing."""
    if match := _MISSING.search(text):
        name = next(filter(None, match.groups())).rpartition("/")[2]
        return f"{name} is missing; {_cure(name)}"
    if match := _TOO_OLD.search(text):
        kind = "C" if match["wanted"].startswith("GLIBC_") else "C++"
        return (
            f"the system's {kind} library is too old for it ({match['wanted']} is wanted); use a "
            "newer system, or a build for this one"
        )
    return None


def _cure(library: str) -> str:
    if library.startswith("libcuda."):
        return (
            "it is part of NVIDIA's driver; in a container, start that with its GPUs (--gpus all)"
        )
    if library.startswith(_CUDA):
        return "it is part of CUDA's runtime: install it, or put its folder in LD_LIBRARY_PATH"
    if library.startswith(_ROCM):
        return "it is part of ROCm: install it, or put its folder in LD_LIBRARY_PATH"
    if library.startswith(_OWN):
        return (
            "it is part of llama.cpp: keep it next to the program, or put its folder in "
            "LD_LIBRARY_PATH of the variant's `env`"
        )
    for start, packages in _PACKAGES.items():
        if library.startswith(start):
            debian, fedora, alpine, arch = packages
            return (
                f"install {debian} (Debian, Ubuntu), {fedora} (Fedora), {alpine} (Alpine) or "
                f"{arch} (Arch)"
            )
    return f"install the package that has it (Debian: apt-file search {library})"
