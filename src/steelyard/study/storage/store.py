"""The store: one SQLite file with the plans, the finished trials and the failed ones."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shlex
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from steelyard.errors import DamagedStoreError, StoreError
from steelyard.io.lists_and_counts import counted
from steelyard.io.typed import typed
from steelyard.study.storage.lock import WriterLock
from steelyard.study.storage.network_files import Networks
from steelyard.study.storage.sqlite_file import COLUMNS, Database
from steelyard.study.storage.trial_checkpoint import BESIDE_STORE
from steelyard.study.storage.trials_file import StoreRow, is_trials_file
from steelyard.study.trial import Failed, Result, Trial


@dataclass(frozen=True)
class Trained:
    """Where a result comes from."""

    written: float  # seconds since 1970
    problem: str  # as its trial called it, with its origin


class Store:
    """Open a store: ``with Store(path, write=True) as store``. Reading works while another process writes.

    Every plan and every trial is kept with a checksum, and compared with it when the store is opened and when it is
    read. Stores of version 1 (Steelyard 0.1) have none until they are next opened to be written.

    Args:
        path: the SQLite file.
        write: make the file if there is none, and keep other writers out.
        salvage: open a damaged one too, to read what is whole of it.

    Raises:
        StoreLockedError: another process writes this store.
        DamagedStoreError: something in it is not as it was written.
        StoreError: the file is no store, of another version, missing, or the disk is full.
    """

    def __init__(self, path: Path | str, write: bool = False, salvage: bool = False) -> None:
        self.path, self.salvage = Path(path), salvage
        # Checkpoints lie beside the file that a link leads to, as the lock and SQLite's own log do.
        self._file = Path(os.path.realpath(self.path))
        if not write and not os.path.isfile(self.path):
            named = shlex.quote(str(self.path))
            raise StoreError(f"there is no store {self.path}: `steelyard compare … --store {named}` makes one")
        if write:
            if is_trials_file(self.path) and not self.path.exists():
                raise StoreError(
                    f"{self.path} is a name of a file of trials: call the store that is to be made otherwise, e.g. "
                    "study.sqlite"
                )
            _make_folder(self._file.parent, self.path.name)
            _refuse_further_names(self.path)
        self._lock = WriterLock(self.path) if write else None
        try:
            self._database = Database(self.path, write, salvage)
        except BaseException:
            if self._lock:
                self._lock.release()
            raise

    @property
    def damaged(self) -> bool:
        """Whether a store that was opened to be salvaged has any need of it."""
        return self._database.damage is not None

    @property
    def checkpoints(self) -> Path:
        """The folder in which running trials keep their checkpoints."""
        return self._file.with_name(self._file.name + BESIDE_STORE)

    @property
    def scratch(self) -> Path:
        """The folder of whatever runs the trials, as long as it does."""
        return self._file.with_name(self._file.name + ".running")

    @property
    def networks(self) -> Networks:
        """The trained networks that are kept."""
        return Networks(self._file.with_name(self._file.name + ".networks"))

    # --- writing ---

    def add_plan(self, content: dict[str, Any], *, settles: bool = False) -> None:
        """Make this the plan that `latest_plan` gives; earlier ones are kept, but for the draft that it `settles`."""
        latest = self._database.plan_at_the_end(latest=True)
        self._database.insert("plan", (latest + (0 if settles else 1), json.dumps(content)))

    def add_result(self, trial: Trial, result: Result) -> None:
        values = dataclasses.asdict(result)
        curves = values.pop("curves")
        self._put(trial, "finished", json.dumps(values), json.dumps(curves), None, None)

    def add_failure(self, trial: Trial, failed: Failed) -> None:
        self._put(trial, "failed", None, None, failed.error, failed.traceback)

    def add_row(self, row: StoreRow) -> None:
        """A row of another store, as it is there."""
        self._database.insert(row.table, row.values)

    def add_earlier_plan(self, content: str) -> None:
        """A plan of another store: before all that are here, so that the latest stays the latest."""
        self._database.insert("plan", (self._database.plan_at_the_end(latest=False) - 1, content))

    def _put(self, trial: Trial, status: str, *values: str | None) -> None:
        self._database.insert("trial", (trial.key, status, trial.canonical(), *values, time.time()))

    # --- reading ---

    def rows(self, asked: Iterable[str] = ()) -> Iterator[StoreRow]:
        """All of it, as it was written: plans, the first one first, and trials; of a damaged one what is whole.

        Args:
            asked: keys of trials that a damaged one may hold where it no longer lists them.
        """
        for table, names in COLUMNS.items():
            every = self._database.rows(table, f"ORDER BY {names[0]}")
            if self.salvage:
                listed = self._keys(table)
                more = sorted({*asked} - {*listed}) if table == "trial" else []
                every = self._whole(table, [*listed, *more])
            for row in every:
                if not self.salvage or table != "plan" or self._is_json(row["content"]):
                    yield StoreRow(table, tuple(row.values()))

    def row(self, key: str) -> dict[str, object] | None:
        """A trial's row by its key, finished or failed."""
        return next(self._database.rows("trial", "WHERE key = ?", key), None)

    def latest_plan(self) -> dict[str, Any]:
        """The plan that was added last; of a store to be salvaged, the last that is whole."""
        for content in self.plans():
            return content
        if self.salvage:
            raise StoreError(f"no plan in {self.path} is whole: nothing can be shown of it")
        raise StoreError(f"{self.path} holds no plan: no study was started in it")

    def plan(self, place: int) -> dict[str, Any]:
        """The plan before which so many were added later: 0 is the latest."""
        if place == 0:
            return self.latest_plan()
        found = list(itertools.islice(self.plans(), place + 1))
        if len(found) <= place:
            known = f"0 (the latest) to {len(found) - 1}" if len(found) > 1 else "0"
            raise StoreError(f"{self.path} holds {counted(len(found), 'plan')}, {known}: there is no plan={place}")
        return found[place]

    def plans(self) -> Iterator[dict[str, Any]]:
        """All plans, the latest first; of a store to be salvaged those that are whole."""
        for row in self._whole("plan", reversed(self._keys("plan"))):
            if not self.salvage or self._is_json(row["content"]):
                yield self._json(row["content"])

    def results(self, trials: Iterable[Trial], also: Sequence[str] = ()) -> dict[Trial, Result]:
        """The finished ones among these trials; where `also` names other origins, those trained with them as well."""
        found = {}
        for trial, row in self._finished(trials, also):
            try:
                found[trial] = self._result(row)
            except DamagedStoreError:
                if not self.salvage:
                    raise
        return found

    def trained(self, trials: Iterable[Trial], also: Sequence[str] = ()) -> dict[Trial, Trained]:
        """When the finished ones among these trials were trained, and with what."""
        rows = self._finished(trials, also)
        return {trial: Trained(float(str(row["written"])), self._json(row["config"])["problem"]) for trial, row in rows}

    def _finished(self, trials: Iterable[Trial], also: Sequence[str]) -> Iterator[tuple[Trial, dict[str, object]]]:
        missing = {trial: trial.problem for trial in trials}
        for origin in ("", *also):
            by_key = {dataclasses.replace(t, problem=origin or own).key: t for t, own in missing.items()}
            for row in self._whole("trial", by_key, "AND status = 'finished'"):
                trial = by_key[str(row["key"])]
                del missing[trial]
                yield trial, row

    def _result(self, row: dict[str, object]) -> Result:
        values = {**self._json(row["result"]), "curves": self._json(row["curves"])}
        try:
            result: Result = typed(Result, values)
        except (TypeError, ValueError) as error:
            raise self._database.damaged(f"a result cannot be read: {error}") from error
        return result

    def failures(self, trials: Iterable[Trial]) -> dict[Trial, Failed]:
        """The failed ones among these trials."""
        by_key = {trial.key: trial for trial in trials}
        rows = self._whole("trial", by_key, "AND status = 'failed'")
        return {by_key[str(row["key"])]: Failed(str(row["error"]), str(row["traceback"])) for row in rows}

    def finished(self) -> set[str]:
        """The keys of all finished trials, of whatever plan."""
        return {str(row["key"]) for row in self._database.rows("trial", "WHERE status = 'finished'")}

    def unfinished(self, trials: Iterable[Trial], also: Sequence[str] = ()) -> list[Trial]:
        """Those of these trials that are still to be trained, in order."""
        keys = self.finished()
        return [t for t in trials if not any(dataclasses.replace(t, problem=o).key in keys for o in (t.problem, *also))]

    def origins(self, name: str) -> list[str]:
        """What finished trials of a problem call it, with every code, data and version it was trained with; the
        latest first."""
        rows = self._database.rows("trial", "WHERE status = 'finished' ORDER BY written DESC")
        problems = dict.fromkeys(self._json(row["config"])["problem"] for row in rows)
        return [problem for problem in problems if problem == name or str(problem).startswith(f"{name}@")]

    def _keys(self, table: str) -> list[object]:
        """In order; what cannot be read of them is replaced, and finds no row.

        Where SQLite stumbles on its way, those before that place and, from the other end, those behind it.
        """
        column = COLUMNS[table][0]
        kind = "AS INTEGER" if table == "plan" else "AS BLOB"  # damaged text may be none
        forward: list[Any] = []
        backward: list[Any] = []
        for order, found in (("ASC", forward), ("DESC", backward)):
            try:
                with self._database.named_errors():
                    asked = f"SELECT CAST({column} {kind}) FROM {table} ORDER BY {column} {order}"
                    for (key,) in self._database.connection.execute(asked):
                        found.append(key)
                break
            except DamagedStoreError:
                if not self.salvage:
                    raise
        keys = dict.fromkeys([*forward, *reversed(backward)])
        return [key.decode(errors="replace") if isinstance(key, bytes) else key for key in keys]

    def _whole(self, table: str, keys: Iterable[object], condition: str = "") -> Iterator[dict[str, object]]:
        """The rows of these keys, one by one: of a store to be salvaged, those that are as they were written."""
        column = COLUMNS[table][0]
        for key in keys:
            try:
                yield from self._database.rows(table, f"WHERE {column} = ? {condition}", key)
            except DamagedStoreError:
                if not self.salvage:
                    raise

    def _json(self, text: object) -> dict[str, Any]:
        try:
            found = json.loads(str(text))
            if not isinstance(found, dict):
                raise ValueError(f"{type(found).__name__} instead of names and values")
        except ValueError as error:
            raise self._database.damaged(f"text that is no JSON: {error}") from error
        return found

    def _is_json(self, text: object) -> bool:
        """Stores of the first version have no checksum that would tell."""
        try:
            self._json(text)
        except DamagedStoreError:
            return False
        return True

    def close(self) -> None:
        """Close; a writer leaves one plain file behind, without its write-ahead log."""
        if self._lock:
            with suppress(sqlite3.OperationalError):  # somebody is reading: the next writer tidies up
                self._database.connection.execute("PRAGMA journal_mode=DELETE")
        self._database.close()
        if self._lock:
            self._lock.release()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _make_folder(folder: Path, store: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make the folder {folder} for the store {store}: {error.strerror}") from error


def _refuse_further_names(path: Path) -> None:
    """SQLite keeps its log by name: two writers of one file by two names would destroy it, and see no lock."""
    with suppress(FileNotFoundError):
        if (names := path.stat().st_nlink) > 1:
            raise StoreError(
                f"{path} has {names} names (hard links), and SQLite can only write a file of one: make a copy of it "
                "and give that as the store"
            )
