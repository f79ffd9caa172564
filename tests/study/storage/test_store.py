"""The store keeps what it is given, lets one writer in, and names what is wrong with a file."""

import contextlib
import dataclasses
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections import deque
from pathlib import Path

import pytest

from steelyard import study
from steelyard.errors import EmptyStoreError, StoreError, StoreLockedError
from steelyard.problems import load_problem
from steelyard.report.announcements import divisions_of
from steelyard.study.storage import lock
from steelyard.study.storage.lock import WriterLock
from steelyard.study.storage.store import Store
from steelyard.study.trial import Curves, Failed, Result, Trial, derive_seed

TRIAL = Trial(
    problem="digits",
    method="equal",
    tasks=("left", "right"),
    seed=3,
    fractions=(("left", 0.1), ("right", 1.0)),
    epochs=2,
    batch_size=64,
)
RESULT = Result(
    test={"left": [0.1 + 0.2], "right": [float("nan")]},
    last={"left": [1e-300], "right": [0.5]},
    chosen_epoch=2,
    steps=10,
    seconds=0.5,
    steps_per_second=20.0,
    peak_memory=1.5,
    curves=Curves({"left": [1.0, 0.5]}, {"left": [1.0, 1.0]}, {"left": [0.1, 0.2]}),
)


@pytest.fixture(autouse=True)
def short_wait(monkeypatch):
    monkeypatch.setattr(lock, "WAIT", 0.2)


def test_results_come_back_bit_for_bit(tmp_path):
    with Store(tmp_path / "s.sqlite", write=True) as store:
        store.add_result(TRIAL, RESULT)
    with Store(tmp_path / "s.sqlite") as store:
        found = store.results([TRIAL])[TRIAL]
    assert repr(found) == repr(RESULT)  # repr: NaN equals NaN, floats in full
    assert found.curves == RESULT.curves


def test_a_failed_trial_is_kept_until_it_succeeds(tmp_path):
    with Store(tmp_path / "s.sqlite", write=True) as store:
        store.add_failure(TRIAL, Failed("ValueError: no", "Traceback …"))
        assert store.failures([TRIAL]) == {TRIAL: Failed("ValueError: no", "Traceback …")}
        assert store.finished() == set()
        store.add_result(TRIAL, RESULT)
        assert store.failures([TRIAL]) == {}
        assert store.finished() == {TRIAL.key}


def test_the_latest_plan_is_given_and_an_old_one_can_become_latest_again(tmp_path):
    with Store(tmp_path / "s.sqlite", write=True) as store:
        store.add_plan({"epochs": 1})
        store.add_plan({"epochs": 2})
        assert store.latest_plan() == {"epochs": 2}
        store.add_plan({"epochs": 1})
        assert store.latest_plan() == {"epochs": 1}


def test_reading_goes_on_while_a_writer_writes(tmp_path):
    path = tmp_path / "s.sqlite"
    with Store(path, write=True) as writer, Store(path) as reader:
        assert reader.results([TRIAL]) == {}
        writer.add_result(TRIAL, RESULT)
        assert TRIAL in reader.results([TRIAL])


def test_a_second_writer_is_told_the_first_ones_process(tmp_path):
    path = tmp_path / "s.sqlite"
    with Store(path, write=True), pytest.raises(StoreLockedError, match=rf"process {os.getpid()}\b"):
        Store(path, write=True)
    Store(path, write=True).close()
    assert [path.name for path in tmp_path.iterdir()] == ["s.sqlite"]  # one plain file is left


@pytest.mark.parametrize("first", ["itself", "link", "link of a link", "through a folder"])
def test_writers_by_different_names_exclude_each_other(tmp_path, first):
    """Lock, log and checkpoints lie beside the file, whatever links lead to it; also where there is no file yet."""
    folder = tmp_path / "there"
    (tmp_path / "here").mkdir()
    (tmp_path / "also").symlink_to(folder)
    names = {
        "itself": folder / "s.sqlite",
        "link": tmp_path / "here" / "link",
        "link of a link": tmp_path / "again.sqlite",
        "through a folder": tmp_path / "also" / "s.sqlite",
    }
    names["link"].symlink_to("../there/s.sqlite")
    names["link of a link"].symlink_to(names["link"])
    with Store(names[first], write=True) as store:
        store.add_result(TRIAL, RESULT)
        for name in names.values():
            with pytest.raises(StoreLockedError, match=rf"{name} is being written .*process {os.getpid()}\b"):
                Store(name, write=True)
            with Store(name) as reader:
                assert reader.finished() == {TRIAL.key}
        assert store.checkpoints == folder / "s.sqlite.checkpoints"
    assert [path.name for path in folder.iterdir()] == ["s.sqlite"]
    assert not list((tmp_path / "here").glob("link?*"))


def test_a_file_of_two_names_is_not_written(tmp_path):
    """SQLite's log and our lock go by name: two writers of one file by two names would destroy it."""
    path, other = tmp_path / "s.sqlite", tmp_path / "other.sqlite"
    with Store(path, write=True) as store:
        store.add_result(TRIAL, RESULT)
    os.link(path, other)
    before = path.read_bytes()
    for name in (path, other):
        with pytest.raises(StoreError, match=rf"{name.name} has 2 names \(hard links\).*make a copy"):
            Store(name, write=True)
        with Store(name) as store:
            assert store.finished() == {TRIAL.key}
    assert path.read_bytes() == before
    other.unlink()
    Store(path, write=True).close()


def test_the_lock_of_a_killed_writer_is_free_and_its_rows_are_there(tmp_path):
    code = """
        import sys, time
        from pathlib import Path
        from steelyard.study.storage.store import Store
        store = Store(Path(sys.argv[1]), write=True)
        store.add_plan({"epochs": 7})
        print("ready", flush=True)
        time.sleep(60)
    """
    path = tmp_path / "s.sqlite"
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), str(path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"ready\n"
        with pytest.raises(StoreLockedError, match=rf"process {writer.pid}\b"):
            Store(path, write=True)
        writer.send_signal(signal.SIGKILL)
    with Store(path, write=True) as store:
        assert store.latest_plan() == {"epochs": 7}


def test_a_writer_waits_for_one_that_is_ending(tmp_path, monkeypatch):
    path, waited = tmp_path / "s.sqlite", []
    ending = Store(path, write=True)

    def end(seconds):
        waited.append(seconds)
        if len(waited) == 1:
            ending.close()

    monkeypatch.setattr(lock.time, "sleep", end)
    with Store(path, write=True):
        assert waited
        monkeypatch.setattr(lock, "WAIT", 0)
        with pytest.raises(StoreLockedError):
            Store(path, write=True)


def test_a_lock_file_that_is_removed_while_it_is_opened_locks_nobody_out(tmp_path, monkeypatch):
    """The one before ends between our opening its file and our locking it: that lock has no name any more."""
    path, connect, opened = tmp_path / "s.sqlite", sqlite3.connect, []

    def connect_late(name, *args, **kwargs):
        connection = connect(name, *args, **kwargs)
        if not opened:
            opened.append(name)
            connection.execute("CREATE TABLE holder (pid INTEGER)")
            Path(name).unlink()
        return connection

    monkeypatch.setattr(lock.sqlite3, "connect", connect_late)
    first = WriterLock(path)
    monkeypatch.setattr(lock, "WAIT", 0)
    assert [file.name for file in tmp_path.iterdir() if not file.name.endswith("-journal")] == ["s.sqlite.lock"]
    with pytest.raises(StoreLockedError):
        WriterLock(path)
    first.release()
    WriterLock(path).release()
    assert not list(tmp_path.iterdir())


def fill(path, stored):
    """Write many results, and note which were."""
    with Store(path, write=True) as store:
        for seed in range(1000):
            trial = dataclasses.replace(TRIAL, seed=seed)
            store.add_result(trial, RESULT)
            stored.append(trial)


@pytest.mark.parametrize("size", [1_000, 5_000, 20_000, 33_000, 60_000, 100_000])
def test_on_disks_of_any_size_what_was_stored_is_whole(tmp_path, size):
    resource = pytest.importorskip("resource")
    path, sizes, stored = tmp_path / "s.sqlite", resource.getrlimit(resource.RLIMIT_FSIZE), []
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, sizes[1]))  # no file grows beyond, as on a full disk
    try:
        with pytest.raises(StoreError, match=re.escape(str(path))):
            fill(path, stored)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, sizes)
    with Store(path, write=True) as store:
        assert list(store.results(stored)) == stored
        store.add_result(TRIAL, RESULT)


def test_who_is_killed_while_a_store_is_made_leaves_one_that_goes_on(tmp_path):
    """Processes end before each statement in turn, without a goodbye."""
    making = """
        import os, sqlite3, sys
        from steelyard.study.storage.store import Store

        class Dying(sqlite3.Connection):
            def execute(self, *words):
                global left
                left -= 1
                if left < 0:
                    os._exit(9)
                return super().execute(*words)

            def executescript(self, script):
                for statement in script.split(";"):
                    self.execute(statement)

        connect = sqlite3.connect
        sqlite3.connect = lambda *words, **named: connect(*words, factory=Dying, **named)
        for point in range(100):
            if not os.fork():
                left = point
                with Store(f"{sys.argv[1]}/{point}.sqlite", write=True) as store:
                    store.add_plan({})
                os._exit(0)
            if not os.wait()[1]:
                break
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(making), tmp_path], check=True)
    killed = sorted(tmp_path.glob("*.sqlite"))
    assert 15 < len(killed) < 100
    for path in killed:
        with contextlib.suppress(EmptyStoreError), Store(path) as store:
            list(store.plans())
        with Store(path, write=True) as store:
            store.add_result(TRIAL, RESULT)
            assert store.finished() == {TRIAL.key}


def test_a_comparison_fills_a_store_that_holds_nothing(tmp_path):
    path, problem = tmp_path / "s.sqlite", load_problem("digits")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")  # as a Steelyard left it that was killed here
    assert path.stat().st_size > 0
    assert divisions_of(problem, path) is None
    made = study.plan("digits", ["equal"], seeds=1, epochs=1)
    assert study.estimate(made, path).finished == 0
    with pytest.raises(EmptyStoreError, match="no study was started in it"):
        study.judge(path)
    assert study.run(made, path, progress=False).finished == 1


def test_a_store_of_another_version_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "s.sqlite"
    Store(path, write=True).close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=99")
    before = path.read_bytes()
    for write in (False, True):
        with pytest.raises(StoreError, match="version 99, this Steelyard reads versions 1 to 2"):
            Store(path, write=write)
    assert path.read_bytes() == before


def test_files_that_are_no_store_are_refused(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("not a database, but my notes\n" * 100)
    other = tmp_path / "other.sqlite"
    with contextlib.closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE photos (id)")
    for path in (text, other):
        before = path.read_bytes()
        for write in (False, True):
            with pytest.raises(StoreError, match="not a Steelyard store"):
                Store(path, write=write)
        assert path.read_bytes() == before
    with pytest.raises(StoreError, match="there is no store"):
        Store(tmp_path / "missing.sqlite")


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER own AFTER INSERT ON plan BEGIN DELETE FROM trial; END",
        "CREATE VIEW own AS SELECT * FROM trial",
        "ALTER TABLE trial RENAME TO hidden; CREATE VIEW trial AS SELECT * FROM hidden",
    ],
)
def test_a_store_that_acts_by_itself_is_refused(tmp_path, statement):
    path = tmp_path / "s.sqlite"
    with Store(path, write=True) as store:
        store.add_result(TRIAL, RESULT)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(statement)
    for write in (False, True):
        with pytest.raises(StoreError, match=r"s\.sqlite is damaged \(it holds a (trigger|view), '(own|trial)'"):
            Store(path, write=write)


@pytest.mark.parametrize("name", ["s.sqlite.lock", "s.sqlite-wal", "s.sqlite-journal"])
def test_a_folder_in_the_place_of_a_file_beside_it_is_named(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(StoreError, match=r"s\.sqlite"), Store(tmp_path / "s.sqlite", write=True) as store:
        store.add_result(TRIAL, RESULT)


@pytest.mark.parametrize("application", [True, False])
def test_a_report_undoes_what_a_killed_writer_had_half_written(tmp_path, application):
    """A kill while SQLite changes the way in which a store is written: in no other file than a store."""
    whole, path = tmp_path / "whole.sqlite", tmp_path / "s.sqlite"
    with Store(whole, write=True) as store:
        for seed in range(100):
            store.add_result(dataclasses.replace(TRIAL, seed=seed), RESULT)
    with contextlib.closing(sqlite3.connect(whole, isolation_level=None)) as connection:
        if not application:
            connection.execute("PRAGMA application_id=7")
        connection.execute("PRAGMA cache_size=1")  # so that what is not committed is in the file
        connection.execute("BEGIN")
        connection.execute("UPDATE trial SET error = 'half written'")
        for end in ("", "-journal"):
            shutil.copy(f"{whole}{end}", f"{path}{end}")
    before = path.read_bytes()
    if not application:
        with pytest.raises(StoreError, match=r"what is in s\.sqlite-journal can only be undone"):
            Store(path)
        assert path.read_bytes() == before
        return
    assert b"half written" in before
    with Store(path) as store:
        assert len(store.finished()) == 100
    assert b"half written" not in path.read_bytes()
    assert not list(tmp_path.glob("s.sqlite?*"))


def test_a_damaged_store_is_named(tmp_path):
    path = tmp_path / "s.sqlite"
    with Store(path, write=True) as store:
        for seed in range(200):
            store.add_result(dataclasses.replace(TRIAL, seed=seed), RESULT)
    content = bytearray(path.read_bytes())
    content[4096:20000] = os.urandom(20000 - 4096)
    path.write_bytes(content)
    with pytest.raises(StoreError, match="damaged"):
        Store(path, write=True)


def test_a_full_disk_is_named_and_nothing_stored_is_lost(tmp_path):
    path = tmp_path / "s.sqlite"
    with Store(path, write=True) as store:
        store.add_result(TRIAL, RESULT)
        # SQLite's own limit on pages gives the very error of a full disk.
        pages = store._database.connection.execute("PRAGMA page_count").fetchone()[0]
        store._database.connection.execute(f"PRAGMA max_page_count={pages + 2}")
        with pytest.raises(StoreError, match="is full: free some space"):
            deque(store.add_result(dataclasses.replace(TRIAL, seed=s), RESULT) for s in range(100, 400))
        written = store.finished()
    with Store(path) as store:
        assert store.finished() == written
        assert TRIAL.key in written


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot make the folder"):
        Store(tmp_path / "file" / "sub" / "s.sqlite", write=True)


def test_the_key_holds_each_fraction_and_ignores_defaults():
    assert '"fractions":[["left",0.1],["right",1.0]]' in TRIAL.canonical()
    assert "architecture" not in TRIAL.canonical()  # so that options added later leave old keys as they are
    assert TRIAL.key != dataclasses.replace(TRIAL, architecture="mmoe").key
    # The key of a first-version trial, for ever: change it and every user's store is forgotten.
    assert TRIAL.key == "3f81302f357f61f80221a91e3b8cc1a64fd8e6d982c3cffc59bfb6b3f9b5cd5e"


def test_derived_seeds_differ_by_seed_and_purpose():
    seeds = {derive_seed(seed, purpose, n) for seed in range(5) for purpose in ("batches", "dropout") for n in (1, 2)}
    assert len(seeds) == 20
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, "batches", 1) == derive_seed(1, "batches", 1)


def test_the_path_may_hold_spaces_and_percent_signs(tmp_path):
    path = Path(tmp_path / "my store 100 %3F#x.sqlite")
    Store(path, write=True).close()
    assert path.is_file()


def test_a_plan_that_settles_a_draft_takes_its_place(tmp_path):
    with Store(tmp_path / "s", write=True) as store:
        for content, settles in (({"n": 1}, False), ({"n": 2}, False), ({"n": 3}, True)):
            store.add_plan(content, settles=settles)
        assert [store.plan(place) for place in range(2)] == [{"n": 3}, {"n": 1}]
        assert list(store.plans()) == [{"n": 3}, {"n": 1}]
