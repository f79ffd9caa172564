"""Jobs of a study that was killed go on for a while: what they tell is nobody's any more."""

from __future__ import annotations

import contextlib
import pickle
from pathlib import Path

import pytest

pytest.importorskip("submitit", reason="submitit is not installed: make test-integrations")
from steelyard.errors import OptionError, StoreError
from steelyard.study.running.engines import on_slurm
from steelyard.study.running.engines.interface import Job
from steelyard.study.running.events import Finished
from study import made_up

FIRST, SECOND = made_up.plan(seeds=2).trials[:2]
OTHER, OWN = (made_up.result({"left": value, "right": value}) for value in (0.1, 0.9))


class Queue:
    """Runs no job. When there is a second one, each of them tells its result where it was told to."""

    job_id, state = 1, "RUNNING"

    def __init__(self) -> None:
        self.told: list[Path] = []

    def submit(self, serve: object, work: object, told: Path, life: Path, patience: float) -> Queue:
        self.told.append(told)
        for place, result in zip(self.told, (OTHER, OWN), strict=False) if len(self.told) == 2 else ():
            with contextlib.suppress(FileNotFoundError), open(place, "ab") as file:
                file.write(pickle.dumps((0, Finished(result))))
        return self

    def done(self) -> bool:
        return True

    def cancel(self, check: bool) -> None:
        pass


def test_a_job_of_a_killed_study_is_not_heard_by_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the first of its study, as the new one is: its numbers would be stored as those of another trial."""
    queue, job = Queue(), Job("digits", None, tmp_path / "c", False, tmp_path / "s.running", 1)
    monkeypatch.setattr(on_slurm.Slurm, "executor", lambda engine, folder, job: queue)
    killed = on_slurm.Slurm().open(job)
    killed.__enter__()  # and never left: kill -9
    killed._send((FIRST,))
    with on_slurm.Slurm().open(job) as session:
        session.submit((SECOND,))
        assert list(session.events()) == [(SECOND, Finished(OWN))]
    assert not list(tmp_path.iterdir())


def test_a_full_disk_under_the_jobs_stops_the_study_in_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_slurm.Slurm, "executor", lambda engine, folder, job: Queue())
    with on_slurm.Slurm().open(Job("digits", None, tmp_path / "c", False, tmp_path / "s.running", 1)) as session:
        (session.folder / "life").symlink_to("/dev/full")
        session.submit((FIRST,))
        with pytest.raises(StoreError, match=r"cannot write to the jobs' folder .*: No space left on device"):
            list(session.events())
    assert not list(tmp_path.iterdir())


def test_what_the_system_says_of_sending_a_job_is_told_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoSbatch(Queue):
        def submit(self, *work: object) -> Queue:
            raise FileNotFoundError(2, "No such file or directory", "sbatch")

    monkeypatch.setattr(on_slurm.Slurm, "executor", lambda engine, folder, job: NoSbatch())
    with on_slurm.Slurm().open(Job("digits", None, tmp_path / "c", False, tmp_path / "s.running", 1)) as session:
        session.submit((FIRST,))
        with pytest.raises(StoreError, match=r"cannot send a job, .*: No such file or directory: sbatch"):
            list(session.events())


def test_a_job_shares_its_gpu_with_no_other(tmp_path: Path) -> None:
    job = Job("digits", None, tmp_path / "c", False, tmp_path / "s.running", 1, device="cuda", per_device=2)
    with pytest.raises(OptionError, match="--per-device 2: a job of slurm has its GPUs for itself"):
        on_slurm.Slurm().open(job)
