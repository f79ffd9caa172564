"""What holds wherever the trials run: the same table, stopped and gone on, killed, lost, on a full disk.

Without Ray and submitit, those of `local` alone; `make test-integrations` has them all.
"""

import importlib.util
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors.torch import load_file

from steelyard import cli, study
from steelyard.errors import StoreError, StoreLockedError
from steelyard.reproductions import REPRODUCTIONS
from steelyard.study.storage.store import Store
from study.processes import alive_in_session, hear_interrupts, rows_written, table, wait_for
from study.two_kinds import problem_text

ENGINES = {"local": "multiprocessing", "ray": "ray", "slurm(cluster=local)": "submitit"}
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(
    params=[
        pytest.param(
            on,
            id=on.partition("(")[0],
            marks=pytest.mark.skipif(
                importlib.util.find_spec(needs) is None, reason=f"{needs} is not installed: make test-integrations"
            ),
        )
        for on, needs in ENGINES.items()
    ]
)
def on(request, monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return request.param


# Able to fail, to die on demand once or always, in the worker and never in the process of this test.
PREPARE = """
    if os.getpid() != int((HERE / "spared").read_text()):
        try:
            (HERE / "die once").unlink()  # one of several workers alone succeeds
            told_to_die = True
        except FileNotFoundError:
            told_to_die = (HERE / "die always").exists()
        if told_to_die:
            os.kill(os.getpid(), 9)
    if (HERE / "fail").exists():
        raise ValueError("told to fail")
"""
PROBLEM = problem_text(PREPARE, imports="from engine_helper import WIDTH", width="WIDTH")


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "engine_helper.py").write_text("WIDTH = 8\n")
    (tmp_path / "spared").write_text(str(os.getpid()))
    (tmp_path / "mine.py").write_text(PROBLEM)
    yield tmp_path / "mine.py"
    sys.modules.pop("engine_helper", None)


def quiet(problem, store, methods=("single-task", "equal", "dwa"), **options):
    return study.compare(str(problem), list(methods), store=store, progress=False, **options)


def left_behind(folder):
    """What a study leaves beside its store."""
    return sorted(path.name for path in folder.glob("s.sqlite?*"))


def test_the_same_trials_give_the_same_table_with_any_number_of_workers(file, tmp_path, on):
    here = quiet(file, tmp_path / "here", seeds=1, workers=1, keep="all")
    there = quiet(file, tmp_path / "s.sqlite", seeds=1, workers=16, on=on, keep="all")
    assert there.complete
    assert table(there) == table(here)
    assert left_behind(tmp_path) == ["s.sqlite.networks"]
    networks = [
        {path.name: load_file(path) for path in (tmp_path / folder).iterdir()}
        for folder in ("here.networks", "s.sqlite.networks")
    ]
    assert networks[0].keys() == networks[1].keys()
    assert len(networks[0]) == 4
    for name, state in networks[0].items():
        assert all(torch.equal(value, networks[1][name][part]) for part, value in state.items())


def test_a_worker_that_is_killed_once_changes_nothing(file, tmp_path, on):
    whole = quiet(file, tmp_path / "whole", methods=["equal"], seeds=2)
    (tmp_path / "die once").touch()
    again = quiet(file, tmp_path / "s.sqlite", methods=["equal"], seeds=2, on=on, workers=2)
    assert not (tmp_path / "die once").exists()
    assert table(again) == table(whole)


def test_a_worker_that_is_killed_every_time_costs_its_trial_only(file, tmp_path, on):
    plan = study.plan(str(file), ["equal"], seeds=1)
    (tmp_path / "die always").touch()
    found = study.run(plan, tmp_path / "s.sqlite", progress=False, on=on, workers=1)
    (failure,) = found.failures
    assert failure.error.startswith("lost 3 times: ")
    assert failure.traceback == ""
    if on == "local":
        assert "was killed by signal 9 (signal 9 often means that the memory was used up" in failure.error


def test_an_error_of_the_problem_fails_its_trial_at_once(file, tmp_path, on):
    plan = study.plan(str(file), ["equal"], seeds=1)
    (tmp_path / "fail").touch()
    found = study.run(plan, tmp_path / "s.sqlite", progress=False, on=on, workers=1)
    (failure,) = found.failures
    assert failure.error == "ValueError: told to fail"
    assert 'raise ValueError("told to fail")' in failure.traceback


def test_a_disk_that_takes_no_checkpoint_stops_the_study_and_keeps_what_is_finished(file, tmp_path, on):
    store = tmp_path / "s.sqlite"
    quiet(file, store, methods=["equal"], seeds=1)
    (tmp_path / "s.sqlite.checkpoints").write_text("in the way")
    with pytest.raises(StoreError, match="cannot write the checkpoint"):
        quiet(file, store, methods=["equal"], seeds=1, epochs=400, on=on)
    assert len(rows_written(store)) == 1
    assert left_behind(tmp_path) == ["s.sqlite.checkpoints"]


def test_a_store_without_room_stops_the_study_which_goes_on_when_there_is_some(file, tmp_path, on, monkeypatch):
    store, add_result = tmp_path / "s.sqlite", Store.add_result

    def add_to_the_full(self, *values):
        if self.finished():  # SQLite's own limit on pages gives the very error of a full disk
            connection = self._database.connection
            connection.execute(f"PRAGMA max_page_count={connection.execute('PRAGMA page_count').fetchone()[0]}")
        add_result(self, *values)

    monkeypatch.setattr(Store, "add_result", add_to_the_full)
    with pytest.raises(StoreError, match="is full: free some space"):
        quiet(file, store, methods=["equal"], seeds=4, epochs=40, on=on, workers=2)
    monkeypatch.setattr(Store, "add_result", add_result)
    written = rows_written(store)
    assert 0 < len(written) < 4
    assert left_behind(tmp_path) in ([], ["s.sqlite.checkpoints"])
    again = quiet(file, store, methods=["equal"], seeds=4, epochs=40, on=on, workers=2)
    assert again.complete
    assert {key: when for key, when in rows_written(store).items() if key in written} == written  # none repeated


def test_a_second_study_on_the_same_store_is_refused_whatever_runs_it(file, tmp_path, on):
    plan = study.plan(str(file), ["equal"], seeds=1)
    with (
        Store(tmp_path / "s.sqlite", write=True),
        pytest.raises(StoreLockedError, match=f"process {os.getpid()}"),
    ):
        study.run(plan, tmp_path / "s.sqlite", progress=False, on=on)


@pytest.mark.slow("a reproduction is trained twice, and Slurm's jobs start a Python each")
def test_a_reproduction_says_the_same_anywhere(tmp_path, on, monkeypatch):
    monkeypatch.setitem(REPRODUCTIONS, "tiny", "reproductions.tiny")
    here, there = (reproduced(tmp_path / name, where, monkeypatch) for name, where in (("a", "local"), ("b", on)))
    assert "`equal@mmoe(experts=2)`" in here
    assert "**undecided**: On Few labels: the plain sum" in here
    assert there == here


def reproduced(folder, on, monkeypatch):
    """What its section says of anything but times and machines."""
    words = ["reproduce", "tiny", "--quick", "--seeds", "2", "--workers", "2", "--markdown", "section.md", "--on", on]
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["steelyard", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    lines, timed = [], None
    for line in (folder / "section.md").read_text().splitlines():
        cells = [cell.strip(" |") for cell in line.split(" | ")]
        timed = cells.index("time ×") if "time ×" in cells else timed if line.startswith("|") else None
        if timed is not None:
            line = " | ".join(cell for place, cell in enumerate(cells) if place != timed)
        if "steelyard reproduce" not in line and "torch " not in line:
            lines.append(line)
    return "\n".join(lines)


# --- stops: real processes, real signals ---

# It may kill itself or its whole group when its first result comes, and just before or after that is stored.
SCRIPT = """
    import os, signal, sys
    from steelyard import study
    from steelyard.study.storage.store import Store
    if sys.argv[4].startswith("slurm"):
        from steelyard.study.running.engines import on_slurm
        on_slurm.PATIENCE = 2.0
    add_result = Store.add_result
    def add_and_die(self, *values):
        if sys.argv[5] == "alone, before":
            os.kill(os.getpid(), signal.SIGKILL)
        add_result(self, *values)
        if sys.argv[5] == "all, after":
            os.killpg(0, signal.SIGKILL)
    Store.add_result = add_and_die
    study.compare(sys.argv[1], ["single-task", "random"], seeds=1, epochs=int(sys.argv[3]), store=sys.argv[2],
                  on=sys.argv[4], workers=2, progress=False)
    print("done", flush=True)
"""


def start(problem, store, epochs, on, dies=""):
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(problem), str(store), str(epochs), on, dies]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, preexec_fn=hear_interrupts
    )


@pytest.fixture
def slow_digits(tmp_path):
    """The digits, so slow that on any machine an epoch takes 0.1 s and a trial of 12 epochs is caught in the act."""
    path = tmp_path / "slow_digits.py"
    path.write_text(
        "import dataclasses, time\n"
        "from steelyard.problems.builtin.digits import problem as digits\n"
        "def prepare(inputs):\n"
        "    time.sleep(0.004)\n"
        "    return inputs\n"
        'problem = dataclasses.replace(digits, name="slow", prepare=prepare)\n'
    )
    return path


linux = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="reads process states from /proc")


@linux
@pytest.mark.slow("studies in processes of their own, killed again and again")
def test_killed_again_and_again_gives_the_same_table(slow_digits, tmp_path, on):
    """kill -9 of the parent alone, then of the whole group; the same command goes on at once, and orphans end."""
    epochs, store = 12, tmp_path / "killed.sqlite"
    checkpoints = tmp_path / "killed.sqlite.checkpoints"
    methods = ["single-task", "random"]  # three trials
    whole = quiet(slow_digits, tmp_path / "whole", methods, seeds=1, epochs=epochs)

    with start(slow_digits, store, epochs, on, "alone, before") as first:
        first.wait(timeout=400)
    assert first.returncode == -signal.SIGKILL
    assert not rows_written(store)
    assert list(checkpoints.glob("*.pt"))

    with start(slow_digits, store, epochs, on, "all, after") as second:
        second.wait(timeout=400)
    assert second.returncode == -signal.SIGKILL
    written = rows_written(store)
    assert len(written) == 1

    with start(slow_digits, store, epochs, on) as process:
        out, err = process.communicate(timeout=400)
    assert out == b"done\n", err.decode()
    assert table(study.judge(store)) == table(whole)
    assert {key: when for key, when in rows_written(store).items() if key in written} == written  # none repeated
    for killed in (first, second):
        wait_for(lambda killed=killed: not alive_in_session(killed.pid))
    assert not list(tmp_path.glob("killed.sqlite?*"))


@linux
@pytest.mark.takes("workers start, train and are told to stop")
def test_ctrl_c_stops_the_workers_and_keeps_checkpoints(slow_digits, tmp_path, on):
    store = tmp_path / "s.sqlite"
    checkpoints = tmp_path / "s.sqlite.checkpoints"
    with start(slow_digits, store, 1000, on) as process:
        wait_for(lambda: list(checkpoints.glob("*.pt")), process)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, err = process.communicate(timeout=400)
    assert err.decode().count("KeyboardInterrupt") == 1, err.decode()  # the parent's own; workers say nothing
    wait_for(lambda: not alive_in_session(process.pid))
    assert list(checkpoints.glob("*.pt"))
    Store(store, write=True).close()  # not locked
    assert study.judge(store).finished == 0
