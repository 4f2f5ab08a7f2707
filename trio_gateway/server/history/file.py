"""HistoryFile: requests that are over, in a SQLite file. Nothing here waits for trio.

A row has the request as the pages show it, in JSON, and as columns what is asked for. What others
write there at the same time (a second gateway, a person with `sqlite3`) is no harm.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from trio_gateway.server.history.selection import Place, StatusCodes, Wanted, Whether, client_of
from trio_gateway.server.history.stored import HistoryUnavailable, StoredRequest
from trio_gateway.server.history.usage import By, Sums
from trio_gateway.server.records.request_record import Outcome, RequestRecord, Stage
from trio_gateway.server.records.request_row import row_of

log = logging.getLogger(__name__)

APPLICATION_ID = 0x7472696F  # "trio": no file of another program is taken for one of ours
# From each version of the file to the next; the number of those that were done is in its head.
UPGRADES: tuple[str, ...] = (
    """
    CREATE TABLE requests (
        id TEXT PRIMARY KEY, arrived_s REAL NOT NULL,
        model TEXT, asked TEXT, client TEXT NOT NULL, key TEXT,
        outcome TEXT NOT NULL, status INTEGER NOT NULL,
        prompt_tokens INTEGER, cached_tokens INTEGER, generated_tokens INTEGER,
        waited_s REAL NOT NULL, load_s REAL NOT NULL, took_s REAL NOT NULL,
        row TEXT NOT NULL
    );
    CREATE INDEX by_arrival ON requests (arrived_s, id);
    """,
)
BUSY_S = 1.0  # for somebody else who writes
CHECKED_MAX_BYTES = 64 * 2**20  # of a larger file only what is read shows whether it is damaged
PRUNE_EVERY_S = 600.0
_PRUNED_AT_ONCE = 2000
_FREED_AT_ONCE = 2000  # pages
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_BESIDE = ("-wal", "-shm", "-journal")

_INSERT = f"INSERT OR REPLACE INTO requests VALUES ({', '.join('?' * 15)})"
_SUMS = """
    COUNT(*), SUM(outcome = 'ok'), SUM(outcome NOT IN ('ok', 'cancelled', 'client_gone')),
    SUM(outcome = 'cancelled'), SUM(outcome = 'client_gone'), COALESCE(SUM(prompt_tokens), 0),
    COALESCE(SUM(cached_tokens), 0), COALESCE(SUM(generated_tokens), 0),
    SUM(waited_s), SUM(load_s), SUM(took_s)
"""
_NAMES = {
    By.MODEL: "COALESCE(model, asked, '')",
    By.CLIENT: "client",
    By.DAY: "strftime('%Y-%m-%d', arrived_s, 'unixepoch', 'localtime')",
}


class Damaged(Exception):
    """What is there is not a history any more."""


class HistoryFile:
    """One thread at a time. It is opened when it is needed, and again after an error.

    Args:
        keep_s: what is older is removed.
        now_s: Unix time.

    Its methods raise HistoryUnavailable.
    """

    def __init__(self, path: Path, keep_s: float, now_s: Callable[[], float] = time.time) -> None:
        self.path, self._keep_s, self._now_s = path, keep_s, now_s
        self._open: sqlite3.Connection | None = None
        self._inode: int | None = None
        self._pruned_at = float("-inf")

    def write(self, records: Sequence[RequestRecord]) -> None:
        """All of them, or none; more than once is the same as once."""
        values = [_values(record) for record in records]
        self._with(lambda connection: _write(connection, values))
        if self._now_s() > self._pruned_at + PRUNE_EVERY_S:
            self._with(self._prune)

    def page(self, wanted: Wanted, before: Place | None, limit: int) -> list[StoredRequest]:
        """The newest that came before that place, the newest first."""
        where, values = _where(wanted)
        if before is not None:
            where += " AND (arrived_s, id) < (?, ?)"
            values += before
        query = (
            f"SELECT arrived_s, id, row FROM requests WHERE {where} "
            "ORDER BY arrived_s DESC, id DESC LIMIT ?"
        )
        rows = self._with(lambda open_: open_.execute(query, [*values, limit]).fetchall())
        return [
            StoredRequest(Place(arrived_s, id_), msgspec.Raw(row.encode()))
            for arrived_s, id_, row in rows
        ]

    def place_of(self, id_: str, wanted: Wanted) -> Place | None:
        """Of the request with this id; None: there is none of those that are wanted."""
        where, values = _where(wanted)
        query = f"SELECT arrived_s, id FROM requests WHERE id = ? AND {where}"
        row = self._with(lambda open_: open_.execute(query, [id_, *values]).fetchone())
        return None if row is None else Place(*row)

    def sums(self, wanted: Wanted, by: By) -> dict[str, Sums]:
        where, values = _where(wanted)
        query = f"SELECT {_NAMES[by]} AS name, {_SUMS} FROM requests WHERE {where} GROUP BY name"
        rows = self._with(lambda open_: open_.execute(query, values).fetchall())
        fields = Sums.__struct_fields__
        return {row[0]: Sums(**dict(zip(fields, row[1:], strict=True))) for row in rows}

    def close(self) -> None:
        if self._open is not None:
            with contextlib.suppress(sqlite3.Error):
                self._open.close()
            self._open = None

    # -- opening ------------------------------------------------------------------------------

    def _with(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        """What the work gives. A damaged file is moved aside, and the work done with a new one."""
        try:
            try:
                return work(self._connected())
            except (sqlite3.DatabaseError, Damaged) as error:
                self.close()
                if not _is_damage(error):
                    raise
                self._move_aside(str(error))
                return work(self._connected())
        except (sqlite3.Error, OSError, Damaged) as error:
            self.close()
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise HistoryUnavailable(reason or repr(error)) from error

    def _connected(self) -> sqlite3.Connection:
        if self._open is not None and _inode(self.path) != self._inode:
            self.close()  # somebody has removed the file, or put another one there
        if self._open is None:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make_private(self.path)
            made = sqlite3.connect(
                self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
            )
            try:
                _prepare(made, self.path.stat().st_size)
            except BaseException:
                made.close()
                raise
            self._open, self._inode = made, _inode(self.path)
        return self._open

    def _move_aside(self, why: str) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(self._now_s()))
        aside = self.path.with_name(f"{self.path.name}.damaged-{stamp}")
        os.replace(self.path, aside)
        for end in _BESIDE:
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{self.path}{end}", f"{aside}{end}")
        log.error(
            "the history %s is damaged (%s): it is %s now, and a new one is begun",
            self.path, " ".join(why.split()), aside.name,
        )  # fmt: skip

    # -- pruning ------------------------------------------------------------------------------

    def _prune(self, connection: sqlite3.Connection) -> None:
        """In small steps, as others may want to write in between."""
        before = self._now_s() - self._keep_s
        gone = 1
        while gone:
            gone = connection.execute(
                "DELETE FROM requests WHERE rowid IN "
                "(SELECT rowid FROM requests WHERE arrived_s < ? LIMIT ?)",
                (before, _PRUNED_AT_ONCE),
            ).rowcount
        connection.execute(f"PRAGMA incremental_vacuum({_FREED_AT_ONCE})").fetchall()
        self._pruned_at = self._now_s()


def _make_private(path: Path) -> None:
    """A history, or a new file: SQLite gives those beside it the same mode. One of somebody else
    stays as it is. Raises OSError, HistoryUnavailable."""
    opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            raise HistoryUnavailable("it is not a file on a disk")
        head = os.pread(opened, 100, 0)
        if not head or head[68:72] == APPLICATION_ID.to_bytes(4, "big"):
            os.fchmod(opened, 0o600)
    finally:
        os.close(opened)


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _prepare(connection: sqlite3.Connection, size: int) -> None:
    """Raises sqlite3.Error, Damaged, HistoryUnavailable."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (objects,) = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    if objects and application != APPLICATION_ID:
        raise HistoryUnavailable("it is a database of another program")
    if version > len(UPGRADES):
        raise HistoryUnavailable(f"a newer trio-gateway has written it (version {version})")
    if 0 < size <= CHECKED_MAX_BYTES:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise Damaged(found)
    if not objects:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL").fetchone()
    connection.execute("PRAGMA synchronous = NORMAL")  # what is committed outlives the gateway
    connection.execute("PRAGMA cache_size = -512")  # KiB
    if version < len(UPGRADES):
        _upgrade(connection)


def _upgrade(connection: sqlite3.Connection) -> None:
    """All at once, or not at all; another gateway may do the same at this moment."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        for script in UPGRADES[version:]:
            for statement in filter(str.strip, script.split(";")):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(UPGRADES)}")
        connection.execute("COMMIT")
    except BaseException:
        _roll_back(connection)
        raise


def _write(connection: sqlite3.Connection, values: Iterable[tuple[object, ...]]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.executemany(_INSERT, values)
        connection.execute("COMMIT")
    except BaseException:
        _roll_back(connection)
        raise


def _roll_back(connection: sqlite3.Connection) -> None:
    with contextlib.suppress(sqlite3.Error):  # SQLite may have done it by itself
        connection.execute("ROLLBACK")


def _is_damage(error: Exception) -> bool:
    if isinstance(error, Damaged):
        return True
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _DAMAGE


def _values(record: RequestRecord) -> tuple[object, ...]:
    """Of a request that is over."""
    assert record.ended_at is not None
    assert record.outcome is not None
    row, usage = row_of(record, record.ended_at), record.usage
    return (
        record.id, row.arrived_s, record.model, record.asked, client_of(record), record.key,
        record.outcome.value, record.status,
        None if usage is None else usage.prompt_tokens,
        None if usage is None else usage.cached_tokens,
        record.generated,
        record.way.queue_s, record.way.load_s, record.ended_at - record.arrived_at,
        msgspec.json.encode(row).decode(),
    )  # fmt: skip


def _where(wanted: Wanted) -> tuple[str, list[object]]:
    """A condition, and the values in it."""
    parts, values = ["1"], list[object]()

    def add(part: str, *of_it: object) -> None:
        parts.append(part)
        values.extend(of_it)

    if wanted.key is not None:
        add("key = ?", wanted.key)
    if wanted.model is not None:
        add("(model = ? OR asked = ?)", wanted.model, wanted.model)
    if wanted.client is not None:
        add("client = ?", wanted.client)
    if wanted.since_s is not None:
        add("arrived_s >= ?", wanted.since_s)
    match wanted.status:
        case Outcome() as outcome:
            add("outcome = ?", outcome.value)
        case Whether.ERROR:
            add("outcome != ?", Outcome.OK.value)
        case StatusCodes(first, last):
            add("status BETWEEN ? AND ?", first, last)
        case None | Stage.DONE:
            pass
        case _:  # it is under way
            add("0")
    return " AND ".join(parts), values
