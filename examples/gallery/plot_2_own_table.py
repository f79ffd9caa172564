"""
Your own table, with missing labels
===================================

A problem is one Python file: tasks, data, a trunk, a head, and the `Problem` that joins
them. Here are three measures of 442 patients; blood pressure was taken of two thirds.
"""

# %%
# This file is that problem: ``steelyard compare examples/gallery/plot_2_own_table.py``
# works too. A label that is missing is NaN; the row still counts for the other tasks.
import numpy as np
from sklearn.datasets import load_diabetes
from torch import nn

from steelyard.problems import Data, Problem, Task, binary, regression, split

INPUTS = ("age", "sex", "s1", "s2", "s3", "s4", "s5", "s6")


def load() -> Data:
    patients = load_diabetes(scaled=False)
    table = dict(zip(patients.feature_names, patients.data.T, strict=True))
    pressure = np.where(table["bp"] > 100, 1.0, 0.0)
    pressure[::3] = np.nan
    return split(
        np.stack([table[name] for name in INPUTS], axis=1),
        {"progression": patients.target, "bmi": table["bmi"], "pressure": pressure},
        test=0.3,
        standardise=True,
        standardise_targets=["progression", "bmi"],
    )


def trunk() -> nn.Module:
    return nn.Sequential(
        nn.Linear(len(INPUTS), 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU()
    )


def head(task: Task) -> nn.Module:
    return nn.Linear(32, task.outputs)


tasks = [regression("progression"), regression("bmi"), binary("pressure")]
problem = Problem("patients", tasks, load, trunk, head, batch_size=32, epochs=20)

# %%
# A study from Python. The guard is there because a study reads this file for the
# problem. A verdict is about this division of the rows, of which 133 are tested on.
if __name__ == "__main__":
    import sys
    import tempfile
    from pathlib import Path

    import matplotlib.pyplot as plt
    from rich.console import Console

    from steelyard.report import render
    from steelyard.study import compare

    judgement = compare(
        sys.argv[0],  # this file
        ["single-task", "equal", "uw"],
        store=Path(tempfile.mkdtemp()) / "patients.sqlite",
        seeds=[0, 1, 2, 3, 4],
        progress=False,
    )
    render(judgement, Console(width=76))

    figure, axes = plt.subplots(1, 3, figsize=(8, 2.6), layout="constrained")
    for axis, task in zip(axes, judgement.tasks, strict=True):
        for cell in (cell for cell in judgement.cells if cell.task == task.name):
            seeds = list(cell.values.values())
            axis.plot([cell.method] * len(seeds), seeds, "o", alpha=0.5, color="C0")
            axis.plot([cell.method], [cell.mean], "_", markersize=30, color="C1")
        axis.set(title=task.label, ylabel=f"{task.metric}, a dot per seed")
