"""What a request is made of."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_gateway.models.need import contents
from trio_gateway.models.need.contents import (
    RequestFields,
    chat_size,
    image_count,
    structure_size,
)

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "text", "type", "file", "image_url", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=20,
)


@given(st.lists(ANYTHING))
def test_structures_are_as_large_together_as_each_alone(values: list[Any]) -> None:
    alone = [msgspec.json.format(msgspec.json.encode(value), indent=4) for value in values]
    assert structure_size(values) == sum(map(len, alone))


@given(ANYTHING)
def test_media_are_counted_alike_with_the_size_and_alone(messages: Any) -> None:
    fields = RequestFields(messages=messages)
    assert chat_size(fields).media == image_count(fields)


@given(st.lists(ANYTHING, min_size=1, max_size=4))
def test_a_large_structure_is_measured_as_if_it_were_written_out(values: list[Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        written = structure_size(values)
        patch.setattr(contents, "_WRITTEN_BYTES", 0)
        assert structure_size(values) == written


def test_what_is_nested_deeply_is_never_written_out() -> None:
    deep: Any = [[] for _ in range(30_000)]
    for _ in range(400):
        deep = [deep]
    tracemalloc.start()
    try:
        assert structure_size([deep]) > 48_000_000
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 2_000_000
