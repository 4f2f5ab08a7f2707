"""Another name in a request, and every other byte as it came."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_gateway.engine.clients.model_name import with_model


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model":"a"}', b'{"model":"new"}'),
        (b'\n{ "model" :\t"a" , "n": 1.50}\n', b'\n{ "model" :\t"new" , "n": 1.50}\n'),
        (b'{"x":{"model":"a"},"model":"a"}', b'{"x":{"model":"a"},"model":"new"}'),
        (b'{"x":["model", "{\\"model\\":"],"mod\\u0065l":"a"}',
         b'{"x":["model", "{\\"model\\":"],"mod\\u0065l":"new"}'),
        (b'{"model":null,"seed":12345678901234567890123}',
         b'{"model":"new","seed":12345678901234567890123}'),
        (b'{"model":"a","t":"\\ud83d\\ude00 \xc3\xbc"}',
         b'{"model":"new","t":"\\ud83d\\ude00 \xc3\xbc"}'),
    ],
)  # fmt: skip
def test_only_the_value_is_replaced(body: bytes, expected: bytes) -> None:
    assert with_model(body, "new") == expected


@pytest.mark.parametrize("body", [b'{"model":"new", "x":1}', b"[1]", b"x", b""])
def test_a_body_that_needs_no_change_is_the_same_object(body: bytes) -> None:
    assert with_model(body, "new") is body


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","model":"b"}',
        b'{"model":"new","model":"b"}',
        b'{"model":"b","model":"new"}',
        b'{"model":"aa","x":1,"mod\\u0065l":"b"}',
        b'{"model":"\\"model\\":\\"b","model":"x","y":"\\"model\\":"}',
        b'{"model":"a","model":"a"}',
    ],
)
def test_a_model_that_is_there_twice_is_there_once_afterwards(body: bytes) -> None:
    pairs = json.loads(with_model(body, "new"), object_pairs_hook=list)
    assert [value for key, value in pairs if key == "model"] == ["new"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b' {"x": 1.50}', b' {"model":"new","x": 1.50}'),
        (b"{}", b'{"model":"new"}'),
        (b"{ }\n", b'{"model":"new" }\n'),
        (b'{"x":{"model":"a"}}', b'{"model":"new","x":{"model":"a"}}'),
        (b'{"x":1,"x":2}', b'{"x":2,"model":"new"}'),
    ],
)
def test_a_request_that_names_no_model_gets_one(body: bytes, expected: bytes) -> None:
    assert with_model(body, "new") == expected


def test_a_name_is_encoded() -> None:
    assert json.loads(with_model(b'{"model":"a"}', 'a"\\\n'))["model"] == 'a"\\\n'


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), _VALUES), _VALUES, st.integers(0, 4), st.booleans())
def test_any_object_keeps_all_but_its_model(
    fields: dict[str, object], old: object, indent: int, ascii_only: bool
) -> None:
    request = {**fields, "model": old}
    body = json.dumps(request, indent=indent or None, ensure_ascii=ascii_only).encode(
        "utf-8", "surrogatepass"
    )
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return  # lone surrogates: such a request was refused before
    assert json.loads(with_model(body, "new")) == {**request, "model": "new"}
