"""Rows of a stranger's SQLite file: from a copy in memory, so that its locks and its journal are nobody's business.

A forged file can hold views, triggers and functions that run when a table is read: an authorizer lets only columns of plain
tables be read, and a counter of virtual-machine steps ends what takes too long.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress

_HEADER_BYTES = 100  # fileformat2.html, "The Database Header"
_STEPS = 20_000_000  # about a second
_STEP_CHECK = 10_000
ROWS_LIMIT = 20_000
_VALUE_LIMIT_BYTES = 1 << 20
_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ}


def rows(raw: bytes, query: str, values: tuple[int, ...] = ()) -> Iterator[tuple[object, ...]]:
    """The rows of one query over a database file's bytes.

    Raises:
        sqlite3.Error: it is no database, not one of this form, or would take too long.
    """
    if len(raw) < _HEADER_BYTES:
        raise sqlite3.DatabaseError("file is not a database")
    if raw[18:20] == b"\x02\x02":
        # the file is in WAL mode, which has no place in memory: fileformat2.html, "File format version numbers"
        raw = raw[:18] + b"\x01\x01" + raw[20:]
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, max(_VALUE_LIMIT_BYTES, len(raw) + 1))
        database.deserialize(raw)
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _VALUE_LIMIT_BYTES)
        database.text_factory = lambda text: text.decode("utf-8", "replace")
        with suppress(sqlite3.Error):
            database.execute("PRAGMA trusted_schema = OFF")
        left = _STEPS // _STEP_CHECK

        def out_of_time() -> bool:
            nonlocal left
            left -= 1
            return left < 0

        database.set_progress_handler(out_of_time, _STEP_CHECK)
        database.set_authorizer(_authorized)
        yield from database.execute(query, values).fetchmany(ROWS_LIMIT)


def _authorized(action: int, *names: str | None) -> int:
    """Reading of columns only; a name in the last place means that a view or a trigger asks, not the query."""
    return sqlite3.SQLITE_OK if action in _ALLOWED and names[-1] is None else sqlite3.SQLITE_DENY
