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

_SAFE, _OURS = "PYTHONSAFEPATH", "STEELYARD_SAFE_PATH"  # Python's switch, and that it was set here


def cores() -> int:
    """Those that this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def safe_path() -> Iterator[None]:
    """A process that is started inside finds the standard library, whatever the current folder holds.

    ``python -c``, which starts the server of workers, looks there first, and a ``logging.py`` beside a problem would
    be taken for Python's own. Before Python 3.11 there is no such switch. `unsafe_path` takes it back in the worker,
    since programs that a worker starts are found beside their scripts.
    """
    if _SAFE in os.environ:
        yield
        return
    os.environ.update({_SAFE: "1", _OURS: "1"})
    try:
        yield
    finally:
        unsafe_path()


def unsafe_path() -> None:
    """What `safe_path` has set is no more; what the caller has set stays."""
    if os.environ.pop(_OURS, None):
        os.environ.pop(_SAFE, None)


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
