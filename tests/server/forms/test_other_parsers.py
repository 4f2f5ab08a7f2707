"""What the gateway takes for a form's `model`, every other parser takes for it as well; whatever
they would read in two ways is refused."""

from __future__ import annotations

import io
from collections.abc import Callable

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.test import EnvironBuilder

from tests.support.form_parsers import PARSERS
from tests.support.forms import TYPE, form, part
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.forms.form_type import boundary_of, type_with
from trio_gateway.server.forms.multipart import FormReader

OTHER = part("model", b"other")
MODEL = part("model", b"m")
FILE = part("file", b"RIFF\r\n-\r\n--boun", '; filename="a b.wav"', "Content-Type: audio/wav\r\n")


def ours(types: list[str], body: bytes) -> tuple[str, bytes] | None:
    """The Content-Type for the engine and the model; None: refused, with 400."""
    try:
        boundary = boundary_of(types)
        reader = FormReader(boundary)
        reader.feed(body)
        reader.finish()
    except ApiError as error:
        assert error.status == 400  # noqa: PT017
        return None
    assert reader.model is not None
    assert body[reader.model.start : reader.model.end] == reader.model.name.encode()
    return type_with(boundary).decode(), reader.model.name.encode()


def agree(types: list[str], body: bytes) -> bool:
    """Whether it is taken; then all others have to read the same."""
    read = ours(types, body)
    if read is None:
        return False
    content_type, model = read
    for name, parser in PARSERS.items():
        assert parser(content_type, body) in ([model], _refused_by(name, body)), name
    return True


def _refused_by(name: str, body: bytes) -> list[bytes] | None:
    """cpp-httplib takes nothing before the first boundary; to refuse is no other reading."""
    return None if name == "cpp-httplib" and body.startswith(b"\r\n") else [b"no other reading"]


# -- the Content-Type --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type",
    [
        TYPE,
        "multipart/form-data;boundary=bound",
        "Multipart/Form-Data ; BOUNDARY=bound ",
        'multipart/form-data; boundary="bound"',  # .NET
        "multipart/form-data; charset=utf-8; boundary=bound",
        "multipart/form-data; boundary=bound; charset=UTF-8",
    ],
)
def test_one_boundary_is_read_and_written_anew(content_type: str) -> None:
    assert ours([content_type], form(MODEL, FILE)) == (TYPE, b"m")
    assert agree([content_type], form(MODEL, FILE))


@pytest.mark.parametrize(
    "boundary",
    [
        "----WebKitFormBoundaryPzQ1aTAYpmqjFYN7", "-----------------------------30432", "a" * 70,
        "4ebf00fbcf09", "----=_Part_1_12.34", "========123==", "0x+_.-",
    ],
)  # fmt: skip
def test_boundaries_of_real_clients_are_taken(boundary: str) -> None:
    body = form(MODEL, FILE).replace(b"--bound", b"--" + boundary.encode())
    assert agree([f'multipart/form-data; boundary="{boundary}"'], body)


@pytest.mark.parametrize(
    "types",
    [
        [],
        [TYPE, TYPE],
        [TYPE, "multipart/form-data; boundary=b"],
        [TYPE, "application/json"],
        [""],
        ["multipart/form-data"],
        ["multipart/mixed; boundary=bound"],
        ["application/x-www-form-urlencoded; boundary=bound"],
        *(
            [f"multipart/form-data; {more}"]
            for more in (
                "boundary=a; boundary=bound", "boundary=bound; boundary=bound",
                "boundary=bound; BOUNDARY=a", "xboundary=a; boundary=bound",
                "boundary=bound; xboundary=a", "x=boundary=a; boundary=bound",
                'x="; boundary=a"; boundary=bound', "boundary*=utf-8''bound", "boundary*0=bound",
                "boundary*0=bo; boundary*1=und", "boundary=bound; boundary*=utf-8''a",
                "boundary =bound", "boundary= bound", "boundary=bo und", "boundary=bound;",
                "boundary=bound, multipart/form-data; boundary=a", "boundary=bound,a",
                "boundary=", 'boundary=""', 'boundary="bound', 'boundary=bound"',
                "boundary=b\"ound",
                'boundary="bo\\und"', 'boundary="bo;und"', 'boundary=" bound"', "boundary='bo und'",
                'boundary="xboundary=bound"', "boundary=%62ound", "boundary=b\xf6und",
                "boundary=bound\x00", "boundary=" + "x" * 71, "boundary=(bound)", ";boundary=bound",
                "charset=utf-8; charset=a; boundary=bound", "charset=utf-8", "boundary:bound",
                "boundary=bound\tboundary=a", "boundary=bound foo",
            )
        ),
    ],
)  # fmt: skip
def test_any_other_content_type_is_refused(types: list[str]) -> None:
    for boundary in (b"bound", b"a", b"b", b"'bo", b"xboundary=bound", b"x", b"%62ound"):
        assert ours(types, form(MODEL, FILE).replace(b"--bound", b"--" + boundary)) is None


# -- the body ----------------------------------------------------------------------------------


def headed(disposition: str, value: bytes = b"other", more: str = "") -> bytes:
    head = f"--bound\r\nContent-Disposition: {disposition}\r\n{more}\r\n"
    return head.encode() + value + b"\r\n"


GOOD = {
    "without quotes": form(headed("form-data; name=model", b"m")),
    "text with a charset": form(
        headed('form-data; name="model"', b"m", "Content-Type: text/plain; charset=utf-8\r\n")
    ),
    "Apache's client": form(
        headed(
            'form-data; name="model"',
            b"m",
            "Content-Type: text/plain; charset=ISO-8859-1\r\nContent-Transfer-Encoding: 8bit\r\n",
        )
    ),
    "a path as a file's name": form(
        MODEL, headed(r'form-data; name="f"; filename="C:\fakepath\a.wav"')
    ),
    "its length is given": form(headed('form-data; name="model"', b"m", "Content-Length: 1\r\n")),
    "a file's name with a semicolon": form(MODEL, headed('form-data; name="f"; filename="a;b"')),
    "a file's name in two ways": form(
        MODEL, headed("form-data; name=f; filename=\"a\"; filename*=utf-8''%c3%a4")
    ),
    "other fields": form(
        part("timestamp_granularities[]", b"word"), MODEL, part("image[]", b"", '; filename=""')
    ),
    "a line end before it": b"\r\n" + form(MODEL, FILE),  # werkzeug's client
    "line ends after it": form(MODEL) + b"\r\n",
    "no line end after it": form(MODEL).removesuffix(b"\r\n"),
}


@pytest.mark.parametrize("body", GOOD.values(), ids=GOOD.keys())
def test_what_clients_send_is_read_alike(body: bytes) -> None:
    assert agree([TYPE], body)


BAD = {
    "text before": b"hello\r\n" + form(MODEL),
    "a form before": OTHER.replace(b"--bound", b"--bound ") + form(MODEL),
    "two line ends before": b"\r\n\r\n" + form(MODEL),
    "a bare LF before": b"\n" + form(MODEL),
    "a part after": form(MODEL) + form(OTHER),
    "text after": form(MODEL) + b"x",
    "a bare LF after": form(MODEL).removesuffix(b"\r\n") + b"\n",
    "half a line end after": form(MODEL).removesuffix(b"\n"),
    "a bare CR after": form(MODEL) + b"\r\r",
    "much after": form(MODEL) + b"\r\n" * 10,
    "bare LF": form(MODEL).replace(b"\r\n", b"\n"),
    "bare CR": form(MODEL).replace(b"\r\n", b"\r"),
    **{
        f"a boundary between {before!r} and {after!r}": form(
            MODEL, part("x", b"a" + before + b"--bound" + after + OTHER[9:-2])
        )
        for before in (b"", b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r\n", b"\x0b", b"\x00")
        for after in (b"\n", b"\r", b" \r\n", b"\t\r\n", b"x\r\n", b"--\n", b"-\r\n", b"")
    },
    "a boundary in a head": form(MODEL, headed('form-data; name="x"', b"", "X: --bound\r\n")),
    "a boundary right after a head": form(MODEL,
        b'--bound\r\nContent-Disposition: form-data; name="x"'
                                          b"\r\n\r\n" + OTHER),
    **{
        f"two names: {disposition}": form(MODEL, headed(disposition))
        for disposition in (
            'form-data; name="x"; name="model"', "form-data; name=model; name=x",
            "form-data; name*=utf-8''model", "form-data; name=\"x\"; name*=utf-8''model",
            'form-data; name*0="mo"; name*1="del"', 'form-data; name="mo\\del"',
            'form-data; name="%6dodel"', 'form-data; name="Model"', 'form-data; name=" model"',
            'form-data; name="model[]"', 'form-data; name="model "', 'form-data; name="MODEL"',
            'form-data; filename="model"; name="x"',
            'form-data; filename="a; name=model"; name="x"',
            'form-data; name="x"; filename="a; name=model"',
            r'form-data; name="x"; filename="a\"; name=\"model"',
            r'form-data; name="x"; filename="a; name=\"model\"; b"',
            'form-data; name="x"; filename="a"; filename="b"',
            'form-data; name="x" ; y="; name=model"',
            'form-data; name="x"; filename*=utf-8\'\'a";name=model', "form-data; name='model'x",
            'Form-Data; NAME="model"', "form-data; name=\"'model'\"",
            'form-data name="model"', 'form-data, name="model"', 'attachment; name="model"',
            'form-data; name="model', "form-data; name=mod el", 'form-data; name="x";',
            'name="model"',
            'form-data; name="x"\t;\tname="model"', 'form-data; name="x"; Name="model"',
            'form-data; name = "model"', 'form-data; name="x"y; name="model"', "form-data",
            'form-data; name="_charset_"', 'form-data; name="x"; foo=bar', 'form-data; name="x\ty"',
            'form-data; name="x"; filename*0="a"', "form-data; name=\"x\"; filename*=a'b'c",
        )
    },
    "two dispositions": form(
        headed('form-data; name="x"', b"m",
        'Content-Disposition: form-data; name="model"\r\n'), MODEL
    ),
    "a folded disposition": form(MODEL, headed('form-data;\r\n name="model"')),
    "a head with a bare LF": form(MODEL, headed('form-data; name="x"\nA: b')),
    "a head with a NUL": form(MODEL, headed('form-data; name="x"\x00; name="model"')),
    "a space before a colon": form(MODEL, headed('form-data; name="x"', b"m", "A : b\r\n")),
    "an encoded part": form(
        headed('form-data; name="model"', b"bQ==", "Content-Transfer-Encoding: base64\r\n")
    ),
    "a quoted-printable part": form(
        headed('form-data; name="model"', b"=6d", "content-transfer-encoding: Quoted-Printable\r\n")
    ),
    "another charset": form(
        headed(
            'form-data; name="model"',
            b"m\xc3\xa4",
            "Content-Type: text/plain; charset=ISO-8859-1\r\n",
        )
    ),
    "UTF-7": form(headed('form-data; name="model"', b"m",
    "Content-Type: text/plain; charset=utf-7\r\n")),
    "JSON": form(headed('form-data; name="model"', b'"m"', "Content-Type: application/json\r\n")),
    "nested parts": form(
        MODEL, headed('form-data; name="x"', b"--in\r\n\r\n",
        "Content-Type: multipart/mixed; boundary=in\r\n")
    ),
    "a message": form(MODEL, headed('form-data; name="x"', b"",
    "Content-Type: message/rfc822\r\n")),
    "another length": form(headed('form-data; name="model"', b"m", "Content-Length: 0\r\n")),
    "two models": form(MODEL, OTHER),
    "the same model twice": form(MODEL, MODEL),
    "a file as a model": form(headed('form-data; name="model"; filename=""', b"m")),
    "cut off": form(MODEL)[:-4],
}  # fmt: skip


ODD_NAME = 'a "b" ü; c.wav'


def form_of_httpx() -> tuple[str, bytes]:
    request = httpx.Request(
        "POST", "http://x", data={"model": "m", "x[]": ["y"]}, files={"file": (ODD_NAME, b"x\r\n")}
    )
    return request.headers["content-type"], request.read()


def form_of_werkzeug() -> tuple[str, bytes]:
    data = {"model": "m", "file": (io.BytesIO(b"x\r\n"), "a.wav")}
    environ = EnvironBuilder(method="POST", data=data).get_environ()
    return environ["CONTENT_TYPE"], environ["wsgi.input"].read()


@pytest.mark.parametrize("made", [form_of_httpx, form_of_werkzeug])
def test_forms_of_client_libraries_are_read_alike(made: Callable[[], tuple[str, bytes]]) -> None:
    content_type, body = made()
    assert agree([content_type], body)


@pytest.mark.parametrize("body", BAD.values(), ids=BAD.keys())
def test_what_can_be_read_in_two_ways_is_refused(body: bytes) -> None:
    assert not agree([TYPE], body)


_BITS = st.sampled_from(
    [
        b"\r\n", b"\n", b"\r", b"--bound", b"--", b"bound", b"--bound\r\n", b"--bound--\r\n", MODEL,
        OTHER, FILE, b"Content-Disposition: form-data; ", b'name="model"', b'name="x"', b"; ",
        b"filename=", b'"', b"\\", b" ", b"\t", b":", b"name*=utf-8''model", b"m", b"\r\n\r\n",
        b"=",
        b"Content-Type: text/plain\r\n", b"Content-Transfer-Encoding: base64\r\n",
    ]
)  # fmt: skip


@settings(max_examples=300)
@given(st.data())
def test_whatever_is_taken_is_read_alike(data: st.DataObject) -> None:
    body = bytearray(form(*data.draw(st.permutations([MODEL, FILE, part("x", b"y")]))))
    for bit in data.draw(st.lists(_BITS, max_size=4)):
        at = data.draw(st.integers(0, len(body)))
        body[at : at + data.draw(st.integers(0, 3))] = bit
    agree([TYPE], bytes(body))
