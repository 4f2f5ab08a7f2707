"""What one question may cost the helper process that counts tokens: memory and time. Pure.

Measured with SmolLM2's vocabulary, peaks above what was held before: a file's vocabulary takes
some ten times the bytes of its header; splitting a text takes up to 190 bytes for each of its own;
rendering a chat takes a few times its own size.
"""

from __future__ import annotations

import os

from trio_gateway.gguf.metadata import LONGEST_HEADER

_MIB = 1 << 20
_BASE_BYTES = 128 * _MIB
_FOR_A_FILE = 12  # bytes of memory for one of a header
_FOR_A_TEXT = 256
_FOR_A_CHAT = 32
_RENDER_S = 2.0  # of a processor's time; real ones take some ms
_RENDER_S_PER_BYTE = 1 / _MIB
_RENDERED_PER_BYTE = 16  # tools, spread over lines, can be this much longer
_MOST_BYTES = 4 << 30
_SHARE_OF_MACHINE = 4


def most_bytes() -> int:
    """Of the helper as a whole: 4 GiB, on smaller machines a quarter of their memory."""
    try:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows
        return _MOST_BYTES
    return min(_MOST_BYTES, machine // _SHARE_OF_MACHINE)


def growth_bytes(file_size: int, question_size: int) -> int:
    """What the helper may take on top of what it holds, for a question about a file: to read it,
    whose header is at most so long, to render the chat and to split it into tokens."""
    header = min(file_size, LONGEST_HEADER)
    return _BASE_BYTES + header * _FOR_A_FILE + question_size * _FOR_A_TEXT


def render_bytes(question_size: int) -> int:
    """The part of it that is a template's."""
    return _BASE_BYTES + question_size * _FOR_A_CHAT


def render_s(question_size: int) -> float:
    """Of a processor's time, for all that a template does for one question."""
    return _RENDER_S + question_size * _RENDER_S_PER_BYTE


def rendered_characters(question_size: int) -> int:
    """The longest prompt that a template may make of a chat. To count it takes memory as well."""
    return _MIB + question_size * _RENDERED_PER_BYTE
