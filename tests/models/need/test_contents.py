"""What a request is made of."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

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
