"""A worker ends with the study that started it, whatever it is doing."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """On Linux, have the kernel kill this process when the one that forked it ends.

    That one is multiprocessing's server of forks, which ends with the study. The kernel needs no help of the
    interpreter, whose lock a computation in C may hold for ever. On other systems there is only the thread that waits
    for the parent's end, and such a worker ends when its computation lets go of the lock.
    """
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended just before
        os._exit(1)
