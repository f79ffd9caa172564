"""Runs a command for a worker and sees to it that nothing of it is left: neither when it ends nor when the worker dies.

A script of its own, of Python's standard library alone, so that it starts in a moment; the worker cannot do this for
itself, because it may be killed. What the command starts in sessions of its own (as torchrun does) is found, too, on
Linux: orphans become children of this process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

GRACE = 2.0
"""Seconds that helpers of a program have to end by themselves once it has ended."""
PR_SET_CHILD_SUBREAPER = 36


def main(status: int, command: list[str]) -> None:
    """Run the command, and write to `status` how it ended: ``ended CODE LEFT`` or ``unstartable REASON``.

    Standard input is the worker's end of a pipe, which closes when the worker is no more.
    """
    _adopt_orphans()
    # A worker is deaf to Ctrl-C; the program shall not inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    try:
        program = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    except OSError as error:
        os.write(status, f"unstartable {error.strerror}".encode())
        return
    threading.Thread(target=_end_with_worker, args=(program.pid,), daemon=True).start()
    code = program.wait()
    deadline = time.monotonic() + GRACE
    while _others(program.pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    left = len(_others(program.pid))
    _end_all(program.pid)
    os.write(status, f"ended {code} {left}".encode())


def _end_with_worker(group: int) -> None:
    while os.read(0, 1024):
        pass
    _end_all(group)
    os._exit(1)


def _adopt_orphans() -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _end_all(group: int) -> None:
    """Kill the program's group, and whatever turns up as a child of this process until there is nothing more."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
    while others := _others(group):
        for process in others:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.005)


def _others(group: int) -> list[int]:
    """Children of this process that live; those that have ended are let go."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    if sys.platform != "linux":
        return _members(group)
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                with open(f"/proc/{name}/stat", "rb") as file:
                    state, parent = file.read().rpartition(b")")[2].split()[:2]
                if int(parent) == os.getpid() and state != b"Z":
                    found.append(int(name))
    return found


def _members(group: int) -> list[int]:
    """Whether the group has members is all that other systems tell without further ado."""
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return []
    return [-group]


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
