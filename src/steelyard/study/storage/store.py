"""The store: one SQLite file with the plans, the finished trials and the failed ones."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from steelyard.errors import StoreError
from steelyard.study.storage.lock import WriterLock
from steelyard.study.trial import Failed, Result, Trial

APPLICATION = 0x53545944  # "STYD": marks an SQLite file as a store
VERSION = 1
SCHEMA = """
CREATE TABLE plan (id INTEGER PRIMARY KEY, content TEXT NOT NULL);
CREATE TABLE trial (
    key TEXT PRIMARY KEY,
    status TEXT NOT NULL CHECK (status IN ('finished', 'failed')),
    config TEXT NOT NULL,  -- the trial, canonical JSON
    result TEXT,           -- JSON without the curves
    curves TEXT,
    error TEXT,            -- the last line of the traceback
    traceback TEXT,
    written REAL NOT NULL  -- seconds since 1970
) WITHOUT ROWID;
"""


class Store:
    """Open a store: ``with Store(path, write=True) as store``. Reading works while another process writes.

    Raises:
        StoreLockedError: another process writes this store.
        StoreError: the file is no store, of another version, damaged, missing, or the disk is full.
    """

    def __init__(self, path: Path | str, write: bool = False) -> None:
        self.path = Path(path)
        if not write and not self.path.is_file():
            raise StoreError(f"there is no store {self.path}: `steelyard compare … --store {self.path}` makes one")
        if write:
            _make_folder(self.path.parent)
        self._lock = WriterLock(self.path) if write else None
        try:
            with self._clear_errors():
                self._connection = self._open(write)
        except BaseException:
            if self._lock:
                self._lock.release()
            raise

    @property
    def checkpoints(self) -> Path:
        """The folder in which running trials keep their checkpoints."""
        return self.path.with_name(self.path.name + ".checkpoints")

    def _open(self, write: bool) -> sqlite3.Connection:
        mode = "rwc" if write else "ro"
        uri = f"{self.path.absolute().as_uri()}?mode={mode}"
        connection = sqlite3.connect(uri, uri=True, timeout=30, isolation_level=None)
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if tables == 0 and application == 0:
            if not write:
                raise StoreError(f"{self.path} is empty: no study was started in it")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(
                f"BEGIN; {SCHEMA} PRAGMA application_id={APPLICATION}; PRAGMA user_version={VERSION}; COMMIT"
            )
        elif application != APPLICATION:
            raise StoreError(f"{self.path} is not a Steelyard store: choose another name")
        elif version != VERSION:
            raise StoreError(
                f"{self.path} is a store of version {version}, this Steelyard reads version {VERSION}: use "
                "the Steelyard that wrote it, or choose another store. Nothing in this one was changed."
            )
        if write:
            damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if damage != "ok":
                raise sqlite3.DatabaseError(damage)
            connection.execute("PRAGMA journal_mode=WAL")  # so that a report can be read meanwhile
            connection.execute("PRAGMA synchronous=NORMAL")
        return connection

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(_explain(self.path, error)) from error

    # --- writing ---

    def add_plan(self, content: dict[str, Any]) -> None:
        """Make this the plan that `latest_plan` gives; earlier ones are kept."""
        with self._clear_errors():
            self._connection.execute("INSERT INTO plan (content) VALUES (?)", (json.dumps(content),))

    def add_result(self, trial: Trial, result: Result) -> None:
        values = dataclasses.asdict(result)
        curves = values.pop("curves")
        self._put(trial, "finished", json.dumps(values), json.dumps(curves), None, None)

    def add_failure(self, trial: Trial, failed: Failed) -> None:
        self._put(trial, "failed", None, None, failed.error, failed.traceback)

    def _put(self, trial: Trial, status: str, *values: str | None) -> None:
        row = (trial.key, status, trial.canonical(), *values, time.time())
        with self._clear_errors():
            self._connection.execute(f"INSERT OR REPLACE INTO trial VALUES (?{', ?' * (len(row) - 1)})", row)

    # --- reading ---

    def latest_plan(self) -> dict[str, Any]:
        with self._clear_errors():
            row = self._connection.execute("SELECT content FROM plan ORDER BY id DESC LIMIT 1").fetchone()
        if row is None:
            raise StoreError(f"{self.path} holds no plan: no study was started in it")
        content: dict[str, Any] = json.loads(row[0])
        return content

    def results(self, trials: Iterable[Trial]) -> dict[Trial, Result]:
        """The finished ones among these trials."""
        found = {}
        for trial in trials:
            with self._clear_errors():
                row = self._connection.execute(
                    "SELECT result, curves FROM trial WHERE key = ? AND status = 'finished'", (trial.key,)
                ).fetchone()
            if row is not None:
                found[trial] = Result.from_dict({**json.loads(row[0]), "curves": json.loads(row[1])})
        return found

    def failures(self, trials: Iterable[Trial]) -> dict[Trial, Failed]:
        """The failed ones among these trials."""
        found = {}
        for trial in trials:
            with self._clear_errors():
                row = self._connection.execute(
                    "SELECT error, traceback FROM trial WHERE key = ? AND status = 'failed'", (trial.key,)
                ).fetchone()
            if row is not None:
                found[trial] = Failed(*row)
        return found

    def finished(self) -> set[str]:
        """The keys of all finished trials, of whatever plan."""
        with self._clear_errors():
            rows = self._connection.execute("SELECT key FROM trial WHERE status = 'finished'")
            return {key for (key,) in rows}

    def finished_by_problem(self) -> dict[str, int]:
        """How many trials of each problem (as their keys call it) are finished, of whatever plan."""
        with self._clear_errors():
            rows = self._connection.execute("SELECT config FROM trial WHERE status = 'finished'")
            return dict(Counter(json.loads(config)["problem"] for (config,) in rows))

    def close(self) -> None:
        """Close; a writer leaves one plain file behind, without its write-ahead log."""
        if self._lock:
            with suppress(sqlite3.OperationalError):  # somebody is reading: the next writer tidies up
                self._connection.execute("PRAGMA journal_mode=DELETE")
        self._connection.close()
        if self._lock:
            self._lock.release()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _explain(path: Path, error: sqlite3.Error) -> str:
    reason = str(error)
    if "full" in reason:
        return (
            f"the disk of {path} is full: free some space and run the same command again. Finished trials "
            "are stored, running ones go on from their last checkpoint."
        )
    if "not a database" in reason:
        return f"{path} is not a Steelyard store: choose another name"
    if isinstance(error, sqlite3.OperationalError):
        return f"cannot use the store {path}: {reason}"
    return f"the store {path} is damaged ({reason}): restore a copy or choose another store"


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make the folder {folder} for the store: {error.strerror}") from error
