"""A set larger than the memory that a process may take is planned and trained, read by a Dataset or mapped as it is."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

# The process may take 240 MiB more than it has after its imports; the file has 320 (and holds nothing: it is sparse).
FILE = """
    import sys
    import numpy as np
    import torch
    from torch import nn
    from torch.utils.data import Dataset
    from steelyard.problems import Data, Problem, Split, regression

    ROWS, WIDTH = 5 * 1024, 16 * 1024
    stored = np.memmap(sys.argv[1], np.float32, "r", shape=(ROWS, WIDTH))

    class Rows(Dataset):
        def __init__(self, rows):
            self.rows = rows

        def __len__(self):
            return len(self.rows)

        def __getitem__(self, row):
            place = self.rows[row]
            return torch.from_numpy(stored[place]), {"a": float(place % 7), "b": float(place % 2)}

    def mapped(rows):
        here = torch.from_numpy(stored[rows.start : rows.stop])
        places = torch.arange(rows.start, rows.stop)
        return Split(here, {"a": (places % 7).float(), "b": (places % 2).float()})

    def made(name, kind):
        parts = range(ROWS), range(64), range(64, 128)
        return Problem(
            name, [regression("a"), regression("b")], lambda: Data(*map(kind, parts)),
            lambda: nn.Linear(WIDTH, 2), lambda task: nn.Linear(2, task.outputs), batch_size=32, epochs=1,
        )

    read, in_place = made("read", Rows), made("in-place", mapped)
"""
CHILD = """
    import warnings
    from steelyard.problems import load_problem
    from steelyard.study import plan
    from steelyard.study.running.forecast import estimate
    from steelyard.study.training.train import train
    import resource, sys
    import numpy as np, sklearn.metrics, torch

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "The given NumPy array is not writable")
    torch.ones(1, requires_grad=True).sum().backward()  # its thread is there before the limit
    taken = 1024 * next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (taken + 240 * 2**20, -1))
    try:
        np.array(np.memmap(sys.argv[1], np.float32, "r"))
        print("no limit")
    except MemoryError:
        print("too large")
    for name in ("read", "in_place"):
        made = plan(f"{sys.argv[2]}:{name}", ["equal"], seeds=1)
        print(name, train(made.trials[0], load_problem(made.reference)).steps)
        print("timed" if estimate(made, "none.sqlite", workers=1).seconds > 0 else "no time")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="what a process may take is limited as Linux does")
@pytest.mark.slow("a process that may take little memory imports torch, and reads 320 MB several times")
def test_a_set_that_does_not_fit_is_planned_timed_and_trained(tmp_path: Path) -> None:
    with open(tmp_path / "rows.f32", "wb") as file:
        file.truncate(5 * 1024 * 16 * 1024 * 4)
    (tmp_path / "large.py").write_text(textwrap.dedent(FILE))
    (tmp_path / "child.py").write_text(textwrap.dedent(CHILD))
    words = [sys.executable, "child.py", "rows.f32", "large.py"]
    # One arena, else each thread may take 64 MiB of its own; and what is large is given back when it is freed, else
    # the allocator keeps it, how much depends on the run, and the process ends at its limit now and then.
    alone = {**os.environ, "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(2**20)}
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, env=alone)
    assert done.stdout.split("\n") == ["too large", "read 160", "timed", "in_place 160", "timed", ""], done.stderr
