"""A problem for Steelyard, ready to edit: three tasks on 442 patients, one of them with missing labels.

Try it: steelyard compare my_problem.py
"""

import numpy as np
from sklearn.datasets import load_diabetes
from torch import nn

from steelyard.problems import Data, Problem, Task, binary, regression, split

# A task brings its loss and its metrics. For labels 0, 1, 2 write classification("kind", classes=3).
tasks = [
    regression("progression", label="disease progression"),
    regression("bmi", label="body mass index"),
    binary("pressure", label="high blood pressure"),
]


def load(seed: int = 0) -> Data:
    # Your own data, for example: table = pandas.read_csv("/path/to/my.csv"), then table["bmi"], table["bp"], …
    patients = load_diabetes(scaled=False)
    table = dict(zip(patients.feature_names, patients.data.T, strict=True))

    inputs = np.stack([table[name] for name in ("age", "sex", "s1", "s2", "s3", "s4", "s5", "s6")], axis=1)
    pressure = np.where(table["bp"] > 100, 1.0, 0.0)
    pressure[::3] = np.nan  # NaN marks a missing label: here every third patient was not measured
    targets = {"progression": patients.target, "bmi": table["bmi"], "pressure": pressure}

    # Rows are divided at random, by the seed (--resplit: a division for each seed of a study); means and deviations
    # are those of the training rows.
    return split(
        inputs,
        targets,
        seed=seed,
        validation=0.2,
        test=0.3,
        standardise=True,
        standardise_targets=["progression", "bmi"],
    )


def trunk() -> nn.Module:
    """Shared by all tasks: inputs -> features. The 8 is the number of input columns."""
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())


def head(task: Task) -> nn.Module:
    """One for each task: features -> outputs (1, or as many as there are classes)."""
    return nn.Linear(32, task.outputs)


problem = Problem(
    "my-problem", tasks, load, trunk, head, batch_size=32, epochs=30, summary="three measures of 442 patients"
)
