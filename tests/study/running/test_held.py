"""What a study holds on to: killed at any moment, on a full disk, where nothing may be written, beside another one."""

import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from steelyard import study
from steelyard.errors import StoreError
from steelyard.report.output_files import PAGE, OutputError, check_outputs
from steelyard.report.study_page import page as render_page
from steelyard.study.running.events import Finished
from steelyard.study.storage.store import Store
from study import made_up
from study.in_process import MadeUp
from study.processes import alive_in_session, hear_interrupts, rows_written, table, wait_for
from study.two_kinds import problem_text

KILLS, SEED = 20, 3
METHODS = "single-task,equal,dwa"


class Told(MadeUp):
    """Trains nothing, and finds for every trial numbers of its own."""

    def told(self, trials):
        return [(place, Finished(made_up.result(self.values(trial)))) for place, trial in enumerate(trials)]

    def values(self, trial):
        draw = random.Random(hashlib.sha256(trial.key.encode()).digest())
        return {task: [draw.random(), draw.random()] for task in trial.tasks}


# --- killed ---

# On any machine slow enough to be caught in the act.
PROBLEM = problem_text("time.sleep(0.002)", epochs=40)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(PROBLEM)
    return path


def command(*words):
    """The real command, in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "steelyard", *map(str, words)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=hear_interrupts,
    )


@pytest.mark.slow("a study killed at twenty moments, and started again as often")
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="reads process states from /proc")
def test_killed_at_twenty_random_moments_the_same_command_gives_the_same_table(file, tmp_path):
    """The study alone, its whole group, or one of its workers; no finished trial is trained again.

    By the clock, so that any line may be the last one; but every fifth kill waits for a trial to be finished, and none
    comes later than the second one: the machine may have more or less to do than when its speed was measured.
    """
    draw, written, interrupted = random.Random(SEED), {}, 0
    words = ["compare", file, "--methods", METHODS, "--seeds", 14, "--workers", 2]
    whole, store = tmp_path / "whole.sqlite", tmp_path / "killed.sqlite"
    started = time.monotonic()
    with command(*words, "--store", whole) as process:
        wait_for(lambda: rows_written(whole))
        first = time.monotonic() - started  # the study starts, and its first trial is finished
        process.communicate(timeout=600)
        assert process.returncode == 0
    for kill in range(KILLS):
        end, before = time.monotonic() + first * draw.uniform(0.3, 1.3), len(written)

        def due(kill=kill, end=end, before=before):
            new = len(rows_written(store)) - before
            return new > 1 or (time.monotonic() > end and (new > 0 or kill % 5))

        with command(*words, "--store", store) as process:
            wait_for(due, process)
            others = [each for each in alive_in_session(process.pid) if each != process.pid]
            if kill % 3 == 2 and others:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(draw.choice(others), signal.SIGKILL)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=0.2)  # and it goes on, until it is killed too
            interrupted += process.poll() is None
            with contextlib.suppress(ProcessLookupError):
                (os.kill if kill % 3 == 1 else os.killpg)(process.pid, signal.SIGKILL)
            process.communicate(timeout=240)
        wait_for(lambda process=process: not alive_in_session(process.pid))
        if store.exists():
            with Store(store, write=True) as opened:
                opened.finished()
            found = rows_written(store)
            assert {key: when for key, when in found.items() if key in written} == written
            written = found
    with command(*words, "--store", store) as process:
        _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err.decode()
    assert table(study.judge(store)) == table(study.judge(whole))
    found = rows_written(store)
    assert {key: when for key, when in found.items() if key in written} == written
    assert interrupted > KILLS // 2
    assert 0 < len(written) < len(found)
    assert [path.name for path in tmp_path.glob("killed.sqlite?*")] == ["killed.sqlite.networks"]
    networks = [{path.name for path in Path(f"{path}.networks").iterdir()} for path in (store, whole)]
    assert networks[0] == networks[1]


# --- full disks ---


@pytest.fixture(scope="module")
def plan():
    return study.plan("digits", ["single-task", "equal", "dwa"], seeds=45, epochs=1)


@pytest.fixture(scope="module")
def whole(plan, tmp_path_factory):
    """The table of a study with room enough."""
    return table(study.run(plan, tmp_path_factory.mktemp("whole") / "s.sqlite", progress=False, on=Told()))


@pytest.fixture
def disk(tmp_path):
    """A folder on a disk of so many bytes."""
    folder = tmp_path / "disk"

    def mount(size):
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip(f"no disk can be mounted here: {done.stderr.decode().strip()}")
        return folder

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", "--lazy", folder], check=True)


SIZES = [8_192, 24_576, 40_960, 65_536, 98_304, 163_840]


@pytest.mark.skipif(shutil.which("mount") is None, reason="mounts small disks")
@pytest.mark.parametrize("size", SIZES)
def test_on_a_full_disk_a_study_stops_and_goes_on_where_there_is_room(plan, whole, disk, size):
    store, engine = disk(size) / "s.sqlite", Told()
    with pytest.raises(StoreError, match=r"s\.sqlite"):
        study.run(plan, store, progress=False, on=engine)
    stored = len(engine.trained)
    assert stored < len(plan.trials)
    subprocess.run(["mount", "-o", "remount,size=8m", store.parent], check=True)
    engine = Told()
    assert table(study.run(plan, store, progress=False, on=engine)) == whole
    # The trial at which the disk was full is trained again, and no other.
    assert len(engine.trained) in (len(plan.trials) - stored, len(plan.trials) - stored + 1)
    assert [file.name for file in store.parent.iterdir()] == ["s.sqlite"]


# --- read-only ---


@pytest.fixture
def locked_up():
    """Stores in folders that this user may not write: one that was closed, one of a killed writer, and a part of its
    files. Of a last one the folder may be written, and the file may not.

    Root may write everywhere, and becomes somebody else for a while.
    """
    folder = Path(tempfile.mkdtemp())  # not below pytest's own, into which nobody else may look
    made, found = made_up.plan(seeds=1), {"left": 0.9, "right": 0.8}
    (folder / "closed").mkdir()
    with Store(folder / "closed" / "s.sqlite", write=True) as store:
        store.add_plan(made.to_dict())
        made_up.fill(store, made, {"single-task": [found], "equal": [found]})
        for name in ("killed", "copied"):
            shutil.copytree(folder / "closed", folder / name)
    (folder / "copied" / "s.sqlite-shm").unlink()
    shutil.copytree(folder / "closed", folder / "file")
    paths = list(folder.rglob("*"))
    for path in (*paths, folder):
        path.chmod(0o555)
    (folder / "file").chmod(0o777)
    render_page(study.judge(folder / "closed" / "s.sqlite"))  # whatever is imported late: nobody else may read it
    root = os.getuid() == 0
    if root:
        os.setresuid(65534, 65534, 0)
    try:
        yield folder
    finally:
        if root:
            os.setresuid(0, 0, 0)
        for path in (folder, *paths):
            path.chmod(0o755)
        shutil.rmtree(folder)


@pytest.mark.skipif(not hasattr(os, "setresuid"), reason="needs file modes as Linux has them")
def test_where_nothing_may_be_written_a_store_is_read_and_its_writers_are_told(locked_up):
    before = {path: (path.stat().st_mode, path.stat().st_size) for path in locked_up.rglob("*")}
    tables = {name: table(study.judge(locked_up / name / "s.sqlite")) for name in ("closed", "killed", "file")}
    assert tables["closed"] == tables["killed"] == tables["file"]
    with pytest.raises(StoreError, match=r"copied/s\.sqlite .*in s\.sqlite-wal can only be read in a folder that may"):
        study.judge(locked_up / "copied" / "s.sqlite")
    for name in ("closed", "killed", "copied"):
        with pytest.raises(StoreError, match=rf"cannot write beside the store .*{name}/s\.sqlite"):
            Store(locked_up / name / "s.sqlite", write=True)
    with pytest.raises(StoreError, match=r"file/s\.sqlite: attempt to write a readonly database"):
        Store(locked_up / "file" / "s.sqlite", write=True)
    with pytest.raises(StoreError, match="cannot make the folder"):
        Store(locked_up / "new" / "s.sqlite", write=True)
    with pytest.raises(OutputError, match=r"cannot write .*s\.html: Permission denied\. Choose another place"):
        check_outputs([(locked_up / "closed" / "s.html", PAGE)], locked_up / "closed" / "s.sqlite")
    assert {path: (path.stat().st_mode, path.stat().st_size) for path in locked_up.rglob("*")} == before
