"""The processes of this machine: what keeps them from starting is named, and warnings of theirs are no flood."""

import io
import multiprocessing
import os
import struct
import types

import pytest
from rich.console import Console
from rich.progress import Progress

from steelyard.errors import EngineError
from steelyard.problems.sources import packages_of_modules
from steelyard.study.running.engines import local
from steelyard.study.running.engines.interface import Job
from steelyard.study.running.events import Lost, Warned
from steelyard.study.running.progress_line import Meter
from study import made_up


@pytest.mark.parametrize("reason", ["AF_UNIX path too long", "No usable temporary directory found"])
def test_workers_that_cannot_be_started_are_named(monkeypatch, reason) -> None:
    def fail() -> None:
        raise OSError(reason)

    monkeypatch.setattr(local.forkserver, "ensure_running", fail)
    monkeypatch.setenv("TMPDIR", "/scratch/of/a/cluster")
    with pytest.raises(EngineError, match=rf"cannot start workers: {reason}.*TMPDIR \(now /scratch/of/a/cluster\)"):
        local.start_server()


def _known(sender) -> None:
    sender.send(packages_of_modules.cache_info().currsize)


@pytest.mark.skipif(not local._has_forkserver(), reason="workers are not forked here")
def test_a_worker_need_not_go_through_all_installed_packages() -> None:
    """It asks which one a module comes with; the server that it is forked from has looked."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = local._context().Process(target=_known, args=(sender,), daemon=True)
    with local._starting():
        process.start()
    assert receiver.recv() == 1
    process.join()


@pytest.mark.parametrize("sent", [b"", struct.pack("!i", 1000), struct.pack("!i", 1000) + b"half of it"])
def test_a_worker_that_is_killed_in_the_middle_of_a_message_is_lost(sent, tmp_path) -> None:
    """Networks are long messages; the others of the study go on."""
    (trial, *_) = made_up.plan(seeds=1).trials
    pool = local.Pool(Job("digits", None, tmp_path, False, tmp_path, 1))
    receiver, sender = multiprocessing.Pipe(duplex=False)
    os.write(sender.fileno(), sent)
    sender.close()
    process = types.SimpleNamespace(exitcode=-9, join=lambda: None)
    pool.running[receiver] = ({0: trial}, process)
    pool.on[receiver] = pool.free.pop(0)
    ((told, event),) = pool.events()
    assert told == trial
    assert isinstance(event, Lost)
    assert "was killed by signal 9" in event.reason
    assert not pool.running


def test_warnings_that_differ_each_time_are_shown_a_few_times() -> None:
    out = io.StringIO()
    plan = made_up.plan(seeds=1)
    with Progress(console=Console(file=out, width=200)) as bar:
        meter = Meter(bar, plan, plan.trials, plan.trials, "")
        for number in range(1000):
            for trial in plan.trials:
                meter.tell(trial, Warned(f"took {number} s"))
    text = out.getvalue()
    assert text.count("took") == 20
    assert text.count("Further warnings are not shown.") == 1
