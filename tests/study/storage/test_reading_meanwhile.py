"""A reader finds nothing or all of a store, wherever between two statements its writer and the reader itself stand."""

import json
import re
import shutil
import sqlite3
import threading
from types import SimpleNamespace

import pytest

from steelyard.errors import StoreError
from steelyard.study.storage import store
from steelyard.study.storage.sqlite_file import Database
from steelyard.study.storage.store import Store
from study import made_up

PLAN = json.loads(json.dumps(made_up.plan().to_dict()))
STATEMENTS, READER = 20, 14  # at most: of a writer, of a reader


class Stepwise(threading.Thread):
    """A writer that makes, or renews, a store and stops in front of each of its statements."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.path, self.statements, self.over, self.waited = path, 0, False, False
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self.start()
        self._stopped.acquire()

    def run(self):
        try:
            with Store(self.path, write=True) as opened:
                opened.add_plan(PLAN)
        except StoreError as error:
            self.waited = "locked" in str(error)  # for the reader
        finally:
            self.over = True
            self._stopped.release()

    def before(self, statement):
        self._stopped.release()
        self._go.acquire()

    def go_to(self, statement):
        while self.statements < statement and not self.over:
            self._go.release()
            self._stopped.acquire()
            self.statements += 1


class Unflushed(sqlite3.Connection):
    """Disks take their time, which says nothing of what a reader sees."""

    def execute(self, statement, *values):
        return super().execute(statement.replace("synchronous=FULL", "synchronous=OFF"), *values)


@pytest.fixture
def reader_steps(monkeypatch):
    """What happens in front of each statement of a reader. Who must wait is told so at once."""
    steps = []

    def connect(database, mode):
        uri = f"{database.path.as_uri()}?mode={mode}"
        connection = sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None, factory=Unflushed)
        connection.execute("PRAGMA synchronous=FULL")
        here = threading.current_thread()
        before = here.before if isinstance(here, Stepwise) else lambda statement: [step() for step in steps]
        connection.set_trace_callback(before)
        return connection

    monkeypatch.setattr(Database, "_connect", connect)
    monkeypatch.setattr(store, "WriterLock", lambda path: SimpleNamespace(release=lambda: None))
    return steps


@pytest.mark.parametrize("what", ["made", "renewed"])
def test_a_reader_sees_nothing_or_all_of_a_store_that_is_made_or_renewed(tmp_path, reader_steps, what):
    first, path = tmp_path / "first.sqlite", tmp_path / "s.sqlite"
    with Store(first, write=True) as opened:
        opened.add_plan(PLAN)
    made_up.version_1(first)

    def read(gap, writer, until):
        asked = iter(range(1000))
        reader_steps[:] = [lambda: writer.go_to(until) if next(asked) == gap else None]
        try:
            with Store(path) as opened:
                return "whole" if opened.latest_plan() == PLAN else "another plan"
        except StoreError as error:
            return str(error)
        finally:
            reader_steps.clear()

    found, waited, longest = [], 0, 0
    for start in range(STATEMENTS + 1):
        for until in (start + 2, STATEMENTS + 1):
            for gap in range(READER):
                path.unlink(missing_ok=True)
                if what == "renewed":
                    shutil.copy(first, path)
                writer = Stepwise(path)
                writer.go_to(start)
                found.append(read(gap, writer, until))
                writer.go_to(1000)
                writer.join()
                waited, longest = waited + writer.waited, max(longest, writer.statements)
    early = "there is no store|is empty: no study was|holds no plan: no study was" if what == "made" else "$."
    assert not [text for text in found if text != "whole" and not re.search(early, text)]
    assert found.count("whole") > len(found) / 4
    assert waited < len(found) / 8
    assert longest < STATEMENTS
