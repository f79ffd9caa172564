"""Studies on a Ray cluster: a trial is a task, and its events stream back while it runs."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from queue import SimpleQueue
from types import TracebackType

import ray
import torch
from ray.exceptions import RayError, RayTaskError

from steelyard.errors import EngineError, OptionError, warn
from steelyard.study.running.engines.interface import Job, device_of_cluster
from steelyard.study.running.events import Epoch, Event, Lost, Started, Warned
from steelyard.study.running.shipped_modules import Luggage
from steelyard.study.running.worker import Work, perform
from steelyard.study.storage.trial_checkpoint import Folder
from steelyard.study.training.hardware import kind_of_device
from steelyard.study.trial import Failed, Trial

AHEAD = 2
"""Tasks in flight for each place: a worker that is done finds the next one there, and a cluster may grow by them."""


class Ray:
    """Tasks of a Ray cluster. A trial trains with one thread, so that results are the same on all machines of a kind.

    Args:
        address: of the head of a cluster that this machine belongs to, or ``auto``; without it what ``RAY_ADDRESS``
            says, else a cluster that is started on this machine and ends with the study.
        cpus: that a trial reserves.
        gpus: the same; a share like 0.25 lets four trials have one. By default one where trials train on ``cuda``
            (shared by as many as have a device at a time), else none.
    """

    def __init__(self, address: str | None = None, cpus: float = 1, gpus: float | None = None) -> None:
        for name, value, least in (("cpus", cpus, "more than 0"), ("gpus", gpus or 0, "at least 0")):
            if (
                isinstance(value, bool)
                or not isinstance(value, int | float)
                or value < 0
                or (not value and name == "cpus")
            ):
                raise OptionError(f"ray: {name}={value!r} must be a number, {least}")
        if address is not None and str(address).startswith("ray://"):
            raise OptionError(
                f"ray: address={address} goes through Ray's client, which streams no events: run the command on a "
                "machine of the cluster, with address=auto"
            )
        self.address, self.cpus, self.gpus = address, cpus, gpus

    def device(self, asked: str) -> str:
        """What ``auto`` stands for: the cluster's GPUs where a trial reserves some. Ray says which of them it gets."""
        return device_of_cluster("ray", asked, self.gpus)

    def share(self, job: Job) -> float:
        """Of GPUs, for one trial."""
        if self.gpus is not None:
            return self.gpus
        return 1 / job.per_device if kind_of_device(job.device) == "cuda" else 0

    def get_ready(self) -> None:
        """Connecting is quick; a cluster that is started here would not be ready earlier for it."""

    def open(self, job: Job) -> RayTasks:
        return RayTasks(self, job)

    def connect(self, workers: int | None) -> bool:
        """Connect to the cluster, or start one; False where this program is connected already."""
        if ray.is_initialized():
            return False
        here = self.address is None and "RAY_ADDRESS" not in os.environ
        if here:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody asked for it
        options = {"num_cpus": workers and max(1, round(workers * self.cpus)), "include_dashboard": False}
        try:
            ray.init(
                "local" if here else self.address,  # without it Ray would take a cluster that happens to run here
                log_to_driver=False,
                logging_level="ERROR",
                configure_logging=False,
                **options if here else {},
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise EngineError(f"ray: no cluster at {self.address or os.environ.get('RAY_ADDRESS')}: {error}") from error
        return True

    def room(self, gpus: float) -> int:
        """How many trials the cluster can have at a time, as it is now, each with so many GPUs."""
        there = ray.cluster_resources()
        rooms = [there.get("CPU", 0) / self.cpus]
        if gpus:
            rooms.append(there.get("GPU", 0) / gpus)
        return int(min(rooms) + 1e-9)


class RayTasks:
    """Tasks in flight."""

    def __init__(self, engine: Ray, job: Job) -> None:
        self.engine, self.job, self.gpus = engine, job, engine.share(job)
        self.waiting: deque[tuple[Trial, ...]] = deque()
        self.running: dict[ray.ObjectRefGenerator, dict[int, Trial]] = {}  # what has not ended, by its place

    @property
    def places(self) -> int:
        room = max(1, self.engine.room(self.gpus))
        return room if self.job.workers is None else min(room, self.job.workers)

    def submit(self, trials: tuple[Trial, ...]) -> None:
        self.waiting.append(trials)

    def events(self) -> Iterator[tuple[Trial, Event]]:
        while self.waiting or self.running:
            self._start()
            streams = list(self.running)
            ray.wait(streams, num_returns=1, fetch_local=False)
            ready, _ = ray.wait(streams, num_returns=len(streams), timeout=0, fetch_local=False)
            for stream in ready:
                yield from self._received(stream)

    def _start(self) -> None:
        """Keep as many in flight as there may be."""
        if not self.waiting:
            return
        most = self.job.workers or AHEAD * self.places
        while self.waiting and len(self.running) < most:
            trials, job = self.waiting.popleft(), self.job
            stream = self.task.remote(self.luggage, trials, self.checkpoints, job.keep, job.per_device)
            self.running[stream] = dict(enumerate(trials))

    def _received(self, stream: ray.ObjectRefGenerator) -> Iterator[tuple[Trial, Event]]:
        """What one task has to say, or that it is no more."""
        trials = self.running[stream]
        ended: Event | None = None
        try:
            place, event = ray.get(next(stream))
        except StopIteration:
            ended = Lost("its worker ended without a word")
        except RayTaskError as error:  # not of the problem's code: `perform` raises nothing
            ended = Failed.of(error)
        except RayError as error:
            ended = Lost(str(error).strip().splitlines()[0])
        else:
            yield trials[place] if isinstance(event, Started | Epoch | Warned) else trials.pop(place), event
        if ended is not None:
            del self.running[stream]
            yield from ((trial, ended) for trial in trials.values())

    def __enter__(self) -> RayTasks:
        self.connected = self.engine.connect(self.job.workers)
        try:
            self._check_room()
            self.luggage = ray.put(Luggage.of(self.job.reference, self.job.origin))
            self.checkpoints = self.job.checkpoints if self.job.shared or _all_here() else None
            self.task = ray.remote(_serve).options(
                num_returns="streaming", max_retries=0, num_cpus=self.engine.cpus, num_gpus=self.gpus
            )
        except BaseException:
            self._disconnect()
            raise
        return self

    def _check_room(self) -> None:
        if self.engine.room(self.gpus) == 0:  # no error: a cluster may grow by what waits for it
            has = {name: count for name, count in ray.cluster_resources().items() if name in ("CPU", "GPU")}
            wanted = f"cpus={self.engine.cpus:g} and gpus={self.gpus:g}"
            warn(f"a trial wants {wanted}, and the Ray cluster has {has}: waiting for a machine that has as much")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in self.running:
            ray.cancel(stream, force=True)
        self.running.clear()
        self._disconnect()

    def _disconnect(self) -> None:
        if self.connected:
            ray.shutdown()  # the cluster ends what this program has left


def _all_here() -> bool:
    """Whether the cluster is this machine alone, so that every worker sees its disk."""
    return {node["NodeManagerAddress"] for node in ray.nodes()} == {ray.util.get_node_ip_address()}


def _serve(
    luggage: Luggage, trials: tuple[Trial, ...], checkpoints: Folder | None, keep: bool, sharing: int
) -> Iterator[tuple[int, Event]]:
    """The task. Its training tells events when they happen: a thread has it, so that they can be yielded meanwhile."""
    told: SimpleQueue[tuple[int, Event] | None] = SimpleQueue()

    def train() -> None:
        torch.set_num_threads(1)
        try:
            reference, origin = luggage.unpack()
            work = Work(reference, trials, checkpoints, origin, keep, sharing=sharing)
            perform(work, lambda place, event: told.put((place, event)))
        finally:
            told.put(None)

    threading.Thread(target=train, daemon=True).start()
    while (event := told.get()) is not None:
        yield event
