"""The leaderboard by the command: announced, trained, exported, stopped and gone on with, added to, trained again."""

import dataclasses
import json
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest

from steelyard.reproductions.leaderboard import run_board, time_limit
from steelyard.reproductions.leaderboard.board import Board
from steelyard.reproductions.leaderboard.board_answer import points
from steelyard.reproductions.leaderboard.board_results import read, write
from steelyard.study import Estimate
from steelyard.study.analysis.statistics import interval
from study.in_process import InProcess

TINY = """
import torch
from torch import nn
from steelyard.problems import Problem, regression, split

x = torch.randn(60, 3, generator=torch.Generator().manual_seed(1))
problem = Problem(
    "tiny",
    tasks=[regression("sum"), regression("first")],
    load=lambda: split(x, {"sum": x.sum(1) + 0.1 * x[:, 0] ** 2, "first": 5 * x[:, 0]}),
    trunk=lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh()),
    head=lambda task: nn.Linear(4, 1),
    batch_size=16,
    epochs=2,
)
"""
MINE = """
import steelyard

class Half(steelyard.Balancer):
    name = "half"

    def __init__(self, tasks, *, part=0.5, **common):
        super().__init__(tasks, **common)
        self.part = part

    def weigh(self, seen, state):
        return seen.losses * 0 + self.part

class Breaks(Half):
    def weigh(self, seen, state):
        self.calls = getattr(self, "calls", 0) + 1
        if self.calls > 2:
            raise RuntimeError("broken in the third step")
        return seen.losses * 0 + 1
"""
WORDS = ("leaderboard", "--problems", "tiny.py", "--seeds", "2", "--workers", "1")
SMALL = ("leaderboard", "--problems", "tiny.py", "--seeds", "1", "--workers", "1", "--quick")


@pytest.fixture
def engine(monkeypatch):
    """Trials train in this process."""
    engine = InProcess()
    monkeypatch.setattr("steelyard.study.running.engines.load_engine", lambda text: engine)
    return engine


@pytest.fixture
def board(run, engine, monkeypatch, tmp_path):
    """The command in a folder with a tiny problem and methods of one's own; what is printed is on one line."""
    found = Estimate(trials=47, finished=0, failed=0, seconds=100.0, disk=2**20, least=80.0, most=250.0)
    monkeypatch.setattr(run_board, "estimate", lambda *made, **asked: found)  # it times real steps, and takes seconds
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "their_rows", raising=False)
    Path("tiny.py").write_text(textwrap.dedent(TINY))
    Path("their_rows.py").write_text(textwrap.dedent(MINE))

    def command(*words):
        engine.trained.clear()
        code, out, err = run(*words)
        return code, " ".join(out.split()), " ".join(err.split())

    return command


FILE = Path("leaderboard/tiny.py.json")


def test_a_dry_run_says_what_would_be_trained(board, engine):
    code, out, err = board(*WORDS, "--methods", "uw,equal@mmoe(experts=2)", "--dry-run")
    assert code == 0, err
    assert "tiny.py other 2 5 2 2 3 to 5 47 0 1 min 20 s to 4 min 10 s" in out
    assert "Nothing was trained or written." in out
    assert not engine.trained
    assert {path.name for path in Path().iterdir() if path.suffix != ".pyc"} - {"__pycache__"} == {
        *("tiny.py", "their_rows.py")
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--from", "results", "--dry-run", "--seeds", "3"], "--from trains nothing: leave out --seeds and --dry-run"),
        (["--from", "results", "--recheck", "1"], "--from trains nothing: leave out --recheck"),
        (["--recheck", "1", "--dry-run", "--page", "p.html"], "writes nothing: leave out --page and --dry-run"),
        (["--recheck", "0.5"], "leaderboard holds no results of the leaderboard"),
    ],
)
def test_what_answers_or_rechecks_takes_no_options_of_a_training(board, engine, words, said):
    code, _, err = board("leaderboard", *words)
    assert code == 2
    assert said in err
    assert not engine.trained


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--hours", "0"], "--hours 0: give a number above 0"),
        (["--recheck", "1.5"], "--recheck 1.5: give a share of all trials"),
        (["--problems", "digitz"], "unknown problem 'digitz'. Did you mean 'digits'?"),
        (["--problems", "digits,digits"], "--problems names 'digits' twice"),
        (["--problems", "digits,"], "--problems: an empty entry"),
        (["--methods", "uww"], "unknown method 'uww'"),
        (["--methods", "gcs"], "gcs cannot be trained on tiny.py: gcs serves one main task"),
        (["--add", "their_rowz:Half"], "there is no module 'their_rowz'"),
        (["--add", "their_rows:Hal"], "Did you mean 'Half'?"),
        (["--methods", "uw", "--export", "tiny.py"], "--export tiny.py is a file: name a folder"),
        (["--seeds", "x"], "--seeds 'x'"),
        (["--workers", "0"], "workers=0"),
        (["--store", "."], "the store . is a folder"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(board, engine, words, said):
    code, _, err = board(*WORDS, *words)
    assert code == 2
    assert said in err
    assert not engine.trained
    assert not Path("leaderboard").exists()


@pytest.mark.takes("forty tiny networks are trained, and some of them again")
def test_train_export_add_and_train_again(board, engine, monkeypatch):
    code, _, err = board(*WORDS, "--methods", "uw")
    assert code == 0, err
    whole, found = len(engine.trained), read(FILE)
    assert [(task.metric, task.trivial) for task in found.tasks] == [("R²", 0.0)] * 2
    for seed in (seed for row in found.rows for seed in row.per_seed.values()):
        assert set(seed.reached) == set(seed.test)
        assert all(seed.validation[task] <= best for task, (_, best) in seed.reached.items())
    assert [row.name for row in found.rows] == ["single-task", "equal", "best-fixed", "uw"]
    assert [row.group for row in found.rows] == ["single", "sum", "fixed", "method"]
    assert (found.seeds, found.epochs, len(found.rates), len(found.tuning_seeds)) == ((0, 1), 2, 3, 3)
    assert not set(found.seeds) & set(found.tuning_seeds)
    assert found.facts["train_rows"] == 36
    assert found.facts["missing_labels"] == 0
    assert found.facts["loss_scales"] > 5
    for row in found.rows:
        assert set(row.per_seed) == {0, 1}
        assert row.failed is None
        assert row.seconds_per_step > 0
    single, uw = found.rows[0], found.rows[3]
    assert (single.per_seed[0].steps, uw.per_seed[0].steps) == (12, 6)
    assert set(single.chosen["learning_rate"]) == {"sum", "first"}
    # It wants a larger rate than those that all try, and has it.
    assert (found.beyond, uw.chosen["learning_rate"]) == (2, 0.0316)
    assert max(found.rates) == 0.00316
    # What the file says is what the study found, in full.
    from steelyard.study.planning.plan import Plan
    from steelyard.study.storage.store import Store

    with Store("leaderboard.sqlite") as store:
        plan = Plan.from_dict(store.latest_plan())
        (trial,) = plan.trials_of("uw", 0, 1)
        result = store.results([trial])[trial]
    assert uw.per_seed[1].test == {task: values[0] for task, values in result.test.items()}
    assert uw.per_seed[1].validation["sum"] == result.curves.validation["sum"][result.chosen_epoch - 1]

    text = FILE.read_text()
    assert board(*WORDS, "--methods", "uw")[0] == 0
    assert (len(engine.trained), FILE.read_text()) == (0, text)

    # A row more, with neither the store nor the seeds and rates said again.
    code, out, err = board(
        *("leaderboard", "--add", "their_rows:Half(part=0.25)", "--store", "other.sqlite", "--workers", "1")
    )
    assert code == 0, err
    gained = points(interval(Board([read(FILE)]).samples("sum")[0]["their_rows:Half(part=0.25)"]))
    assert "their_rows:Half(part=0.25) on tiny.py: " in out
    assert f"{gained} over the tuned plain sum" in out
    assert out.count("points") == 3, "and over single tasks and the best fixed weights"
    more = read(FILE)
    further = {0.00316: 1, 0.01: 2, 0.0316: 2}.get(more.rows[4].chosen["learning_rate"], 0)
    assert len(engine.trained) == (3 + further) * 3 + 2 < whole
    assert more.rows[:4] == found.rows
    added = more.rows[4]
    assert (added.name, added.group, set(added.per_seed)) == ("their_rows:Half(part=0.25)", "method", {0, 1})
    assert more.trained_seconds > found.trained_seconds + added.per_seed[0].seconds + added.per_seed[1].seconds
    assert (more.seeds, more.rates, more.command) == (found.seeds, found.rates, found.command)

    # Other budgets and other results do not stand beside them, and overwrite nothing.
    text = FILE.read_text()
    code, _, err = board(*WORDS[:3], "--methods", "uw", "--seeds", "3")
    assert (code, len(engine.trained)) == (2, 0)
    assert "seeds (0, 1) in place of (0, 1, 2)" in err
    assert "not overwritten" in err
    code, _, err = board(*WORDS, "--quick", "--methods", "uw")
    assert code == 2
    assert "epochs 2 in place of 1" in err
    assert FILE.read_text() == text

    code, part, _ = board("leaderboard", "--recheck", "0.2", "--problems", "tiny.py", "--workers", "1")
    assert (code, part.count("agrees exactly")) == (0, 2)
    assert part == board("leaderboard", "--recheck", "0.2", "--workers", "1")[1]

    there = read(FILE)
    wrong = dataclasses.replace(there.rows[3].per_seed[1], test={"sum": 0.5, "first": 0.5})
    uw = dataclasses.replace(there.rows[3], per_seed={**there.rows[3].per_seed, 1: wrong})
    write(dataclasses.replace(there, rows=(*there.rows[:3], uw, there.rows[4])), FILE)
    code, out, _ = board("leaderboard", "--recheck", "1", "--workers", "1")
    assert code == 1
    assert "tiny.py, uw, seed 1: differs by" in out
    assert out.count("agrees exactly") == 9
    assert "9 of 10 agree." in out
    assert len(engine.trained) == 2 * 6
    text = FILE.read_text()
    code, _, err = board(*WORDS, "--methods", "uw")
    assert code == 2
    assert "has other results of 'uw'" in err
    assert FILE.read_text() == text


@pytest.mark.takes("forty tiny networks are trained, in two goes")
def test_a_run_that_is_out_of_time_says_how_to_go_on_and_goes_on(board, engine, monkeypatch):
    ticks = iter(range(10**9))
    with monkeypatch.context() as clock:
        clock.setattr(time_limit, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))
        code, out, err = board(*SMALL, "--methods", "uw", "--hours", str(15 / 3600))
    assert code == 0, err
    assert "go on with the same command: steelyard leaderboard --problems tiny.py" in out
    assert not FILE.exists()
    first = len(engine.trained)
    assert first
    assert board(*SMALL, "--methods", "uw")[0] == 0
    rest, stopped = len(engine.trained), FILE.read_text()
    assert rest > 0
    FILE.unlink()
    Path("leaderboard.sqlite").unlink()
    assert board(*SMALL, "--methods", "uw")[0] == 0
    assert len(engine.trained) < first + rest <= len(engine.trained) + 2  # what ran at the end is run once more

    def values(text):
        return [{seed: found["test"] for seed, found in row["per_seed"].items()} for row in json.loads(text)["rows"]]

    assert values(stopped) == values(FILE.read_text())


@pytest.mark.slow("twenty tiny networks are trained, and some of them again")
def test_a_row_that_fails_is_told_and_keeps_its_reason(board):
    code, _, err = board(*SMALL, "--methods", "their_rows:Breaks")
    assert code == 1
    assert "Failed: their_rows:Breaks on tiny.py: 1 of 1 trainings: RuntimeError: broken in the third step" in err
    row = read(FILE).rows[3]
    assert (row.per_seed, row.failed) == ({}, "1 of 1 trainings: RuntimeError: broken in the third step")
    code, out, err = board("leaderboard", "--recheck", "1", "--workers", "1")
    assert code == 0, err
    assert "3 of 3 agree." in out


@pytest.mark.slow("workers train real digits, are killed and go on; and by another optimizer")
def test_killed_and_gone_on_with_it_is_the_same_and_every_row_is_trained(run, tmp_path):
    import os
    import signal
    import subprocess

    from study.processes import rows_written, wait_for

    words = ["leaderboard", "--problems", "digits", "--quick", "--seeds", "1", "--workers", "1"]
    store = tmp_path / "leaderboard.sqlite"
    running = subprocess.Popen(
        [str(Path(sys.executable).with_name("steelyard")), *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_for(lambda: len(rows_written(store)) > 20, running)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    kept = rows_written(store)
    code, _, err = run(*words)
    assert code == 0, err
    assert {key: rows_written(store)[key] for key in kept} == kept
    found = read("leaderboard/digits.json")
    assert not [row.failed for row in found.rows if row.failed]
    assert {"mmoe", "mtan", "uw, SGD", "mgda(look=trunk)", "moco"} <= {row.name for row in found.rows}
    code, out, err = run("leaderboard", "--recheck", "0.1", "--workers", "1")
    assert code == 0, out + err
    assert "exactly" in out
