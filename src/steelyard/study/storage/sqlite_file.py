"""The SQLite file under a store: its layout and versions, what opening it checks, and what its errors mean."""

from __future__ import annotations

import os
import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path

from steelyard.errors import DamagedStoreError, EmptyStoreError, StoreError
from steelyard.study.storage.checksum import checksum
from steelyard.study.storage.whole_length import whole_length

APPLICATION = 0x53545944  # "STYD": marks an SQLite file as a store
VERSION = 2  # 1, written by Steelyard 0.1, has no checksums
SCHEMA = """
CREATE TABLE plan (id INTEGER PRIMARY KEY, content TEXT NOT NULL, checksum TEXT);
CREATE TABLE trial (
    key TEXT PRIMARY KEY,
    status TEXT NOT NULL CHECK (status IN ('finished', 'failed')),
    config TEXT NOT NULL,  -- the trial, canonical JSON
    result TEXT,           -- JSON without the curves
    curves TEXT,
    error TEXT,            -- the last line of the traceback
    traceback TEXT,
    written REAL NOT NULL, -- seconds since 1970
    checksum TEXT          -- of all of the above
) WITHOUT ROWID;
"""
COLUMNS = {
    "plan": ("id", "content"),
    "trial": ("key", "status", "config", "result", "curves", "error", "traceback", "written"),
}
SALVAGE = "`steelyard report {path} --salvage` shows what is whole of it; restore a copy, or choose another store"
SALVAGED = "what is whole of it cannot be shown: restore a copy, or choose another store"

TRIALS_ENDINGS = (".jsonl", ".jsonl.xz")
"""Of the names of files that hold a store as text."""


class Database:
    """A connection to a store's file.

    Opening reads all of it and compares every row with its checksum, so that what is damaged is said at once and not
    taken for a trial that is missing. With `salvage` that is only noted: rows are checked one by one as they are read,
    of a file that was cut off in a copy of full length.

    Raises:
        DamagedStoreError: a row is not as it was written, or SQLite cannot find its way through the file.
        StoreError: no store, of another version, empty, or not to be read or written.
    """

    def __init__(self, path: Path, write: bool, salvage: bool = False) -> None:
        self.path, self.write, self.salvage = path, write, salvage
        self.damage: DamagedStoreError | None = None  # of one that is to be salvaged
        self._copy = whole_length(path) if salvage else None
        self._file = path if self._copy is None else Path(self._copy.name, path.name)
        try:
            with self.named_errors():
                if not write:
                    self._undo_what_was_cut_off()
                self.connection = self._connect("rwc" if write else "ro")
        except BaseException:
            self._remove_copy()
            raise
        try:
            with self.named_errors():
                # One moment of the file for all of a reader's questions, while a writer makes or renews it: what is
                # asked before a change and what is asked after it belong together as little as a store's halves.
                with self._one_moment() if not write else nullcontext():
                    self.checked = self._prepare(write)
                    self._verify()
                if write:
                    self._get_ready()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self.connection.close()
        self._remove_copy()

    def _remove_copy(self) -> None:
        if self._copy is not None:
            self._copy.cleanup()

    def _connect(self, mode: str) -> sqlite3.Connection:
        address = f"{self._file.absolute().as_uri()}?mode={mode}"
        return sqlite3.connect(address, uri=True, timeout=30, isolation_level=None)

    @contextmanager
    def _one_moment(self) -> Iterator[None]:
        self.connection.execute("BEGIN")
        yield
        self.connection.execute("COMMIT")

    def _undo_what_was_cut_off(self) -> None:
        """A writer that was killed while it opened or closed the file leaves a journal, and only who may write can read
        past that: SQLite undoes what it holds, unless that writer is alive."""
        if not os.path.isfile(self._beside("-journal")):
            return
        with suppress(OSError, sqlite3.Error):  # what cannot be undone here is named when it is read
            with open(self._file, "rb") as file:
                ours = file.read(72)[-4:] == APPLICATION.to_bytes(4, "big")
            if ours:
                with closing(self._connect("rw")) as connection:
                    connection.execute("PRAGMA schema_version").fetchone()

    def _beside(self, end: str) -> Path:
        return self.path.with_name(self.path.name + end)

    def _prepare(self, write: bool) -> bool:
        """Look what file this is, and fill it if it is a new one; whether its rows have checksums."""
        application = self._number("PRAGMA application_id")
        version = self._number("PRAGMA user_version")
        if application == 0 and self._number("SELECT count(*) FROM sqlite_master") == 0:
            if not write:
                raise EmptyStoreError(f"{self.path} is empty: no study was started in it")
            # All in one step, before SQLite keeps a log: who is killed here leaves a file that is empty or complete.
            self.connection.executescript(
                f"BEGIN; {SCHEMA} PRAGMA application_id={APPLICATION}; PRAGMA user_version={VERSION}; COMMIT"
            )
            return True
        if application != APPLICATION:
            raise self._no_store()
        if not 1 <= version <= VERSION:
            raise StoreError(
                f"{self.path} is a store of version {version}, this Steelyard reads versions 1 to {VERSION}: use "
                "the Steelyard that wrote it, or choose another store. Nothing in this one was changed."
            )
        foreign = "SELECT type, name FROM sqlite_master WHERE type NOT IN ('table', 'index')"
        for kind, name in self.connection.execute(foreign):  # it would be obeyed at every row that is written
            raise DamagedStoreError(f"it holds a {kind}, {name!r}, which no store has")
        # The columns and not the version alone: one flipped bit must not switch the checks off.
        for table in COLUMNS:
            has = any(row[1] == "checksum" for row in self.connection.execute(f"PRAGMA table_info({table})"))
            if has != (version > 1):
                raise DamagedStoreError(f"its table {table} is not that of version {version}")
        return version > 1

    def _no_store(self) -> StoreError:
        if self.path.name.endswith(TRIALS_ENDINGS):
            words = f"steelyard merge all.sqlite {shlex.quote(str(self.path))}"
            return StoreError(f"{self.path} is a file of trials by its name, and no store: `{words}` makes one of it")
        return StoreError(f"{self.path} is not a Steelyard store: choose another name")

    def _number(self, statement: str) -> int:
        found: int = self.connection.execute(statement).fetchone()[0]
        return found

    def plan_at_the_end(self, latest: bool) -> int:
        """The place of the latest plan (0 of none), or of the first (2 of none)."""
        with self.named_errors():
            return self._number(f"SELECT coalesce({'max(id), 0' if latest else 'min(id), 2'}) FROM plan")

    def _verify(self) -> None:
        """Compare every row with its checksum. What is to be salvaged is noted, and read row by row."""
        try:
            with self.named_errors():
                self._compare()
        except DamagedStoreError as error:
            if not self.salvage:
                raise
            self.damage = error

    def _compare(self) -> None:
        said = self.connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if said != "ok":
            raise DamagedStoreError(said.splitlines()[-1])
        for table, names in COLUMNS.items() if self.checked else ():
            rows = self.connection.execute(f"SELECT {', '.join(names)}, checksum FROM {table}")
            wrong = sum(checksum(row[:-1]) != row[-1] for row in rows)
            if wrong:
                raise DamagedStoreError(f"{wrong} of its rows in {table!r} are not as they were written")

    def _get_ready(self) -> None:
        """For writing: a file of version 1 gets checksums, of its rows as they are."""
        self.connection.execute("PRAGMA journal_mode=WAL")  # so that a report can be read meanwhile
        self.connection.execute("PRAGMA synchronous=FULL")  # what was told to be finished outlives a power cut
        if self.checked:
            return
        self.connection.create_function("checksum", -1, lambda *values: checksum(values), deterministic=True)
        self.connection.execute("BEGIN IMMEDIATE")
        for table, names in COLUMNS.items():
            self.connection.execute(f"ALTER TABLE {table} ADD COLUMN checksum TEXT")
            self.connection.execute(f"UPDATE {table} SET checksum = checksum({', '.join(names)})")
        self.connection.execute(f"PRAGMA user_version={VERSION}")
        self.connection.execute("COMMIT")
        self.checked = True

    def insert(self, table: str, values: tuple[object, ...]) -> None:
        """Write a row with its checksum, in the place of one with the same key."""
        row = (*values, checksum(values))
        with self.named_errors():
            self.connection.execute(f"INSERT OR REPLACE INTO {table} VALUES (?{', ?' * (len(row) - 1)})", row)

    def rows(self, table: str, condition: str = "", *values: object) -> Iterator[dict[str, object]]:
        """Rows as they were written; a `DamagedStoreError` at one that is not."""
        names = COLUMNS[table]
        sum_of = "checksum" if self.checked else "NULL"
        with self.named_errors():
            for row in self.connection.execute(f"SELECT {', '.join(names)}, {sum_of} FROM {table} {condition}", values):
                if self.checked and checksum(row[:-1]) != row[-1]:
                    raise DamagedStoreError(f"a row in {table!r} is not as it was written")
                yield dict(zip(names, row[:-1], strict=True))

    @contextmanager
    def named_errors(self) -> Iterator[None]:
        try:
            yield
        except DamagedStoreError as error:
            raise self.damaged(error) from error
        except UnicodeDecodeError as error:  # of a value, or of SQLite's own message about a name
            raise self.damaged("text that is no UTF-8") from error
        except sqlite3.Error as error:
            raise self._explain(error) from error

    def damaged(self, reason: object) -> DamagedStoreError:
        text = str(reason)
        if text.startswith("the store "):  # said already, further in
            return DamagedStoreError(text)
        salvage = SALVAGED if self.salvage else SALVAGE.format(path=shlex.quote(str(self.path)))
        return DamagedStoreError(f"the store {self.path} is damaged ({text}): {salvage}")

    def _explain(self, error: sqlite3.Error) -> StoreError:
        reason = str(error)
        if "full" in reason:
            return StoreError(
                f"the disk of {self.path} is full: free some space and run the same command again. Finished trials "
                "are stored, running ones go on from their last checkpoint."
            )
        if "disk I/O" in reason:
            return StoreError(
                f"the system cannot read or write the store {self.path} ({reason}): see whether its disk is there, and "
                "has room and no limit for files of this size, and run the same command again. What was stored is kept."
            )
        log, journal = self._beside("-wal"), self._beside("-journal")
        for beside in (log, journal):
            if os.path.exists(beside) and not os.path.isfile(beside):
                return StoreError(f"cannot use the store {self.path}: {beside.name} beside it is no file: move it away")
        if "readonly" in reason and not self.write and os.path.exists(journal):
            return StoreError(
                f"cannot read the store {self.path} where it is: its writer was killed, and what is in {journal.name} "
                "can only be undone in a folder that may be written. Copy both files to one of yours"
            )
        if "unable to open" in reason and os.path.exists(log):
            return StoreError(
                f"cannot read the store {self.path} where it is: its writer was killed, and what is in {log.name} can "
                "only be read in a folder that may be written. Copy both files to one of yours"
            )
        if "not a database" in reason:
            return self._no_store()
        if isinstance(error, sqlite3.OperationalError) and not _tells_damage(reason):
            return StoreError(f"cannot use the store {self.path}: {reason}")
        return self.damaged(reason)


def _tells_damage(reason: str) -> bool:
    """Whether SQLite calls an operation impossible because of what it read."""
    told = ("UTF-8", "no such column", "no such table", "malformed", "unsupported file format", "syntax error")
    return any(word in reason for word in told)
