"""Ensembles in a study's worker processes: the same table, stopped and resumed, and what cannot be one."""

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap

import pytest

from steelyard import study
from steelyard.study.storage.store import Store

# Many tasks with gaps of their own; slow and deadly on demand.
PROBLEM = """
    import os, time
    from pathlib import Path
    import torch
    from torch import nn
    from steelyard.problems import Data, Problem, Split, regression

    HERE = Path(__file__).parent

    def load():
        generator = torch.Generator().manual_seed(0)
        def split(rows):
            x = torch.randn(rows, 4, generator=generator, dtype=torch.float64)
            y = {}
            for k in range(26):
                y[f"t{k}"] = (x @ torch.randn(4, generator=generator, dtype=torch.float64)).sin()
                y[f"t{k}"][torch.rand(rows, generator=generator) < 0.05 * (k % 5)] = torch.nan
            return Split(x, y)
        return Data(split(96), split(60), split(60))

    def prepare(inputs):
        if (HERE / "slow").exists():
            time.sleep(0.02)
        if (HERE / "die").exists() and os.getppid() != int((HERE / "die").read_text()):
            os.kill(os.getpid(), 9)
        return inputs

    def trunk():
        layers = [nn.Linear(4, 8), nn.Tanh()]
        if (HERE / "normal").exists():
            layers.append(nn.BatchNorm1d(8))
        return nn.Sequential(*layers).double()

    problem = Problem(
        "many",
        tasks=[regression(f"t{k}") for k in range(26)],
        load=load,
        trunk=trunk,
        head=lambda task: nn.Linear(8, 1).double(),
        prepare=prepare,
        batch_size=16,
        epochs=3,
    )
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "many.py"
    path.write_text(textwrap.dedent(PROBLEM))
    return path


def run(file, store, epochs=3, workers=2):
    return study.compare(
        str(file), ["single-task"], seeds=1, epochs=epochs, store=store, workers=workers, progress=False
    )


def found(file, store, epochs=3):
    plan = study.plan(str(file), ["single-task"], seeds=1, epochs=epochs)
    with Store(store) as opened:
        return {trial.tasks[0]: result for trial, result in opened.results(plan.trials).items()}


def alone(monkeypatch):
    monkeypatch.setattr(
        "steelyard.study.running.send_to_engine.groups", lambda trials, workers: [(trial,) for trial in trials]
    )


def assert_same(first, second, tolerance):
    assert first.keys() == second.keys()
    for task, result in first.items():
        other = second[task]
        assert (result.chosen_epoch, result.steps) == (other.chosen_epoch, other.steps)
        assert result.test[task] == pytest.approx(other.test[task], rel=tolerance)
        for curve in ("losses", "validation"):
            expected = getattr(other.curves, curve)[task]
            assert getattr(result.curves, curve)[task] == pytest.approx(expected, rel=tolerance)


def rows_written(store):
    with sqlite3.connect(store) as connection:
        return dict(connection.execute("SELECT key, written FROM trial WHERE status = 'finished'").fetchall())


@pytest.mark.takes("workers start, for three studies")
def test_a_study_of_ensembles_is_that_of_single_networks(file, tmp_path, monkeypatch):
    together = []
    for workers in (1, 2):
        store = tmp_path / f"together by {workers}"
        judged = run(file, store, epochs=2, workers=workers)
        assert judged.complete
        assert judged.rows[0].seconds > 0
        together.append(found(file, store, 2))
        assert len({result.seconds for result in together[-1].values()}) < 26  # shares of common times
        assert not store.with_name(f"{store.name}.checkpoints").exists()
    alone(monkeypatch)
    run(file, tmp_path / "alone", epochs=2)
    for each in together:
        assert_same(each, found(file, tmp_path / "alone", 2), 1e-10)


@pytest.mark.takes("workers start, for two studies")
def test_networks_that_cannot_be_stacked_are_trained_one_by_one(file, tmp_path, monkeypatch):
    (tmp_path / "normal").touch()
    assert run(file, tmp_path / "refused", epochs=1).complete
    alone(monkeypatch)
    run(file, tmp_path / "alone", epochs=1)
    assert_same(found(file, tmp_path / "refused", 1), found(file, tmp_path / "alone", 1), 0)


@pytest.mark.takes("workers start, and one is killed")
def test_a_killed_worker_fails_its_trials_and_they_are_tried_again(file, tmp_path):
    (tmp_path / "die").write_text(str(os.getppid()))
    judged = run(file, tmp_path / "s", epochs=1, workers=1)
    assert len(judged.failures) == 26
    assert all("was killed by signal 9" in failure.error for failure in judged.failures)
    (tmp_path / "die").unlink()
    assert run(file, tmp_path / "s", epochs=1).complete


# It may kill its whole group when the first result comes, and just before or after that is stored.
SCRIPT = """
    import os, signal, sys
    from steelyard import study
    from steelyard.study.storage.store import Store
    add_result = Store.add_result
    def add_and_die(self, *values):
        if sys.argv[3] == "before":
            os.killpg(0, signal.SIGKILL)
        add_result(self, *values)
        if sys.argv[3] == "after":
            os.killpg(0, signal.SIGKILL)
    Store.add_result = add_and_die
    study.compare(sys.argv[1], ["single-task"], seeds=1, epochs=16, store=sys.argv[2], workers=1, progress=False)
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="kills by process group")
@pytest.mark.slow("studies in processes of their own, killed again and again")
def test_killed_again_and_again_gives_the_same_table_and_repeats_nothing(file, tmp_path):
    run(file, tmp_path / "whole", epochs=16)
    (tmp_path / "slow").touch()
    store, checkpoints = tmp_path / "killed", tmp_path / "killed.checkpoints"

    def start(dies):
        command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(file), str(store), dies]
        with subprocess.Popen(
            command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            _, err = process.communicate(timeout=400)
        return process.returncode, err.decode()

    assert start("before")[0] == -signal.SIGKILL
    assert list(checkpoints.glob("*.pt"))
    assert not rows_written(store)
    assert start("after")[0] == -signal.SIGKILL
    written = rows_written(store)
    assert len(written) == 1

    (tmp_path / "slow").unlink()
    code, err = start("")
    assert code == 0, err
    assert rows_written(store).items() >= written.items()
    assert_same(found(file, tmp_path / "whole", 16), found(file, store, 16), 1e-9)
    assert not checkpoints.exists()
