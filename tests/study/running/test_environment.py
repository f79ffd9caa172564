"""What worker processes inherit."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from steelyard.study.running.environment import no_interrupts, safe_path, unsafe_path, worker_environment
from study.processes import hear_interrupts


@pytest.mark.parametrize("threads", [0, 1])
def test_an_interrupt_while_a_worker_starts_is_delivered_afterwards(threads: int) -> None:
    """With another thread as well: the system may hand it the signal, and the main thread must still wait."""
    done = threading.Event()
    others = [threading.Thread(target=done.wait) for _ in range(threads)]
    for other in others:
        other.start()
    reached = False
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # deaf where run in the background
    heard, hears = os.pipe()  # is written to when the signal has arrived, in whatever thread
    os.set_blocking(hears, False)
    waker = signal.set_wakeup_fd(hears)
    try:
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012  (where it is raised is the point)
            with no_interrupts():
                os.kill(os.getpid(), signal.SIGINT)
                if threads:  # it waits for this thread otherwise, which blocks it
                    assert select.select([heard], [], [], 60)[0]
                reached = True
            select.select([heard], [], [], 60)
            raise AssertionError("the interrupt was lost")
    finally:
        signal.set_wakeup_fd(waker)
        os.close(heard)
        os.close(hears)
        signal.signal(signal.SIGINT, before)
        done.set()
        for other in others:
            other.join()
    assert reached, "the interrupt came too early"


def test_the_handler_of_interrupts_is_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with no_interrupts():
        pass
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="what a process ignores stands in Linux's /proc")
def test_ctrl_c_is_not_heard_by_the_server_of_workers_while_it_imports_torch(tmp_path: Path) -> None:
    """It reaches all processes of a terminal. In a program of its own, where nothing has started before."""
    program = tmp_path / "starts_a_server.py"
    program.write_text(
        "from multiprocessing import forkserver\n"
        "from steelyard.study import start_server\n"
        "start_server()\n"
        "print(open(f'/proc/{forkserver._forkserver._forkserver_pid}/status').read())\n"
    )
    found = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, preexec_fn=hear_interrupts, check=True
    )
    masks = [int(line.split()[1], 16) for line in found.stdout.splitlines() if line.startswith(("SigBlk", "SigIgn"))]
    assert len(masks) == 2
    assert any(mask >> signal.SIGINT - 1 & 1 for mask in masks)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python has no PYTHONSAFEPATH before 3.11")
def test_a_server_of_workers_takes_no_file_of_the_current_folder_for_pythons_own(tmp_path: Path) -> None:
    for name in ("logging", "signal", "socket"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('taken for the standard library')")
    command = [sys.executable, "-c", "import multiprocessing.forkserver, logging"]
    shadowed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "taken for" in shadowed.stderr
    with worker_environment(), safe_path():
        found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.parametrize("given", [None, "1"])
def test_a_worker_gives_the_switch_back(given: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that it starts are found beside their scripts, unless the caller has said otherwise."""
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    if given:
        monkeypatch.setenv("PYTHONSAFEPATH", given)
    with safe_path():
        assert os.environ["PYTHONSAFEPATH"] == "1"
        inherited = dict(os.environ)
    assert os.environ.get("PYTHONSAFEPATH") == given
    with monkeypatch.context() as worker:
        for name in ("PYTHONSAFEPATH", "STEELYARD_SAFE_PATH"):
            if name in inherited:
                worker.setenv(name, inherited[name])
        unsafe_path()
        assert os.environ.get("PYTHONSAFEPATH") == given
        assert "STEELYARD_SAFE_PATH" not in os.environ
