"""
Two digits, one network
=======================

Two handwritten digits lie over each other; one task names the left one, the other the right one. Trained together they
hurt each other, and no weighting of their losses repairs it. Sharing less does.
"""

# %%
# A study of three arms, two seeds each: every digit alone (always there), the plain sum, and the plain sum in a network
# whose tasks have trunks of their own that mix. On the command line it is
# ``steelyard compare digits --methods "equal,equal@cross-stitch" --seeds 2 --epochs 15``.
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

from steelyard.problems import load_problem
from steelyard.study import compare

store = Path(tempfile.mkdtemp()) / "digits.sqlite"
judgement = compare(
    "digits", ["single-task", "equal", "equal@cross-stitch"], store=store, seeds=[0, 1], epochs=15, workers=2
)
print(judgement.verdict[0])

# %%
# What the network sees: the left digit is the one further to the left.
data = load_problem("digits").data()
figure, axes = plt.subplots(1, 6, figsize=(9, 1.8))
for axis, image, left, right in zip(
    axes, data.train.inputs, data.train.targets["left"], data.train.targets["right"], strict=False
):
    axis.imshow(image.view(11, 11), cmap="gray_r")
    axis.set(title=f"{left} and {right}", xticks=[], yticks=[])
figure.tight_layout()
