"""The line of an engine's output that an error message leads with."""

from __future__ import annotations

import pytest

from trio_gateway.engine.process.telling_line import telling_line

MISSING = """\
0.00.004.620 I srv          init: loading model
0.00.004.668 I srv    load_model: loading model '/no.gguf'
0.00.004.723 E gguf_init_from_file: failed to open GGUF file '/no.gguf' (No such file or directory)
0.00.004.894 E llama_model_load: error loading model: llama_model_loader: failed to load model
0.00.009.501 E srv          init: exiting due to model loading error
Error: the model could not be served: Failed to init server, please check the input params.
"""
GENERIC = MISSING.splitlines()[-1]
TRACEBACK = """\
INFO starting
Traceback (most recent call last):
  File "server.py", line 1, in <module>
ValueError: max_model_len (4096) is greater than what fits
"""


@pytest.mark.parametrize(
    ("output", "line"),
    [
        (
            MISSING,
            "gguf_init_from_file: failed to open GGUF file '/no.gguf' (No such file or directory)",
        ),
        (
            f"{GENERIC}\n{MISSING}",  # as on a busy machine
            "gguf_init_from_file: failed to open GGUF file '/no.gguf' (No such file or directory)",
        ),
        (
            GENERIC,
            "the model could not be served: Failed to init server, please check the input params",
        ),
        (TRACEBACK, "ValueError: max_model_len (4096) is greater than what fits"),
        ("loading\nCUDA error: out of memory\nabort", "CUDA error: out of memory"),
        ("loading\nCUDA Error: no device.\n", "CUDA Error: no device"),
        ("loading\nready", None),
        ("", None),
    ],
)
def test_the_cause_comes_before_its_consequences(output: str, line: str | None) -> None:
    assert telling_line(output.splitlines()) == line
