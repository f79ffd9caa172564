"""What a process that is started for a worker inherits: one thread, no Ctrl-C, nothing of the caller's program."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

# One thread per worker: small networks gain nothing from more, and results stay the same on every machine's core count.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def cores() -> int:
    """Those that this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def worker_environment() -> Iterator[None]:
    """What a worker inherits: one thread, no Ctrl-C, and none of the caller's main module.

    Workers would run the main script again to find the functions in it; ours are not there, and without it a study
    needs no ``if __name__ == "__main__"``.
    """
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    main = sys.modules["__main__"]
    os.environ.update(ONE_THREAD)
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        with no_interrupts():
            yield
    finally:
        sys.modules["__main__"] = main
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def no_interrupts() -> Iterator[None]:
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
