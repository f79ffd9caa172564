"""One writer per store, and the operating system lets go of the lock however the writer ends."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from steelyard.errors import StoreError, StoreLockedError


class WriterLock:
    """A lock that dies with its process, also by ``kill -9``, and that knows the holder's process id.

    It is a tiny SQLite file beside the store with a transaction left open: SQLite's file locks work on every
    platform, and a reader of that file still sees the process id committed before.
    """

    def __init__(self, store: Path) -> None:
        self.path = store.with_name(store.name + ".lock")
        try:
            self._connection = sqlite3.connect(self.path, timeout=0.5, isolation_level=None)
            self._connection.execute("CREATE TABLE IF NOT EXISTS holder (pid INTEGER)")
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute("DELETE FROM holder")
            self._connection.execute("INSERT INTO holder VALUES (?)", (os.getpid(),))
            self._connection.execute("COMMIT")
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            if "locked" not in str(error):
                raise StoreError(f"cannot write beside the store {store}: {error}") from error
            row = self._connection.execute("SELECT pid FROM holder").fetchone()
            self._connection.close()
            raise StoreLockedError(
                f"{store} is being written by another study (process {row[0] if row else 'unknown'}): "
                "wait for it, stop it, or choose another store. A report can be read meanwhile."
            ) from error

    def release(self) -> None:
        self._connection.execute("ROLLBACK")
        self._connection.close()
        self.path.unlink(missing_ok=True)
