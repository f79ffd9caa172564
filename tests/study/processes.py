"""Studies in processes of their own: start, watch and stop them, and look at what they leave."""

import contextlib
import os
import signal
import sqlite3
import time

SERVICES = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""Ray's own, of a cluster whose driver was killed: they train nothing, and end within two minutes."""


def hear_interrupts():
    """Test runs in the background may have been started deaf to Ctrl-C, and would hand that down."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for(condition, process=None, seconds=240.0):
    """Until something is so; a process that is given must not end before."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        assert process is None or process.poll() is None, "ended too early"
        time.sleep(0.02)


def alive_in_session(session):
    """Process ids of a session that still run; zombies do not, and `SERVICES` are left out."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    state, _, _, owner = file.read().rpartition(")")[2].split()[:4]
                with open(f"/proc/{name}/cmdline") as file:
                    title = file.read().strip("\0 ")
            except OSError:
                continue
            if int(owner) == session and state != "Z" and title not in SERVICES:
                found.append(int(name))
    return found


def table(judgement):
    """All that a study finds but times and memory, in full precision."""
    return repr((judgement.cells, judgement.curves, [(r.delta_m, r.seeds, r.failed) for r in judgement.rows]))


def rows_written(store):
    """When each finished trial was written; none where there is no store, or one that is only being made."""
    if not os.path.exists(store):
        return {}
    with contextlib.closing(sqlite3.connect(store, timeout=60)) as connection:
        if not connection.execute("SELECT name FROM sqlite_master WHERE name = 'trial'").fetchall():
            return {}
        return dict(connection.execute("SELECT key, written FROM trial WHERE status = 'finished'").fetchall())
