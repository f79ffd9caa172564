"""Studies that are told to end, stopped for a while, or whose workers hold on to the interpreter: real processes."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import termios
import textwrap

import pytest

from steelyard.errors import StoreLockedError
from steelyard.study.running import stop_signals
from steelyard.study.storage.store import Store
from study.processes import alive_in_session, wait_for

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


@pytest.fixture
def start(tmp_path):
    """Start the command on a terminal of its own; once its workers train, (process, hang up, what it was sent)."""
    (tmp_path / "mine.py").write_text(textwrap.dedent(PROBLEM))
    opened, terminals = [], []

    def hang_up():
        """The terminal goes away; its number may be another file's from then on."""
        os.close(terminals.pop())

    def begin():
        terminal, its = os.openpty()
        words = [
            "compare",
            tmp_path / "mine.py",
            "--methods",
            "equal",
            "--seeds",
            "2",
            "--store",
            tmp_path / "s.sqlite",
        ]
        process = subprocess.Popen(
            [sys.executable, "-m", "steelyard", *map(str, words)],
            stdin=its,
            stdout=its,
            stderr=its,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm"},
            # What rules the session, and is told when it is hung up. Signals as a terminal has them, not as CI does.
            preexec_fn=lambda: [
                fcntl.ioctl(0, termios.TIOCSCTTY, 0),
                *(signal.signal(each, signal.SIG_DFL) for each in (*stop_signals.ENDING, signal.SIGINT)),
            ],
        )
        os.close(its)
        opened.append(process)
        terminals.append(terminal)
        sent = bytearray()
        os.set_blocking(terminal, False)

        def read():
            with contextlib.suppress(OSError):  # nothing there, or nobody writes any more
                while piece := os.read(terminal, 65536):
                    sent.extend(piece)
            return bytes(sent)

        wait_for(lambda: read() is not None and (tmp_path / "started").exists(), process)
        return process, hang_up, read

    yield begin
    for process in opened:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    while terminals:
        hang_up()


def in_order(process, tmp_path):
    """Nothing of a study that was told to end is left but its store."""
    assert not (tmp_path / "s.sqlite.lock").exists()
    assert not (tmp_path / "s.sqlite-wal").exists()
    wait_for(lambda: not alive_in_session(process.pid))
    Store(tmp_path / "s.sqlite", write=True).close()
    assert not list(tmp_path.glob("s.sqlite-*"))


@pytest.mark.takes("the command starts, is stopped for a while, and is told to end")
def test_told_to_end_it_ends_in_order(start, tmp_path):
    process, _, read = start()
    os.killpg(process.pid, signal.SIGSTOP)  # Ctrl-Z, and on again: nothing is lost by it
    os.killpg(process.pid, signal.SIGCONT)
    (tmp_path / "started").unlink()
    wait_for(lambda: read() is not None and (tmp_path / "started").exists(), process)
    # Meanwhile another one on the same store is told who has it.
    with pytest.raises(StoreLockedError, match=rf"is being written by another study \(process {process.pid}\)"):
        Store(tmp_path / "s.sqlite", write=True)
    process.terminate()
    wait_for(lambda: read() is not None and process.poll() is not None)
    assert process.returncode == -signal.SIGTERM  # as whoever sent it expects
    said = read()
    assert said.count(b"\x1b[?25l") == said.count(b"\x1b[?25h") == 1  # the cursor is shown again
    assert b"Traceback" not in said
    in_order(process, tmp_path)


@pytest.mark.slow("the command starts, and its terminal goes away")
def test_hung_up_it_ends_in_order(start, tmp_path):
    """SIGHUP as the system sends it."""
    process, hang_up, _ = start()
    hang_up()  # a window is closed, a connection lost: whatever is printed from now on is an error
    wait_for(lambda: process.poll() is not None)
    assert process.returncode == -signal.SIGHUP
    in_order(process, tmp_path)


@pytest.mark.slow("workers start, and one hangs")
def test_a_worker_that_holds_the_interpreter_dies_with_its_study(start, tmp_path):
    (tmp_path / "hold").touch()
    process, _, _ = start()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not alive_in_session(process.pid))


@pytest.mark.parametrize("number", stop_signals.ENDING)
def test_each_signal_unwinds_what_runs_and_comes_again_afterwards(monkeypatch, number):
    before, again = signal.getsignal(number), []
    monkeypatch.setattr(signal, "raise_signal", lambda given: again.append((given, signal.getsignal(given))))
    try:
        signal.signal(number, signal.SIG_DFL)
        with pytest.raises(stop_signals._Stop), stop_signals.ending_in_order():
            os.kill(os.getpid(), number)
        assert again == [(number, signal.SIG_DFL)]
    finally:
        signal.signal(number, before)


def test_signals_that_the_program_handles_or_ignores_are_left_alone():
    before = signal.getsignal(signal.SIGHUP)
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with stop_signals.ending_in_order():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
