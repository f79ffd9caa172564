"""
Two digits, one network
=======================

Two handwritten digits lie over each other; one task names the left one, the other the
right one. Trained together they hurt each other. None of the weightings that
``make demo`` tries repairs that; sharing less does.
"""

# %%
# What the network sees. The left digit is the one further to the left.
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
from rich.console import Console

from steelyard.problems import load_problem
from steelyard.report import render
from steelyard.study import compare

train = load_problem("digits").data().train
figure, axes = plt.subplots(1, 6, figsize=(8, 1.8))
for row, axis in enumerate(axes):
    left, right = (int(train.targets[task][row]) for task in ("left", "right"))
    axis.imshow(train.inputs[row].view(11, 11), cmap="gray_r")
    axis.set(title=f"{left} and {right}", xticks=[], yticks=[])
figure.tight_layout()

# %%
# A study: each digit with a network of its own (*single-task*, always there), both in
# one network under the plain sum (*equal*), and the plain sum in a network whose tasks
# have trunks of their own that mix (*cross-stitch*). On the command line::
#
#     steelyard compare digits --methods "equal,equal@cross-stitch" --seeds 3
judgement = compare(
    "digits",
    ["single-task", "equal", "equal@cross-stitch"],
    store=Path(tempfile.mkdtemp()) / "digits.sqlite",
    seeds=[0, 1, 2],
    epochs=15,
    progress=False,
)
render(judgement, Console(width=76))

# %%
# The differences from single-task, with their 95 % intervals over seeds. The grey band
# is the region of practical equivalence: too little to matter.
figure, axis = plt.subplots(figsize=(8, 2.6))
cells = [cell for cell in judgement.cells if cell.difference]
for place, cell in enumerate(reversed(cells)):
    points = [100 * x for x in (cell.difference.low, cell.difference.high)]
    axis.plot(points, [place, place], color="C0")
    axis.plot(100 * cell.difference.mean, place, "o", color="C0")
axis.set_yticks(
    range(len(cells)), [f"{cell.task}, {cell.method}" for cell in reversed(cells)]
)
axis.axvspan(-1, 1, color="0.85", zorder=0)
axis.set_xlabel("accuracy against single-task, percentage points")
figure.tight_layout()
