"""One writer per store, and the operating system lets go of the lock however the writer ends."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

from steelyard.errors import StoreError, StoreLockedError

WAIT = 2.0  # seconds: a study that is ending takes less


class WriterLock:
    """A lock that dies with its process, also by ``kill -9``, and that knows the holder's process id.

    It is a tiny SQLite file beside the store with a transaction left open: SQLite's file locks work on every
    platform, and a reader of that file still sees the process id committed before.

    Raises:
        StoreLockedError: another process has held it for `WAIT` seconds.
        StoreError: its file cannot be written.
    """

    def __init__(self, store: Path) -> None:
        file = Path(os.path.realpath(store))  # beside the file itself, by whatever links its user gets there
        self.path = file.with_name(file.name + ".lock")
        until = time.monotonic() + WAIT
        while True:
            try:
                self._connection = self._take()
                return
            except sqlite3.Error as error:
                if "not a database" in str(error) or (os.path.exists(self.path) and not os.path.isfile(self.path)):
                    raise StoreError(
                        f"cannot lock the store {store}: {self.path.name} beside it is no lock of a study: move it away"
                    ) from error
                # Other errors pass as well: the file goes away under who opens it while its holder ends.
                if time.monotonic() < until and os.access(self.path.parent, os.W_OK):
                    time.sleep(0.02)
                    continue
                if "locked" not in str(error):
                    raise StoreError(
                        f"cannot write beside the store {store}: {error}. Choose one in a folder that may be written"
                    ) from error
                raise StoreLockedError(
                    f"{store} is being written by another study (process {self._holder() or 'unknown'}): "
                    "wait for it, stop it, or choose another store. A report can be read meanwhile."
                ) from error

    def _take(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=0.1, isolation_level=None)
        try:
            connection.execute("CREATE TABLE IF NOT EXISTS holder (pid INTEGER)")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("DELETE FROM holder")
            connection.execute("INSERT INTO holder VALUES (?)", (os.getpid(),))
            connection.execute("COMMIT")
            connection.execute("BEGIN IMMEDIATE")
            # The holder before may have removed the file after it was opened here: the lock of a file that has no name
            # keeps nobody out.
            if self._holder() != os.getpid():
                raise sqlite3.OperationalError("the lock's file was removed")
        except BaseException:
            connection.close()
            raise
        return connection

    def _holder(self) -> int | None:
        """The process id in the file that has the lock's name."""
        with suppress(sqlite3.Error), closing(sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True)) as reader:
            row = reader.execute("SELECT pid FROM holder").fetchone()
            return None if row is None else int(row[0])
        return None

    def release(self) -> None:
        # The name first, while nobody else can have the lock of this file. (Windows removes no open file.)
        with suppress(PermissionError):
            self.path.unlink(missing_ok=True)
        self._connection.execute("ROLLBACK")
        self._connection.close()
        if os.name == "nt":
            with suppress(PermissionError):
                self.path.unlink(missing_ok=True)
