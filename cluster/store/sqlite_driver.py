"""SQLite connections that change threads only where they may wait.

The driver hands every call (cursor, execute, fetch, close) to the connection's thread and back: three or four changes
of thread per statement, which is most of a short transaction's time. A statement of this store takes microseconds, all
of them run along an index and are bounded (`tests/unit/cluster/store/test_speed.py`), and in WAL mode none waits for
another process. So they run where they are called. What does wait stays in the thread: the writer's turn while another
process has it, and the end of a durable write, which syncs the disk and may write the log back into the database.

A light write (dispatch, claim) is atomic and ordered like any other, but its end waits for no disk. A power cut may
take it, together with the worker that it spoke of; the next durable write carries it to the disk.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import aiosqlite

BEGIN_READ = "BEGIN"
BEGIN_WRITE = "BEGIN IMMEDIATE"
BEGIN_LIGHT_WRITE = "BEGIN IMMEDIATE -- light"
_CHUNK_ROWS = 64
_CHECKPOINT_PAGES = 1000  # SQLite's own; a light write leaves it to the durable ones
_MODES = {
    BEGIN_WRITE: ("PRAGMA synchronous = FULL", f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}"),
    BEGIN_LIGHT_WRITE: ("PRAGMA synchronous = NORMAL", "PRAGMA wal_autocheckpoint = 0"),
}


class Connection(aiosqlite.Connection):
    """The driver's connection; `_execute` is the one place through which all its calls go."""

    def __init__(self, connector: Callable[[], sqlite3.Connection], timeout_s: float) -> None:
        super().__init__(connector, _CHUNK_ROWS)
        self._thread.daemon = True  # a process that ends without closing must not hang on it
        self._timeout_ms = int(timeout_s * 1000)
        self._mode = BEGIN_WRITE
        self._syncs = False

    async def _execute(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if not self._running:
            raise ValueError("no active connection")
        if args and args[0] in _MODES:
            self._prepare(args[0])
            if not self._at_once(fn, args[0]):
                return await super()._execute(fn, *args, **kwargs)  # type: ignore[no-untyped-call]
            return fn.__self__  # type: ignore[attr-defined] # as a cursor's `execute` answers
        ends = fn in (self._conn.commit, self._conn.rollback, self._conn.close)
        if ends and self._syncs:
            self._syncs = False
            return await super()._execute(fn, *args, **kwargs)  # type: ignore[no-untyped-call]
        return fn(*args, **kwargs)

    def _prepare(self, begin: str) -> None:
        self._syncs = begin == BEGIN_WRITE
        if begin != self._mode:
            for pragma in _MODES[begin]:
                self._conn.execute(pragma)
            self._mode = begin

    def _at_once(self, fn: Callable[..., Any], begin: str) -> bool:
        """Begins a write here if no other process is writing."""
        self._conn.execute("PRAGMA busy_timeout = 0")
        try:
            fn(begin)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            return False
        finally:
            self._conn.execute(f"PRAGMA busy_timeout = {self._timeout_ms}")
        return True


async def connect(path: Path, timeout_s: float) -> Connection:
    """A connection without transaction handling of its own; a write waits `timeout_s` for other processes' writes."""
    open_file = partial(sqlite3.connect, path, timeout=timeout_s, isolation_level=None, check_same_thread=False)
    return await Connection(open_file, timeout_s)  # type: ignore[return-value] # annotated as the base class
