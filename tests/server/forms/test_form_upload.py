"""A form from its client to its engine: what is kept and passed on, and the model's new name."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.fakes import whole_of
from tests.support.forms import BLOB, TYPE, form, part
from trio_gateway.server.api.errors import ApiError
from trio_gateway.server.budget import Budget
from trio_gateway.server.forms.form_upload import KEEP_BYTES, FormUpload
from trio_gateway.server.forms.spool import Spool, SpoolFull
from trio_gateway.server.http.types import FIRST_KEY
from trio_gateway.server.http.upload import Upload

MODEL = part("model", b"whisper-1")
SMALL = form(MODEL, part("file", BLOB[:1000], '; filename="a"'))
FILE_FIRST = form(part("file", BLOB, '; filename="a"'), MODEL)
FILE_LAST = form(MODEL, part("file", BLOB, '; filename="a"'))
EVERY_FORM = pytest.mark.parametrize("data", [SMALL, FILE_FIRST, FILE_LAST])


@pytest.fixture(autouse=True)
def _closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a test keeps is closed with it."""
    made: list[Spool] = []
    begin = Spool.__init__

    def note(self: Spool, *given: Any) -> None:
        begin(self, *given)
        made.append(self)

    monkeypatch.setattr(Spool, "__init__", note)
    yield
    for kept in made:
        kept.close()


class Client:
    """Sends a body in pieces; counts what was taken."""

    def __init__(self, data: bytes, *, announced: bool = True, size: int = 50_000) -> None:
        self.pieces = [data[i : i + size] for i in range(0, len(data), size)]
        self.taken = 0
        self.stalls_after: int | None = None
        scope = {FIRST_KEY: {b"content-length": b"%d" % len(data)} if announced else {}}
        self.upload = Upload(scope, self.receive, Budget().hold(), None, 30)
        self.form = FormUpload(self.upload, [TYPE])

    async def receive(self) -> dict[str, object]:
        await trio.lowlevel.checkpoint()
        if self.taken == self.stalls_after:
            await trio.sleep_forever()
        self.taken += 1
        if self.taken > len(self.pieces):
            return {"type": "http.request", "body": b"", "more_body": False}
        return {"type": "http.request", "body": self.pieces[self.taken - 1], "more_body": True}


def renamed(data: bytes) -> bytes:
    return data.replace(b"whisper-1", "modèle".encode())


@EVERY_FORM
@pytest.mark.parametrize("announced", [True, False])
async def test_it_goes_through_as_it_came(data: bytes, announced: bool) -> None:
    client = Client(data, announced=announced)
    assert await client.form.read_model() == "whisper-1"
    source = client.form.source()
    assert source.length in (len(data), None)
    assert source.length is not None or not announced
    assert await whole_of(source) == data
    assert source.is_complete


@EVERY_FORM
async def test_the_model_s_name_can_be_another_one(data: bytes) -> None:
    client = Client(data)
    await client.form.read_model()
    source = client.form.source("modèle")
    assert source.length == len(renamed(data))
    assert await whole_of(source) == renamed(data)


@pytest.mark.parametrize("data", [SMALL, FILE_FIRST])
async def test_what_is_kept_whole_can_be_sent_again(data: bytes) -> None:
    client = Client(data)
    await client.form.read_model()
    source = client.form.source()
    assert source.length == len(data)
    assert not source.is_begun
    await source.receive()
    assert not source.is_complete or data is SMALL
    await whole_of(source)
    source.rewind()
    assert await whole_of(source) == data
    assert await whole_of(client.form.source("modèle")) == renamed(data)


async def test_what_went_through_cannot() -> None:
    client = Client(FILE_LAST)
    await client.form.read_model()
    source = client.form.source()
    while client.taken * 50_000 < KEEP_BYTES * 2:
        assert source.can_repeat or client.taken * 50_000 > KEEP_BYTES
        await source.receive()
    assert not source.can_repeat
    assert not client.form.source().can_repeat


async def test_no_more_is_read_than_is_kept_before_the_engine_is_there() -> None:
    client = Client(FILE_LAST)
    await client.form.read_model()
    assert KEEP_BYTES <= client.upload.taken <= KEEP_BYTES + 50_000


async def test_while_it_waits_the_rest_is_read_and_kept() -> None:
    client = Client(FILE_LAST)
    await client.form.read_model()
    async with client.form.reading_on():
        with trio.fail_after(10):
            while not client.upload.complete:
                await trio.testing.wait_all_tasks_blocked()
    source = client.form.source()
    assert await whole_of(source) == FILE_LAST
    assert source.can_repeat


async def test_a_wait_that_ends_early_loses_nothing() -> None:
    for stop in (22, 25, 60, 95):
        client = Client(FILE_LAST)
        await client.form.read_model()
        async with client.form.reading_on():
            while client.taken < stop:
                await trio.lowlevel.checkpoint()
        assert await whole_of(client.form.source()) == FILE_LAST


async def test_a_form_that_breaks_while_it_waits_ends_the_wait(
    autojump_clock: trio.testing.MockClock,
) -> None:
    client = Client(form(MODEL, part("x", BLOB), MODEL))
    await client.form.read_model()
    with pytest.raises(ApiError, match="two fields"):
        async with client.form.reading_on():
            await trio.sleep_forever()


async def test_what_the_wait_raises_comes_out_as_it_is() -> None:
    client = Client(FILE_LAST)
    await client.form.read_model()
    with pytest.raises(LookupError):
        async with client.form.reading_on():
            raise LookupError


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (form(MODEL, part("x", BLOB), MODEL), "duplicate_model"),
        (FILE_LAST[:-5], "invalid_form"),
    ],
)
async def test_what_is_wrong_with_the_rest_ends_its_sending(data: bytes, code: str) -> None:
    client = Client(data)
    assert await client.form.read_model() == "whisper-1"
    with pytest.raises(ApiError) as raised:
        await whole_of(client.form.source())
    assert raised.value.code == code


async def test_a_form_without_model_is_refused_after_all_of_it() -> None:
    client = Client(form(part("file", BLOB)))
    with pytest.raises(ApiError) as raised:
        await client.form.read_model()
    assert raised.value.code == "missing_model"


async def test_a_full_disk_says_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Spool, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Spool, "_write", full)
    client = Client(FILE_FIRST)
    with pytest.raises(ApiError, match=r"No space left.*`model` before the file") as raised:
        await client.form.read_model()
    assert (raised.value.status, raised.value.code) == (507, "upload_not_kept")


# -- the spool --------------------------------------------------------------------------------


async def filled(pieces: Iterable[bytes]) -> Spool:
    kept = Spool(Budget().hold())
    for piece in pieces:
        await kept.append(piece)
    return kept


async def read_back(kept: Spool, size: int) -> bytes:
    data = b""
    while piece := await kept.read(len(data), size):
        assert len(piece) <= size
        data += piece
    return data


@pytest.mark.parametrize("size", [1, 1000, 1_000_000])
async def test_a_spool_gives_back_what_it_got(size: int) -> None:
    data = BLOB[: min(size * 3000, len(BLOB))]
    kept = await filled(data[i : i + size] for i in range(0, len(data), size))
    assert kept.size == len(data)
    assert await read_back(kept, max(size, 777)) == data


async def test_a_spool_s_file_has_no_name_and_is_private(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    kept = await filled([BLOB])
    assert kept._file is not None
    assert os.listdir(tmp_path) == []
    assert os.fstat(kept._file.fileno()).st_mode & 0o777 == 0o600
    kept.close()
    with pytest.raises(ValueError, match="closed"):
        await kept.read(0, 1)


async def test_a_spool_that_is_cancelled_stays_whole() -> None:
    kept = Spool(Budget().hold())
    for i in range(0, len(BLOB), 300_000):
        with trio.CancelScope() as scope:
            scope.cancel(reason="a client that waits no more")
            await kept.append(BLOB[i : i + 300_000])
    assert await read_back(kept, 500_000) == BLOB


async def test_a_spool_that_is_full_says_so() -> None:
    kept = Spool(Budget().hold())
    kept._write = lambda data: (_ for _ in ()).throw(OSError(28, "full"))  # type: ignore[method-assign]
    with pytest.raises(SpoolFull, match="full"):
        await kept.append(BLOB)
