"""The engine that is there without any setting up: a few processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any

import torch

from steelyard.errors import EngineError
from steelyard.study.running.end_with_parent import end_with_parent
from steelyard.study.running.engines.interface import Job
from steelyard.study.running.environment import cores, safe_path, unsafe_path, worker_environment
from steelyard.study.running.events import Epoch, Event, Lost, Started, Warned
from steelyard.study.running.worker import Work, perform
from steelyard.study.training.hardware import AUTO, CPU, kind_of_device, named_devices
from steelyard.study.trial import Trial


class Local:
    """Processes of this machine, a fresh one for each piece of work."""

    def get_ready(self) -> None:
        start_server()

    def open(self, job: Job) -> Pool:
        return Pool(job)

    def device(self, asked: str) -> str:
        """What ``auto`` stands for; a device that is not here is refused."""
        found = named_devices(asked)
        return kind_of_device(found[0]) if asked == AUTO else asked


def places_on(devices: Sequence[str], per_device: int, workers: int | None, cores: int) -> list[str]:
    """The device of every trial that runs at a time: ``cuda:0, cuda:1, cuda:0, cuda:1`` for two cards with two each.

    On the CPU one for each core; `workers` is the most.
    """
    if list(devices) == [CPU]:
        return [CPU] * (workers or cores)
    return (list(devices) * per_device)[:workers]


def places_here(device: str, per_device: int = 1, workers: int | None = None) -> int:
    """So many trials at a time on this machine."""
    return len(places_on(named_devices(device), per_device, workers, cores()))


class Pool:
    """At most `workers` processes, each with one piece of work, on a device that is its own while it runs."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.free = places_on(named_devices(job.device), job.per_device, job.workers, cores())
        self.places = len(self.free)
        self.on: dict[Connection, str] = {}
        self.waiting: deque[tuple[Trial, ...]] = deque()
        self.running: dict[Connection, tuple[dict[int, Trial], BaseProcess]] = {}  # what has not ended, by its place
        self.context = _context()

    def submit(self, trials: tuple[Trial, ...]) -> None:
        self.waiting.append(trials)

    def events(self) -> Iterator[tuple[Trial, Event]]:
        while self.waiting or self.running:
            while self.waiting and self.free:
                self._start(self.waiting.popleft())
            for connection in wait(list(self.running)):
                assert isinstance(connection, Connection)
                yield from self._received(connection)

    def _received(self, connection: Connection) -> Iterator[tuple[Trial, Event]]:
        """What one worker has to say, or that it is no more."""
        trials, process = self.running[connection]
        received: list[tuple[int, Event]]
        try:
            received = [connection.recv()]
        except (EOFError, OSError):  # OSError: it was killed in the middle of a message
            process.join()
            received = [(place, Lost(_died(process.exitcode))) for place in trials]
        for place, event in received:
            yield trials[place] if isinstance(event, Started | Epoch | Warned) else trials.pop(place), event
        if not trials:
            del self.running[connection]
            connection.close()
            process.join()
            self.free.append(self.on.pop(connection))  # the process is gone, and what it had there

    def _start(self, trials: tuple[Trial, ...]) -> None:
        receiver, sender = self.context.Pipe(duplex=False)
        job, device = self.job, self.free.pop(0)
        work = Work(job.reference, trials, job.checkpoints, job.origin, job.keep, device, job.per_device)
        process = self.context.Process(target=_serve, args=(sender, work), daemon=True)
        with _starting():
            process.start()
        sender.close()  # so that the worker's end is the only one, and its death is seen
        self.running[receiver] = (dict(enumerate(trials)), process)
        self.on[receiver] = device

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, process in self.running.values():
            process.kill()  # checkpoints are written atomically: nothing to wait for
        for connection, (_, process) in self.running.items():
            process.join()
            connection.close()
        self.running.clear()


def _serve(connection: Connection, work: Work) -> None:
    """The worker process: it never outlives its parent."""
    unsafe_path()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    end_with_parent()
    torch.set_num_threads(1)
    perform(work, lambda place, event: connection.send((place, event)))
    connection.close()


@contextmanager
def _starting() -> Iterator[None]:
    """What a process started inside inherits.

    `multiprocessing` starts its tracker of resources with the first process, and listens to Ctrl-C again once it runs:
    the server that is started next would hear it, and print a traceback of whatever it just imports.
    """
    with safe_path():
        if _has_forkserver():
            resource_tracker.ensure_running()
        with worker_environment():
            yield


def start_server() -> None:
    """Start the server that forks the workers, so that it imports torch while the caller goes on.

    Raises:
        EngineError: it cannot be started.

    Example:
        >>> from steelyard.study import start_server
        >>> start_server()  # returns at once: the server imports what workers need while a plan is made
    """
    if _has_forkserver():
        try:
            with _starting():
                _context()
                forkserver.ensure_running()
        except OSError as error:  # a socket's path has 107 letters at most, and clusters have long folders
            raise EngineError(
                f"cannot start workers: {error}. They meet in a folder for temporary files: let TMPDIR (now "
                f"{os.environ.get('TMPDIR', 'not set')}) name one that can be written, with a short path, e.g. /tmp"
            ) from error


def _context() -> Any:
    """Forked from a server that has imported everything (0.1 s a start); spawned where there is no fork (seconds)."""
    if not _has_forkserver():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["steelyard.study.running.preload"])
    return context


def _has_forkserver() -> bool:
    return "forkserver" in multiprocessing.get_all_start_methods()


def _died(exitcode: int | None) -> str:
    how = (
        f"was killed by signal {-exitcode}" if exitcode is not None and exitcode < 0 else f"ended with code {exitcode}"
    )
    hint = " (signal 9 often means that the memory was used up: try fewer workers)" if exitcode == -9 else ""
    return f"the worker process {how}{hint}"
