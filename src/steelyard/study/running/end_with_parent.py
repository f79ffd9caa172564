"""A worker ends with the study that started it, whatever it is doing."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import sys
import threading


def end_with_parent() -> None:
    """Have this process end when the one that started it does.

    On Linux the kernel kills it: it needs no help of the interpreter, whose lock a computation in C may hold for ever.
    Elsewhere a thread waits for the parent's end, and such a worker ends when its computation lets go of the lock.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    if sys.platform == "linux":
        _have_the_kernel_kill_it(parent.sentinel)
    threading.Thread(target=_wait_for, args=(parent,), daemon=True).start()


def _have_the_kernel_kill_it(sentinel: int) -> None:
    """The parent holds the other end of this pipe: what happens to the pipe when it ends is signalled with SIGKILL.

    (``PR_SET_PDEATHSIG`` would not do: workers are children of multiprocessing's server of forks, which outlives the
    study as long as one of them runs.)
    """
    import fcntl

    fcntl.fcntl(sentinel, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(sentinel, getattr(fcntl, "F_SETSIG", 10), signal.SIGKILL)
    fcntl.fcntl(sentinel, fcntl.F_SETFL, fcntl.fcntl(sentinel, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([sentinel], [], [], 0)[0]:  # it ended just before
        os._exit(1)


def _wait_for(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)
