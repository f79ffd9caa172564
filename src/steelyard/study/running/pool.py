"""Fresh processes, one per trial or group of trials, a few at a time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from steelyard.study.planning.origin import Origin
from steelyard.study.running.worker import Alone, Message, Warned, work
from steelyard.study.training.ensemble import groups
from steelyard.study.trial import Failed, Trial

# One thread per worker: small networks gain nothing from more, and results stay the same on every machine's core count.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


class Pool:
    """Runs trials in at most `workers` processes; iterate over it for (trial, message).

    Trials that may be trained together go to one worker, and come back to wait alone if they cannot be.
    """

    def __init__(
        self, reference: str, trials: Sequence[Trial], checkpoints: Path, workers: int, origin: Origin | None = None
    ) -> None:
        self.reference, self.checkpoints, self.workers, self.origin = reference, checkpoints, workers, origin
        self.waiting = deque(groups(trials, workers))
        self.running: dict[Connection, tuple[dict[int, Trial], BaseProcess]] = {}  # what has not ended, by its place
        self.context = _context()

    def __iter__(self) -> Iterator[tuple[Trial, Message]]:
        while self.waiting or self.running:
            while self.waiting and len(self.running) < self.workers:
                self._start(self.waiting.popleft())
            for connection in wait(list(self.running)):
                assert isinstance(connection, Connection)
                trials, process = self.running[connection]
                received: list[tuple[int, Message | Alone]]
                try:
                    received = [connection.recv()]
                except (EOFError, ConnectionResetError):
                    process.join()
                    received = [(place, _died(process.exitcode)) for place in trials]
                for place, message in received:
                    if isinstance(message, Alone):
                        self.waiting.append((trials[place],))
                    else:
                        yield trials[place], message
                    if not isinstance(message, int | Warned):
                        del trials[place]
                if not trials:
                    del self.running[connection]
                    connection.close()
                    process.join()

    def _start(self, trials: tuple[Trial, ...]) -> None:
        receiver, sender = self.context.Pipe(duplex=False)
        arguments = (sender, self.reference, trials, self.checkpoints, self.origin)
        process = self.context.Process(target=work, args=arguments, daemon=True)
        with _worker_environment():
            process.start()
        sender.close()  # so that the worker's end is the only one, and its death is seen
        self.running[receiver] = (dict(enumerate(trials)), process)

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


def start_server() -> None:
    """Start the server that forks the workers, so that it imports torch while the caller goes on.

    Example:
        >>> from steelyard.study import start_server
        >>> start_server()  # returns at once: the server imports what workers need while a plan is made
    """
    if _has_forkserver():
        with _worker_environment():
            _context()
            forkserver.ensure_running()


def _context() -> Any:
    """Forked from a server that has imported everything (0.1 s a start); spawned where there is no fork (seconds)."""
    if not _has_forkserver():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["steelyard.study.running.preload"])
    return context


def _has_forkserver() -> bool:
    return "forkserver" in multiprocessing.get_all_start_methods()


@contextmanager
def _worker_environment() -> Iterator[None]:
    """What a worker inherits: one thread, no Ctrl-C, and none of the caller's main module.

    Workers would run the main script again to find the functions in it; ours are not there, and without it a study
    needs no ``if __name__ == "__main__"``.
    """
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    main = sys.modules["__main__"]
    os.environ.update(ONE_THREAD)
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        with _no_interrupts():
            yield
    finally:
        sys.modules["__main__"] = main
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Processes started inside do not hear Ctrl-C; one that comes meanwhile is delivered to the caller afterwards.

    Processes inherit what this thread blocks. That alone does not spare the caller: the signal goes to any other thread
    (torch starts some), and Python then runs the handler in the main thread all the same. So the handler waits too.
    """
    blocks = hasattr(signal, "pthread_sigmask")
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if blocks else None
    handler = signal.getsignal(signal.SIGINT)
    holds = callable(handler) and threading.current_thread() is threading.main_thread()
    interrupts: list[int] = []
    if holds:
        signal.signal(signal.SIGINT, (lambda number, frame: interrupts.append(number)) if blocks else signal.SIG_IGN)
    try:
        yield
    finally:
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if holds:
            signal.signal(signal.SIGINT, handler)
        if interrupts:
            signal.raise_signal(signal.SIGINT)


def _died(exitcode: int | None) -> Failed:
    how = (
        f"was killed by signal {-exitcode}" if exitcode is not None and exitcode < 0 else f"ended with code {exitcode}"
    )
    hint = " (signal 9 often means that the memory was used up: try fewer workers)" if exitcode == -9 else ""
    return Failed(f"the worker process {how}{hint}", "")
