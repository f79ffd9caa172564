"""Whole studies in real worker processes: resumed, interrupted, failing, watched."""

import re
import threading
import time

import pytest
from rich.console import Console
from rich.progress import Progress

from steelyard import study
from steelyard.errors import PlanError, StoreError
from steelyard.study.running.forecast import START
from steelyard.study.storage.trial_checkpoint import checkpoint_of, save_checkpoint
from study import made_up
from study.in_process import InProcess, MadeUp
from study.processes import rows_written, table, wait_for
from study.two_kinds import problem_text

# Able to warn and to fail on demand.
PREPARE = """
    time.sleep(0.002)
    if (HERE / "warn").exists():
        warnings.warn("told to warn")
    if (HERE / "fail").exists():
        raise ValueError("told to fail")
"""
PROBLEM = problem_text(PREPARE)
METHODS = ["single-task", "equal", "dwa"]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(PROBLEM)
    return path


def quiet(problem, store, **options):
    return study.compare(str(problem), options.pop("methods", METHODS), store=store, progress=False, **options)


def test_a_study_runs_is_kept_and_grows(file, tmp_path):
    store = tmp_path / "s.sqlite"
    first = quiet(file, store, seeds=2)
    assert first.complete
    assert (first.planned, first.finished, first.failures) == (8, 8, [])
    assert {c.method for c in first.cells} == set(METHODS)
    assert all(row.steps_per_second > 0 and row.seconds > 0 for row in first.rows)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("s.")) == ["s.sqlite"]

    written = rows_written(store)
    again = quiet(file, store, seeds=2)  # nothing to do: no trial is repeated
    assert table(again) == table(first)
    assert rows_written(store) == written
    assert repr(study.judge(store)) == repr(again)

    more = quiet(file, store, seeds=3, workers=1)
    assert (more.planned, more.finished) == (12, 12)
    assert {key: rows_written(store)[key] for key in written} == written


def test_a_checkpoint_that_a_kill_left_beside_its_stored_trial_goes(file, tmp_path):
    """The kill came between the two; neither a study with nothing left to train keeps it, nor one that grows."""
    store, folder = tmp_path / "s.sqlite", tmp_path / "s.sqlite.checkpoints"
    for methods in (["equal"], ["equal", "dwa"]):
        quiet(file, store, methods=["equal"], seeds=1)
        trial = study.plan(str(file), ["equal"], seeds=1).trials[0]
        save_checkpoint(checkpoint_of(folder, trial), trial, {"epoch": 1})
        quiet(file, store, methods=methods, seeds=1)
        assert not folder.exists()


def test_failed_trials_are_recorded_and_tried_again(file, tmp_path):
    plan = study.plan(str(file), ["equal"], seeds=2)
    (tmp_path / "fail").touch()
    found = study.run(plan, tmp_path / "s.sqlite", progress=False)
    assert [failure.error for failure in found.failures] == ["ValueError: told to fail"] * 2
    assert 'raise ValueError("told to fail")' in found.failures[0].traceback
    assert "mine.py" in found.failures[0].traceback
    assert not found.complete
    (tmp_path / "fail").unlink()
    found = study.run(plan, tmp_path / "s.sqlite", progress=False)
    assert found.failures == []
    assert found.complete


def test_progress_tells_trials_failures_and_time_left(file, tmp_path):
    plan = study.plan(str(file), ["equal"], seeds=2)
    (tmp_path / "fail").touch()
    with open(tmp_path / "out", "w") as out, Progress(console=Console(file=out, width=100), disable=False) as bar:
        study.run(plan, tmp_path / "s.sqlite", progress=bar)
        (task,) = bar.tasks
    assert task.description == "2 of 2 trials, 2 failed"
    assert task.finished
    assert "equal, seed 0 failed: ValueError: told to fail" in (tmp_path / "out").read_text()


def test_a_warning_in_the_workers_is_shown_once(file, tmp_path):
    plan = study.plan(str(file), ["equal"], seeds=3)
    (tmp_path / "warn").touch()
    with open(tmp_path / "out", "w") as out, Progress(console=Console(file=out, width=100)) as bar:
        assert study.run(plan, tmp_path / "s.sqlite", progress=bar).complete
    assert (tmp_path / "out").read_text().count("equal: told to warn") == 1


def test_a_report_can_be_made_while_the_study_runs(tmp_path):
    plan, store, go_on = made_up.plan(methods=("equal", "dwa"), seeds=2), tmp_path / "s.sqlite", threading.Semaphore(0)

    class StepByStep(MadeUp):
        def told(self, trials):
            assert go_on.acquire(timeout=240)
            return super().told(trials)

    seen, too_early = [], []

    def read():
        """What a report finds at any moment: before there is a store, while it is made, between any two trials."""
        try:
            seen.append(study.judge(store).finished)
        except StoreError as error:
            too_early.append(str(error))
            assert not seen
        return seen[-1] if seen else 0

    options = {"progress": False, "on": StepByStep()}
    thread = threading.Thread(target=study.run, args=(plan, store), kwargs=options)
    thread.start()
    for finished in range(1, 5):
        go_on.release()
        wait_for(lambda finished=finished: read() == finished)
    thread.join()
    assert not [text for text in too_early if not re.search("there is no store|is empty|holds no plan", text)]
    assert seen == sorted(seen)
    assert study.judge(store).complete


def test_an_edit_while_running_is_noticed(file, tmp_path):
    plan = study.plan(str(file), ["equal"], seeds=1)
    file.write_text(file.read_text() + "\n# changed\n")
    found = study.run(plan, tmp_path / "s.sqlite", progress=False)
    assert "was changed while the study was running" in found.failures[0].error


def test_an_edited_problem_is_trained_anew_and_says_so(file, tmp_path):
    first = quiet(file, tmp_path / "s.sqlite", methods=["equal"], seeds=1)
    file.write_text(file.read_text().replace("nn.Linear(4, 8)", "nn.Linear(4, 8, bias=False)"))
    with open(tmp_path / "out", "w") as out, Progress(console=Console(file=out, width=100)) as bar:
        second = study.compare(str(file), ["equal"], seeds=1, store=tmp_path / "s.sqlite", progress=bar)
    assert table(first) != table(second)
    assert "Trained with other code or data: 1 trial." in (tmp_path / "out").read_text()


def test_no_worker_is_refused(file, tmp_path):
    with pytest.raises(PlanError, match="workers=0"):
        quiet(file, tmp_path / "s.sqlite", workers=0)


def test_the_estimate_counts_what_is_left(file, tmp_path, monkeypatch):
    """By a clock on which nothing takes time but the problem's sleep at every batch."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "process_time", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    plan, store = study.plan(str(file), METHODS, seeds=2), tmp_path / "s.sqlite"
    before = study.estimate(plan, store, workers=1)
    assert (before.trials, before.finished, before.failed) == (8, 0, 0)
    assert before.disk > 0
    started = now[0]
    study.run(plan, store, on=InProcess(), progress=False)
    assert before.seconds - 8 * START == pytest.approx(now[0] - started, rel=0.3)
    after = study.estimate(plan, store)
    assert (after.finished, after.seconds) == (8, 0.0)
