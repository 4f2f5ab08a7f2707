"""How others read a multipart form: all values of its field `model`, or None if they refuse it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser

from python_multipart import FormParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from werkzeug.exceptions import HTTPException
from werkzeug.formparser import parse_form_data

Models = list[bytes] | None


def by_python_multipart(content_type: str, body: bytes) -> Models:
    """FastAPI and Starlette, so vLLM, SGLang and others."""
    found: list[bytes] = []
    _, options = parse_options_header(content_type)

    def on_field(field: object) -> None:
        if getattr(field, "field_name", None) == b"model":
            found.append(getattr(field, "value", None) or b"")

    def on_file(file: object) -> None:
        if getattr(file, "field_name", None) == b"model":
            found.append(b"<file>")

    try:
        parser = FormParser(
            "multipart/form-data", on_field, on_file, boundary=options.get(b"boundary")
        )
        with contextlib.closing(parser):
            parser.write(body)
            parser.finalize()
    except FormParserError:
        return None
    return found


def by_werkzeug(content_type: str, body: bytes) -> Models:
    """Flask."""
    environ = {
        "REQUEST_METHOD": "POST", "CONTENT_TYPE": content_type, "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
    }  # fmt: skip
    try:
        _, form, files = parse_form_data(environ, lambda *_, **__: io.BytesIO(), silent=False)
    except (HTTPException, ValueError):
        return None
    values = [value.encode("utf-8", "surrogateescape") for value in form.getlist("model")]
    return values + [b"<file>" for _ in files.getlist("model")]


def by_email(content_type: str, body: bytes) -> Models:
    """The standard library, as scripts use it since `cgi` is gone."""
    head = f"Content-Type: {content_type}\r\n\r\n".encode("latin-1")
    try:
        message = BytesParser(EmailMessage, policy=policy.HTTP).parsebytes(head + body)
        found = []
        for part in message.walk():
            if part.get_param("name", header="content-disposition") == "model":
                payload = part.get_payload(decode=True)
                found.append(payload if isinstance(payload, bytes) else b"<parts>")
        return found
    except (ValueError, LookupError, AttributeError, TypeError):
        return None


def by_cpp_httplib(content_type: str, body: bytes) -> Models:
    """llama-server's: cpp-httplib splits a Content-Disposition at each `;`, and at each `=`, takes
    the first of what comes twice, and reads the boundary from the first `boundary=` on."""
    found = []
    _, _, rest = content_type.partition("boundary=")
    delimiter = b"--" + rest.partition(";")[0].strip().strip('"').encode("latin-1")
    if not body.startswith(delimiter + b"\r\n"):
        return None
    for part in body[len(delimiter) + 2 :].split(b"\r\n" + delimiter):
        if part.startswith(b"--"):
            break
        head, blank, value = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        if not blank:
            return None
        for line in head.split(b"\r\n"):
            key, _, said = line.partition(b":")
            if key.strip().lower() == b"content-disposition":
                words: dict[bytes, bytes] = {}
                for piece in said.split(b";"):
                    name, _, text = piece.partition(b"=")
                    words.setdefault(name.strip().strip(b'"'), text.strip().strip(b'"'))
                if words.get(b"name") == b"model":
                    found.append(value)
    return found


def by_splitting(content_type: str, body: bytes) -> Models:
    """Scripts: split at the boundary wherever it is, and look for `name="…"`."""
    boundary = content_type.rpartition("boundary=")[2].strip().strip('"').encode("latin-1")
    found = []
    for part in body.split(b"--" + boundary):
        head, _, value = part.partition(b"\r\n\r\n")
        name = head.partition(b"name=")[2].lstrip(b'"')
        if name.startswith(b"model") and name[5:6] in (b'"', b";", b"\r", b""):
            found.append(value.removesuffix(b"\r\n"))
    return found


PARSERS: dict[str, Callable[[str, bytes], Models]] = {
    "python-multipart": by_python_multipart,
    "werkzeug": by_werkzeug,
    "email": by_email,
    "cpp-httplib": by_cpp_httplib,
    "splitting": by_splitting,
}
