"""Studies that are told to end, stopped for a while, or whose workers hold on to the interpreter: real processes."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from steelyard.study.running import stops
from steelyard.study.storage.store import Store

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads process states from /proc")

# Trains for ever, or holds the interpreter's lock in C for ever.
PROBLEM = """
    import ctypes, multiprocessing, time
    from pathlib import Path
    import torch
    from torch import nn
    from steelyard.problems import Data, Problem, Split, classification

    HERE = Path(__file__).parent

    def load():
        def split(rows):
            return Split(torch.ones(rows, 4), {name: torch.arange(rows) % 2 for name in ("kind", "sign")})
        return Data(split(40), split(20), split(20))

    def prepare(inputs):
        if multiprocessing.parent_process() is not None:
            (HERE / "started").touch()
            if (HERE / "hold").exists():
                ctypes.PyDLL(None).sleep(1000)
            time.sleep(0.01)
        return inputs

    problem = Problem("mine", (classification("kind", 2), classification("sign", 2)), load, lambda: nn.Linear(4, 8),
                      lambda task: nn.Linear(8, task.outputs), prepare=prepare, batch_size=4, epochs=10_000)
"""
SCRIPT = """
    import sys
    from steelyard import study
    study.compare(sys.argv[1], ["equal"], seeds=2, store=sys.argv[2])
"""


@pytest.fixture
def start(tmp_path):
    """Start a study with a terminal for its bar; once its workers train, (process, what the terminal was sent)."""
    (tmp_path / "mine.py").write_text(textwrap.dedent(PROBLEM))
    opened = []

    def begin():
        terminal, its = os.openpty()
        command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path / "mine.py"), str(tmp_path / "s.sqlite")]
        process = subprocess.Popen(
            command, stdout=its, stderr=its, start_new_session=True, env={**os.environ, "TERM": "xterm"}
        )
        os.close(its)
        opened.append((process, terminal))
        sent = bytearray()
        os.set_blocking(terminal, False)

        def read():
            with contextlib.suppress(OSError):  # nothing there, or nobody writes any more
                while piece := os.read(terminal, 65536):
                    sent.extend(piece)
            return bytes(sent)

        wait_for(lambda: read() is not None and (tmp_path / "started").exists(), process)
        return process, read

    yield begin
    for process, terminal in opened:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(terminal)


def wait_for(condition, process=None, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        assert process is None or process.poll() is None, "ended too early"
        time.sleep(0.02)


def running(session):
    """The processes of a session that are no zombies."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as file:
            state, _, _, owner = file.read().rpartition(")")[2].split()[:4]
            if int(owner) == session and state != "Z":
                found.append(int(name))
    return found


@pytest.mark.takes("a study in a session of its own starts, and is told to end by each signal")
def test_told_to_end_it_ends_in_order(start, tmp_path):
    process, read = start()
    os.killpg(process.pid, signal.SIGSTOP)  # Ctrl-Z, and on again: nothing is lost by it
    os.killpg(process.pid, signal.SIGCONT)
    (tmp_path / "started").unlink()
    wait_for(lambda: read() is not None and (tmp_path / "started").exists(), process)
    process.terminate()
    wait_for(lambda: read() is not None and process.poll() is not None)
    assert process.returncode == -signal.SIGTERM  # as whoever sent it expects
    said = read()
    assert said.count(b"\x1b[?25l") == said.count(b"\x1b[?25h") == 1  # the cursor is shown again
    assert b"Traceback" not in said
    wait_for(lambda: not running(process.pid), seconds=10)
    Store(tmp_path / "s.sqlite", write=True).close()
    assert not (tmp_path / "s.sqlite-wal").exists()


@pytest.mark.takes("workers start, and one hangs")
def test_a_worker_that_holds_the_interpreter_dies_with_its_study(start, tmp_path):
    (tmp_path / "hold").touch()
    process, _ = start()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not running(process.pid), seconds=10)


@pytest.mark.parametrize("number", stops.ENDING)
def test_each_signal_unwinds_what_runs_and_comes_again_afterwards(monkeypatch, number):
    before, again = signal.getsignal(number), []
    monkeypatch.setattr(signal, "raise_signal", lambda given: again.append((given, signal.getsignal(given))))
    try:
        signal.signal(number, signal.SIG_DFL)
        with pytest.raises(stops._Stop), stops.ending_in_order():
            os.kill(os.getpid(), number)
        assert again == [(number, signal.SIG_DFL)]
    finally:
        signal.signal(number, before)


def test_signals_that_the_program_handles_or_ignores_are_left_alone():
    before = signal.getsignal(signal.SIGHUP)
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with stops.ending_in_order():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
