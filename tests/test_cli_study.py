"""A whole study by the real command: results, resuming, Ctrl-C, failed trials, exports."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = [str(Path(sys.executable).with_name("steelyard"))]


@pytest.fixture
def run(tmp_path):
    def command(*words):
        return subprocess.run([*COMMAND, *words], cwd=tmp_path, capture_output=True, text=True, timeout=120)

    return command


def stored(path):
    """When each finished trial was written."""
    with sqlite3.connect(path) as connection:
        return dict(connection.execute("SELECT key, written FROM trial WHERE status = 'finished'"))


def finished(path):
    try:
        return len(stored(path))
    except sqlite3.OperationalError:  # not there yet
        return 0


def test_a_study_of_a_file_of_ones_own_with_missing_labels(run, tmp_path):
    words = ["compare", "mine.py", "--methods", "dwa", "--seeds", "2", "--epochs", "2", "--workers", "2"]
    assert run("new", "mine.py").returncode == 0
    first = run(*words)
    assert first.returncode == 0, first.stderr
    assert "Added for a fair comparison: single-task and equal." in first.stdout
    assert "high blood pressure" in first.stdout
    assert "Page: steelyard-mine.html" in first.stdout
    page = (tmp_path / "steelyard-mine.html").read_text()
    assert "steelyard compare mine.py --methods dwa --seeds 2" in page

    before = stored(tmp_path / "steelyard-mine.sqlite")
    assert len(before) == (3 + 1 + 1) * 2
    again = run(*words, "--fractions", "1.0")
    assert again.returncode == 0
    assert stored(tmp_path / "steelyard-mine.sqlite") == before

    exported = run("report", "steelyard-mine.sqlite", "--json", "out.json", "--csv", "out.csv")
    assert exported.returncode == 0, exported.stderr
    judgement = json.loads((tmp_path / "out.json").read_text())
    assert judgement["complete"] is True
    assert [task["name"] for task in judgement["tasks"]] == ["progression", "bmi", "pressure"]
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 1 + 3 * 3 * 2
    assert not (tmp_path / "steelyard-mine.sqlite.checkpoints").exists() or not list(
        (tmp_path / "steelyard-mine.sqlite.checkpoints").iterdir()
    )


def test_ctrl_c_says_how_to_go_on_and_the_same_command_does(run, tmp_path):
    words = ["compare", "digits", "--methods", "uw", "--seeds", "2", "--epochs", "8", "--workers", "1"]
    store = tmp_path / "steelyard-digits.sqlite"
    running = subprocess.Popen(
        [*COMMAND, *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 90
    while finished(store) < 2 and time.monotonic() < deadline and running.poll() is None:
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does, to the workers too
    _, err = running.communicate(timeout=30)
    assert running.returncode == 130, err
    assert "steelyard compare digits --methods uw --seeds 2 --epochs 8 --workers 1" in err
    assert "Traceback" not in err
    kept = stored(store)
    assert 2 <= len(kept) < 8

    resumed = run(*words)
    assert resumed.returncode == 0, resumed.stderr
    after = stored(store)
    assert len(after) == 8
    assert {key: after[key] for key in kept} == kept


def test_failed_trials_are_reported_and_the_exit_code_tells(run):
    result = run(
        *["compare", "digits", "--methods", "equal", "--seeds", "1", "--epochs", "1", "--workers", "2"],
        *["--learning-rate", "1e30"],
    )
    assert result.returncode == 1
    assert "lower the learning rate" in result.stdout.replace("\n", " ").replace("  ", " ")
    assert "Traceback" not in result.stderr
