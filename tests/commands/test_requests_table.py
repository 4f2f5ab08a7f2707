"""The table of requests in terminals of several widths."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from trio_gateway.commands.tables import requests_table

ID = "d767813fb7706c03"


@pytest.mark.parametrize("width", [80, 100, 140])
def test_an_id_is_whole_beside_a_long_result(width: int) -> None:
    refused = {
        "arrived_s": 0.0, "id": ID, "asked": "a-model", "client": "anna", "took_s": 0.001,
        "outcome": "refused", "error": "a_code_that_is_longer_than_any_of_the_others_ever_is",
    }  # fmt: skip
    out = Console(file=io.StringIO(), width=width)
    out.print(requests_table([refused], width))
    assert isinstance(out.file, io.StringIO)
    assert ID in out.file.getvalue()
