"""A form in pieces, cut anywhere: the model is found, and nothing of it can be read in two ways."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.forms import form, part
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.forms.multipart import (
    MODEL_MAX_BYTES,
    PARTS_MAX,
    FormReader,
)
from trio_gateway.server.forms.part_head import HEADER_MAX_BYTES

FILE = part("file", b"\x00\r\n--boun\r\n" * 50, '; filename="model"', "Content-Type: audio/wav\r\n")
MODEL = part("model", b"whisper-1")


def read(data: bytes, *cuts: int) -> FormReader:
    reader = FormReader(b"bound")
    for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        reader.feed(data[begin:end])
    reader.finish()
    return reader


def error_of(data: bytes) -> ApiError:
    """The same wherever the bytes are cut."""
    errors = []
    for size in (len(data) or 1, 1, 7, 64):
        with pytest.raises(ApiError) as raised:
            read(data, *range(size, len(data), size))
        errors.append(raised.value)
    assert {e.status for e in errors} == {400}
    assert len({e.code for e in errors}) == 1
    return errors[0]


@pytest.mark.parametrize("data", [form(MODEL, FILE), form(FILE, MODEL), form(MODEL)])
def test_the_model_is_found_wherever_it_stands(data: bytes) -> None:
    field = read(data).model
    assert field is not None
    assert field.name == "whisper-1"
    assert data[field.start : field.end] == b"whisper-1"


@given(st.data())
def test_any_cut_of_the_bytes_gives_the_same(data: st.DataObject) -> None:
    value = data.draw(st.sampled_from(["m", "a/b-c", "modèle", "x" * 300, "-bound", "-"]))
    blob = data.draw(st.binary(max_size=200).filter(lambda b: b"--bound" not in b))
    pieces = [part("file", blob, '; filename="a"'), part("model", value.encode()), part("x", b"")]
    whole = form(*data.draw(st.permutations(pieces)))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(whole) - 1), max_size=30)))
    field = read(whole, *cuts).model
    assert field is not None
    assert field.name == value
    assert whole[field.start : field.end] == value.encode()


@given(st.binary(max_size=400))
def test_whatever_comes_is_read_or_refused(data: bytes) -> None:
    for whole in (data, b"--bound\r\n" + data, MODEL + data):
        try:
            read(whole)
        except ApiError as error:
            assert error.status == 400  # noqa: PT017 - most of them are broken, none crashes


def test_the_model_is_known_before_the_file_has_come() -> None:
    reader = FormReader(b"bound")
    reader.feed(MODEL + b"--bound\r\n")
    assert reader.model is not None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}" * 40,
        form(MODEL, FILE)[:-5],
        MODEL + b"--bound\r\nContent-Disposition: form-data\r\n\r\nx\r\n--bound--\r\n",
        MODEL + b"--bound\r\n\r\nno headers\r\n--bound--\r\n",
        form(MODEL, b"--bound\r\nContent-Type : a\r\n\r\nx\r\n"),
    ],
)
def test_what_is_no_form_is_refused(data: bytes) -> None:
    assert error_of(data).code == "invalid_form"


def test_a_form_without_model_is_refused_with_what_to_do() -> None:
    error = error_of(form(FILE))
    assert (error.code, error.param) == ("missing_model", "model")
    assert "/v1/models" in error.message


def test_two_models_are_refused() -> None:
    assert error_of(form(MODEL, FILE, part("model", b"other"))).code == "duplicate_model"


@pytest.mark.parametrize("value", [b"", b"a\r\nb", b"\r\n--boun", b"a\x00", b"\x7f"])
def test_a_model_that_is_no_name_is_refused(value: bytes) -> None:
    assert error_of(form(part("model", value), FILE)).code == "missing_model"


@pytest.mark.parametrize(
    "model",
    [
        part("model", b"x" * (MODEL_MAX_BYTES + 1)),
        part("model", b"\xff"),
        part("model", b"m", '; filename="m.txt"'),
    ],
)
def test_a_model_that_is_no_short_text_is_refused(model: bytes) -> None:
    assert error_of(form(model)).code == "invalid_model"


@pytest.mark.parametrize(
    "more",
    ['; name="other"', "; name*=utf-8''other", '; name*0="other"', "; NAME=other",
     '; filename="a"; name="x"'],
)  # fmt: skip
def test_a_part_with_two_names_is_refused(more: str) -> None:
    assert error_of(form(part("model", b"m", more))).code == "invalid_form"


def test_a_part_with_two_dispositions_is_refused() -> None:
    twice = 'content-disposition: form-data; name="other"\r\n'
    assert error_of(form(part("model", b"m", "", twice))).code == "invalid_form"


def test_a_file_s_name_may_have_quotes_and_semicolons() -> None:
    odd = part("file", b"x", r'; filename="a; \"b\"; c"')
    assert read(form(odd, MODEL)).model is not None


def test_a_field_that_chooses_models_is_refused_whenever_it_comes() -> None:
    def refuse(field: str) -> ApiError:
        return ApiError(403, field)

    for name in ("models", "models[]", "extra_body", "Fallbacks"):
        chooser = part(name, b"x")
        for first, rest in ((MODEL + chooser, FILE), (chooser + MODEL, FILE), (MODEL, chooser)):
            reader = FormReader(b"bound")
            with pytest.raises(ApiError, match=re.escape(name)):  # noqa: PT012 - in either of them
                reader.feed(first + b"--bound\r\n")
                reader.refuse_choosers(refuse)
                reader.feed((rest + b"--bound--\r\n").removeprefix(b"--bound\r\n"))
        assert read(form(MODEL, chooser)).model is not None


@pytest.mark.parametrize(
    "bomb",
    [
        part("model", b"m", "", "".join(f"X-{i}: 1\r\n" for i in range(1000))),
        part("model", b"m", "", "X: " + "y" * HEADER_MAX_BYTES + "\r\n"),
        part("model", b"m", "", "X" * 1_000_000 + ": y\r\n")[:60_000],
        b"".join(part(f"f{i}", b"") for i in range(PARTS_MAX + 1)),
    ],
)
def test_header_bombs_are_refused(bomb: bytes) -> None:
    assert error_of(bomb).code == "invalid_form"


def test_a_large_file_is_not_held_in_memory() -> None:
    reader = FormReader(b"bound")
    head, _, tail = form(FILE, MODEL).partition(b"\x00")
    reader.feed(head)
    held: set[int] = set()
    for _ in range(64):
        reader.feed(random.randbytes(65536))
        held.add(sum(len(v) for v in vars(reader).values() if isinstance(v, bytes | bytearray)))
    reader.feed(tail)
    reader.finish()
    assert max(held) < 1000
