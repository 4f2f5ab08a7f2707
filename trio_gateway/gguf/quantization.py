"""How a model's weights are quantized: as its file says; otherwise as its name does. Pure."""

from __future__ import annotations

import re

from trio_gateway.gguf.header import GgufHeader

IN_NAMES = re.compile(
    r"(?<![A-Za-z0-9])(I?Q[1-8](?:_[0-9KSMLX]+)*|TQ[12]_0|BF16|F16|F32|MXFP4)(?![A-Za-z0-9])",
    re.IGNORECASE,
)
# general.file_type, from llama.cpp's `llama_ftype`.
_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M",
    30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4",
}  # fmt: skip


def quantization(header: GgufHeader | None, name: str) -> str:
    """`Q4_K_M`; empty if neither says it. `name`: of the file."""
    kind = header.general.get("file_type") if header is not None else None
    if isinstance(kind, int) and kind in _FILE_TYPES:
        return _FILE_TYPES[kind]
    found = IN_NAMES.findall(name)
    return found[-1].upper() if found else ""
