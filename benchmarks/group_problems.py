"""Problems for ``benchmarks/grouping_live.py`` that are not built in; STEELYARD_DATA names the folder of the data.

wq, scm20d: two of the multi-target regressions of Mulan (Spyromitros-Xioufis et al. 2016), 14 and 16 targets.
landmine: 29 mine fields with rows of their own (Xue et al. 2007), as one table in which each row has one label.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import nn

from steelyard.problems import Data, Problem, Task, binary, regression, split

FOLDER = Path(os.environ["STEELYARD_DATA"])


def trunk(columns: int, width: int) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Linear(columns, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())


def head(width: int) -> Callable[[Task], nn.Module]:
    return lambda task: nn.Linear(width, task.outputs)


def mulan(name: str, targets: int, columns: int, batch_size: int, epochs: int) -> Problem:
    tasks = [regression(f"t{number + 1}") for number in range(targets)]

    def load() -> Data:
        arrays = np.load(FOLDER / "mulan_mtr" / f"{name}.npz")
        labels = {task.name: arrays["Y"][:, number] for number, task in enumerate(tasks)}
        return split(arrays["X"], labels, standardise=True, standardise_targets=list(labels))

    summary = f"{targets} targets of Mulan"
    return Problem(
        name, tasks, load, trunk(columns, 64), head(64), batch_size=batch_size, epochs=epochs, summary=summary
    )


fields: list[Task] = [binary(f"f{number + 1}") for number in range(29)]


def load_landmine() -> Data:
    arrays = np.load(FOLDER / "landmine" / "landmine.npz")
    field = arrays["task"] - arrays["task"].min()
    labels = {f"f{k + 1}": np.where(field == k, arrays["y"].astype(float), np.nan) for k in range(29)}
    return split(arrays["X"], labels, stratify=field * 2 + arrays["y"], standardise=True)


wq = mulan("wq", 14, 16, batch_size=32, epochs=40)
scm20d = mulan("scm20d", 16, 61, batch_size=64, epochs=30)
landmine = Problem(
    "landmine",
    fields,
    load_landmine,
    trunk(9, 32),
    head(32),
    batch_size=256,
    epochs=20,
    summary="mines or clutter in 29 fields",
)
