"""Studies on a Slurm cluster, by submitit: a trial is a job that tells what happens in a file on the shared disk."""

from __future__ import annotations

import contextlib
import os
import pickle
import secrets
import shutil
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import submitit
import torch

from steelyard.errors import EngineError, OptionError, StoreError, UnknownNameError
from steelyard.study.running.engines.interface import Job, device_of_cluster
from steelyard.study.running.environment import worker_environment
from steelyard.study.running.events import Epoch, Event, Lost, Started, Warned
from steelyard.study.running.worker import Work, perform
from steelyard.study.training.hardware import kind_of_device
from steelyard.study.trial import Trial

LOOKS = {"slurm": 2.0, "local": 0.1}
"""Seconds between two looks at what jobs have told, by `cluster`."""
PATIENCE = 60.0
"""Seconds without a sign of life after which a job takes its study for dead, and ends."""
JOBS = 100
"""In flight, unless the study says otherwise: the rest waits here and not in Slurm's queue."""


class Slurm:
    """Jobs of a Slurm cluster, one for a trial; the store lies on a disk that all machines share.

    Args:
        partition, account, qos: as sbatch takes them; by default the cluster's own.
        time: minutes that a job may take. One that is cut off is tried again, from its checkpoint.
        cpus: of a job. Training has one thread.
        gpus: of a job; by default one where trials train on ``cuda``, else none.
        memory: GiB of a job; by default the cluster's.
        cluster: ``"local"`` starts the jobs as processes here, to try a study out.
    """

    def __init__(
        self,
        partition: str | None = None,
        account: str | None = None,
        qos: str | None = None,
        time: int = 240,
        cpus: int = 1,
        gpus: int | None = None,
        memory: float | None = None,
        cluster: str = "slurm",
    ) -> None:
        if cluster not in LOOKS:
            raise UnknownNameError("cluster of the engine slurm", str(cluster), LOOKS)
        for name, value, least in (("time", time, 1), ("cpus", cpus, 1), ("gpus", gpus or 0, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise OptionError(f"slurm: {name}={value!r} must be a whole number of at least {least}")
        if memory is not None and not (isinstance(memory, int | float) and memory > 0):
            raise OptionError(f"slurm: memory={memory!r} must be a number of GiB above 0")
        self.cluster, self.gpus = cluster, gpus
        wanted = {
            "timeout_min": time,
            "cpus_per_task": cpus,
            "mem_gb": memory,
            "slurm_partition": partition,
            "slurm_account": account,
            "slurm_qos": qos,
        }
        self.parameters = {name: value for name, value in wanted.items() if value is not None}

    def get_ready(self) -> None:
        """Nothing takes a while."""

    def device(self, asked: str) -> str:
        """What ``auto`` stands for: GPUs where a job has some. Slurm says which of them it gets."""
        return device_of_cluster("slurm", asked, self.gpus)

    def open(self, job: Job) -> Jobs:
        if job.per_device > 1 and kind_of_device(job.device) == "cuda":
            raise OptionError(f"--per-device {job.per_device}: a job of slurm has its GPUs for itself; leave it out")
        return Jobs(self, job)

    def executor(self, folder: Path, job: Job) -> submitit.Executor:
        try:
            found = submitit.AutoExecutor(folder, cluster=self.cluster, slurm_max_num_timeout=0)
        except (RuntimeError, OSError) as error:
            raise EngineError(
                f"slurm: no Slurm here ({error}). Run the command where sbatch is, or try it out with "
                "--on 'slurm(cluster=local)'"
            ) from error
        gpus = kind_of_device(job.device) == "cuda" if self.gpus is None else self.gpus
        found.update_parameters(name="steelyard", **self.parameters, **{"gpus_per_node": int(gpus)} if gpus else {})
        return found


@dataclass
class _Sent:
    """A job on its way."""

    trials: dict[int, Trial]  # what has not ended, by its place
    job: submitit.Job[None]
    told: Path
    read: int = 0  # bytes of it


@dataclass
class Jobs:
    """Jobs in flight."""

    engine: Slurm
    job: Job
    waiting: deque[tuple[Trial, ...]] = field(default_factory=deque)
    running: list[_Sent] = field(default_factory=list)
    sent: int = 0

    @property
    def places(self) -> int:
        return self.job.workers or JOBS

    def submit(self, trials: tuple[Trial, ...]) -> None:
        self.waiting.append(trials)

    def events(self) -> Iterator[tuple[Trial, Event]]:
        while self.waiting or self.running:
            while self.waiting and len(self.running) < self.places:
                self._send(self.waiting.popleft())
            self._show_life()
            for sent in list(self.running):
                yield from self._received(sent)
            if self.running:
                time.sleep(LOOKS[self.engine.cluster])

    def _send(self, trials: tuple[Trial, ...]) -> None:
        self.sent += 1
        told = self.folder / f"{self.sent}.told"
        work = Work(self.job.reference, trials, self.job.checkpoints, self.job.origin, self.job.keep)
        # The environment is inherited here; sbatch sends it along.
        with worker_environment(), _stopping(f"cannot send a job, whose files are in {self.folder}"):
            job = self.executor.submit(_serve, work, told, self.folder / "life", PATIENCE)
        self.running.append(_Sent(dict(enumerate(trials)), job, told))

    def _received(self, sent: _Sent) -> Iterator[tuple[Trial, Event]]:
        """What a job has told since, and how it ended if it is no more."""
        ended = sent.job.done()  # asked first: what it told last is in the file then
        for place, event in _read(sent):
            trials = sent.trials
            yield trials[place] if isinstance(event, Started | Epoch | Warned) else trials.pop(place), event
        if ended:
            lost = Lost(f"job {sent.job.job_id} ended ({sent.job.state}) without a result") if sent.trials else None
            self.running.remove(sent)
            if lost is not None:
                yield from ((trial, lost) for trial in sent.trials.values())

    def _show_life(self) -> None:
        with _stopping(f"cannot write to the jobs' folder {self.folder}"):
            (self.folder / "life").write_text(str(time.time()))

    def __enter__(self) -> Jobs:
        # A folder of its own: jobs of a study that was killed may still run. They notice that theirs is gone, and what
        # they tell meanwhile is never taken for what this study's jobs tell.
        self.folder = self.job.scratch / secrets.token_hex(8)
        with _stopping(f"cannot write to the jobs' folder {self.folder}"):
            shutil.rmtree(self.job.scratch, ignore_errors=True)
            self.folder.mkdir(parents=True)
        self.executor = self.engine.executor(self.folder / "%j", self.job)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sent in self.running:
            sent.job.cancel(check=False)  # those on this machine hear nothing, and see that the folder is gone
        self.running.clear()
        shutil.rmtree(self.job.scratch, ignore_errors=True)


@contextlib.contextmanager
def _stopping(what: str) -> Iterator[None]:
    """An error of the system, as of a full disk or a missing sbatch, stops the study in words of its own."""
    try:
        yield
    except OSError as error:
        file = f": {error.filename}" if error.filename else ""
        raise StoreError(f"{what}: {error.strerror or error}{file}") from error


def _read(sent: _Sent) -> Iterator[tuple[int, Event]]:
    """What is new in the file; the last record may still be on its way."""
    try:
        with open(sent.told, "rb") as file:
            file.seek(sent.read)
            while True:
                record: tuple[int, Event] = pickle.load(file)
                sent.read = file.tell()
                yield record
    except (FileNotFoundError, EOFError, pickle.UnpicklingError):
        return


def _serve(work: Work, told: Path, life: Path, patience: float) -> None:
    """The job."""
    threading.Thread(target=_end_with_study, args=(life, patience), daemon=True).start()
    torch.set_num_threads(1)

    def tell(place: int, event: Event) -> None:
        # Opened each time: on a shared disk others see what is closed.
        with open(told, "ab") as file:
            file.write(pickle.dumps((place, event)))

    perform(work, tell)


def _end_with_study(life: Path, patience: float) -> None:
    """End when the study gives no sign of life for so long, by this machine's clock, or has removed its folder."""
    seen: Any = None
    since = time.monotonic()
    while True:
        with contextlib.suppress(OSError):
            if (now := life.read_bytes()) != seen:
                seen, since = now, time.monotonic()
        if time.monotonic() - since > patience or not life.parent.exists():
            os._exit(1)
        time.sleep(min(1.0, patience / 4))
