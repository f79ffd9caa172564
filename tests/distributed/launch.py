"""Run a function on several real ranks (gloo), and return what each of them returned."""

from __future__ import annotations

import datetime
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

try:
    from steelyard.study.running.engines.local import _has_forkserver, start_server
    from steelyard.study.running.environment import worker_environment
except ImportError:  # the balancing half alone: what a study needs is not installed
    START = "spawn"
else:
    START = "forkserver" if _has_forkserver() else "spawn"


def launch(function: Callable[..., Any], ranks: int, *args: Any) -> list[Any]:
    """``[function(rank, ranks, *args) for each rank]``; an exception on any rank is raised here."""
    with tempfile.TemporaryDirectory() as folder:
        _start((ranks, folder, function, args), ranks)
        return [torch.load(Path(folder) / f"rank{rank}.pt") for rank in range(ranks)]


def _start(args: tuple[Any, ...], ranks: int) -> None:
    """From the server that forks the workers of studies, where there is one: each rank would import torch itself."""
    if START == "spawn":
        mp.spawn(_rank, args, nprocs=ranks)
        return
    start_server()
    with worker_environment():  # without the main module, pytest
        mp.start_processes(_rank, args, nprocs=ranks, start_method=START)


def _rank(rank: int, ranks: int, folder: str, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    patience = datetime.timedelta(minutes=4)  # a collective that somebody misses fails the test instead of hanging it
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=ranks, timeout=patience
    )
    try:
        torch.save(function(rank, ranks, *args), f"{folder}/rank{rank}.pt")
    finally:
        # Old torch waits here, with Python's lock held, for the thread of the last collective, which may want the lock.
        time.sleep(0.1)
        dist.destroy_process_group()
