"""Office + Caltech-10: ten kinds of object as four sources picture them; each source is a task with inputs of its own.

The rows of all sources are put one after the other, and each has a label of its own task only. A batch mixes them: the
trunk runs once over it, each head answers for every row, and each loss is the mean over the rows of its own source.
Because tasks share no row, the angles between their gradients show at the trunk alone.

Inputs are histograms of 800 visual words (SURF), which all four sources have: each is divided by its sum, and roots are
taken, so that dot products compare distributions (Bhattacharyya); columns are then standardised. With them no source is
solved (logistic regression within a source: .76, .58, .87, .75), and the smallest has 94 training rows, so that help
from the others is an open question; by GoogLeNet features three of the sources are recognised at .95 to 1.

Five folds, drawn within each source and class: 60 % training, 20 % validation, 20 % test.

Source: Gong, Shi, Sha, Grauman, "Geodesic Flow Kernel for Unsupervised Domain Adaptation" (CVPR 2012).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from steelyard.problems.builtin.arrays import load_arrays
from steelyard.problems.data import Data
from steelyard.problems.files import DataFile
from steelyard.problems.kinds import classification
from steelyard.problems.problem import Problem
from steelyard.problems.rows import Split
from steelyard.problems.splits import deal, in_fold, standardised
from steelyard.problems.task import Task

CLASSES, WORDS, FEATURES, FOLDS = 10, 800, 64, 5
# As the file calls them -> as tasks.
SOURCES = {"amazon": "amazon", "caltech10": "caltech", "webcam": "webcam", "dslr": "dslr"}
FILE = DataFile(
    "office_caltech10",
    "office_caltech10.npz",
    how=(
        "It holds, for each of amazon, caltech10, webcam and dslr, SOURCE_surf_X (N, 800; uint8, the histograms that "
        "Gong et al. published) and SOURCE_surf_y (N; int16, 1 to 10)."
    ),
)
ARRAYS = "72a37fab97a8fa6eebbdf6089fbf2c9755422da701f6c953b485046eaa1924ec"


def load(fold: int) -> Data:
    arrays = load_arrays(FILE, [f"{source}_surf_{part}" for source in SOURCES for part in "Xy"], ARRAYS)
    counts = torch.cat([torch.from_numpy(arrays[f"{source}_surf_X"]) for source in SOURCES]).float()
    classes = [torch.from_numpy(arrays[f"{source}_surf_y"].astype(np.int64)) - 1 for source in SOURCES]
    sources = torch.cat([torch.full_like(labels, number) for number, labels in enumerate(classes)])
    labels = torch.cat(classes)
    targets = {task: labels.where(sources == number, -1) for number, task in enumerate(SOURCES.values())}
    rows = in_fold(deal(sources * CLASSES + labels, FOLDS, seed=10), fold)
    inputs = standardised(*(roots(counts)[part] for part in rows))
    train, validation, test = (
        Split(there, {task: values[part] for task, values in targets.items()})
        for there, part in zip(inputs, rows, strict=True)
    )
    return Data(train, validation, test, f"fold {fold} of {FOLDS} for test, the next one for validation")


def roots(counts: Tensor) -> Tensor:
    """Square roots of shares: rows of length 1."""
    return (counts / counts.sum(1, keepdim=True)).sqrt()


def trunk() -> nn.Module:
    return nn.Sequential(
        nn.Linear(WORDS, 256), nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, FEATURES), nn.ReLU(), nn.Dropout(0.5)
    )


def head(task: Task) -> nn.Module:
    return nn.Linear(FEATURES, task.outputs)


problem = Problem(
    name="office",
    summary="ten kinds of object in the pictures of four sources, each source a task with inputs of its own",
    tasks=[classification(task, CLASSES) for task in SOURCES.values()],
    load=load,
    trunk=trunk,
    head=head,
    batch_size=64,
    epochs=30,
    folds=FOLDS,
    shared="trunk",
    source="Office + Caltech-10 SURF histograms (Gong et al., 2012; research use)",
    needs=("office_caltech10",),
)
