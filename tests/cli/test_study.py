"""Whole studies by the command: results, exports, Ctrl-C and going on, failed trials."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from study.processes import hear_interrupts, wait_for


def finished(store):
    """When each finished trial was written; nothing where there is no store yet."""
    try:
        with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as connection:
            return dict(connection.execute("SELECT key, written FROM trial WHERE status = 'finished'"))
    except sqlite3.OperationalError:
        return {}


def in_the_middle(store):
    """One trial is finished and another one has left a checkpoint, which it does after a second of several."""
    done = finished(store)
    running = {path.stem for path in Path(f"{store}.checkpoints").glob("*.pt")}
    return bool(done) and bool(running - set(done))


@pytest.mark.takes("the command trains in workers, and its page is written")
def test_a_study_of_a_file_of_ones_own_with_missing_labels(run, tmp_path):
    assert run("new", "mine.py")[0] == 0
    words = ["compare", "mine.py", "--methods", "dwa", "--seeds", "2", "--epochs", "2", "--workers", "2"]
    code, out, err = run(*words)
    assert code == 0, err
    assert "Added for a fair comparison: single-task and equal." in out
    assert "high blood pressure" in out
    assert "Page: steelyard-mine.html" in out
    assert "steelyard compare mine.py" in Path("steelyard-mine.html").read_text()
    assert len(finished("steelyard-mine.sqlite")) == (3 + 1 + 1) * 2
    # Nothing is left but the files that were asked for.
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {
        *("mine.py", "steelyard-mine.html", "steelyard-mine.sqlite")
    }

    code, out, err = run("report", "steelyard-mine.sqlite", "--json", "out/all.json", "--csv", "values.csv")
    assert code == 0, err
    assert "high blood pressure" in out
    judgement = json.loads(Path("out/all.json").read_text())
    assert judgement["complete"] is True
    assert judgement["command"] == "steelyard compare mine.py --methods dwa --seeds 2 --epochs 2 --workers 2"
    assert [task["name"] for task in judgement["tasks"]] == ["progression", "bmi", "pressure"]
    further = sum(len(other["values"]) for other in judgement["others"])
    assert further
    assert len(Path("values.csv").read_text().splitlines()) == 1 + 3 * 3 * 2 + further

    Path("steelyard-mine.html").unlink()
    assert run("report", "steelyard-mine.sqlite")[0] == 0
    assert Path("steelyard-mine.html").is_file()


@pytest.mark.takes("the command trains two studies in workers, and is run six times")
def test_few_test_rows_are_divided_anew_by_default_and_a_study_that_goes_on_keeps_its_own(run):
    assert run("new", "mine.py")[0] == 0
    words = ["compare", "mine.py", "--methods", "equal", "--seeds", "2", "--epochs", "1", "--workers", "1"]

    def resplit():
        with sqlite3.connect("file:steelyard-mine.sqlite?mode=ro", uri=True) as connection:
            (content,) = connection.execute("SELECT content FROM plan ORDER BY rowid DESC LIMIT 1").fetchone()
        return json.loads(content)["resplit"]

    said = "every seed has its own division"
    assert said in " ".join(run(*words, "--dry-run")[1].split())
    assert said not in " ".join(run(*words, "--dry-run", "--no-resplit")[1].split())
    assert run(*words, "--no-resplit")[0] == 0
    first = finished("steelyard-mine.sqlite")
    code, out, _ = run(*words)  # as earlier versions began it, and the same command goes on
    assert (code, resplit(), finished("steelyard-mine.sqlite")) == (0, False, first)
    assert said not in " ".join(out.split())
    assert run(*words, "--resplit")[0] == 0
    both = finished("steelyard-mine.sqlite")
    assert len(both) == 2 * len(first)
    assert run(*words)[0] == 0
    assert (resplit(), finished("steelyard-mine.sqlite")) == (True, both)
    # In a store that holds another problem's study the rule decides.
    assert said in " ".join(run("compare", "mine.py", *words[2:], "--dry-run", "--store", "other.sqlite")[1].split())


SLOW = """
import dataclasses, time
from steelyard.problems.builtin.digits import problem as digits
def prepare(inputs):
    time.sleep(0.004)
    return inputs
problem = dataclasses.replace(digits, name="slow", prepare=prepare)
"""


@pytest.mark.slow("a real study is stopped, and goes on")
def test_ctrl_c_says_how_to_go_on_and_the_same_command_does(run, tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)  # two seconds of sleep a trial, on any machine
    words = ["compare", "slow.py", "--methods", "equal", "--seeds", "1", "--epochs", "20", "--workers", "1"]
    store = tmp_path / "steelyard-slow.sqlite"
    running = subprocess.Popen(
        [str(Path(sys.executable).with_name("steelyard")), *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hear_interrupts,
    )
    wait_for(lambda: in_the_middle(store), running)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to the workers too
    _, err = running.communicate(timeout=240)
    assert running.returncode == 130, err
    assert "steelyard compare slow.py --methods equal --seeds 1 --epochs 20 --workers 1" in err
    assert "Traceback" not in err
    kept = finished(store)
    assert 1 <= len(kept) < 3

    code, _, err = run(*words)
    assert code == 0, err
    after = finished(store)
    assert len(after) == 3
    assert {key: after[key] for key in kept} == kept


def test_failed_trials_are_told_with_their_error_and_by_the_exit_code(run):
    code, out, err = run(
        *["compare", "digits", "--methods", "equal", "--seeds", "1", "--epochs", "1", "--workers", "2"],
        *["--learning-rate", "1e30"],
    )
    assert code == 1
    assert "Failed trials: 3" in out
    assert "Traceback" not in out + err
