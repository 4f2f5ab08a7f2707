"""Another value for one member of an object, and every other byte as it came."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_gateway.rawjson import (
    NameTwice,
    check_names,
    decode_or_none,
    members,
    members_or_none,
    replace_member,
    spans,
)


def with_model(body: bytes, name: str) -> bytes:
    return replace_member(body, "model", msgspec.json.encode(name))


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


@given(
    st.dictionaries(st.text(), _VALUES),
    _VALUES,
    st.integers(0, 4),
    st.sampled_from([(",", ":"), (", ", ": "), (" ,", " :")]),
    st.booleans(),
)
def test_any_object_keeps_every_byte_but_those_of_its_model(
    fields: dict[str, object],
    old: object,
    indent: int,
    separators: tuple[str, str],
    ascii_only: bool,
) -> None:
    request = {**fields, "model": old}
    text = json.dumps(
        request, indent=indent or None, separators=separators, ensure_ascii=ascii_only
    )
    body = text.encode("utf-8", "surrogatepass")
    try:
        found = members(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return  # lone surrogates: such a request was refused before
    begin, end = spans(body, found)["model"]
    changed = with_model(body, "new")
    assert changed == body[:begin] + b'"new"' + body[end:]
    assert json.loads(changed) == {**request, "model": "new"}


# -- looking ----------------------------------------------------------------------------------


def spans_of(data: bytes) -> dict[str, bytes]:
    found = members_or_none(data)
    assert found is not None
    return {name: data[b:e] for name, (b, e) in spans(data, found).items()}


@pytest.mark.parametrize(
    ("data", "values"),
    [
        (b"{}", {}),
        (b' {"a":1}\n', {"a": b"1"}),
        (b'{"a" : [1, {"b": 2}] ,\n"b":"}"}', {"a": b'[1, {"b": 2}]', "b": b'"}"'}),
        (b'{"\\u0061":1,"\xc3\xa9":12,"q\\"":3}', {"a": b"1", "\u00e9": b"12", 'q"': b"3"}),
    ],
)
def test_the_place_of_each_value_is_found(data: bytes, values: dict[str, bytes]) -> None:
    assert spans_of(data) == values


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":1}',
        b'{"a":1,"a":12}',
        b'{"a":12,"a":1}',
        b'{"a":1,"\\u0061":2}',
        b'{"a": {"z": 1, "b": 2}, "a": {"z": 1, "b": 2}, "b": 3}',
    ],
)
def test_a_name_that_appears_twice_is_found(data: bytes) -> None:
    found = members_or_none(data)
    assert found is not None
    with pytest.raises(NameTwice, match='"a" appears twice'):
        spans(data, found)
    with pytest.raises(NameTwice, match='"a" appears twice'):
        check_names(data, found)


@pytest.mark.parametrize("data", [b' {"a":1,"b":[2]} ', b'{"a": 1, "b": [2]}', b'{"a" :1 ,"b":2}'])
def test_however_an_object_is_written_its_names_may_be_right(data: bytes) -> None:
    found = members_or_none(data)
    assert found is not None
    check_names(data, found)


def test_what_is_not_json_or_of_another_type_is_none() -> None:
    assert decode_or_none(b"{") is None
    assert decode_or_none(b"\xff") is None
    assert decode_or_none(b"[" * 100_000) is None
    assert decode_or_none(b'"1"', int) is None
    assert decode_or_none(b"1", int) == 1
    assert members_or_none(b"[1]") is None
