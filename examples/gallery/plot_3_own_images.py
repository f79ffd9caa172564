"""
Your own images
===============

A convolutional trunk, one task that names a class and one that measures: which shape
is on the image, and how large is it? The images are drawn here; yours are read in
``load``.
"""

# %%
# Images stay bytes in memory; ``prepare`` turns a batch into what the trunk takes.
import torch
from torch import Tensor, nn

from steelyard.problems import Data, Problem, Task, classification, regression, split

SHAPES, SIDE = ("disc", "square", "cross"), 16


def load() -> Data:
    generator = torch.Generator().manual_seed(0)
    kind = torch.randint(3, (900,), generator=generator)
    size = 2 + 4 * torch.rand(900, 1, 1, generator=generator)
    centre = 6 + 4 * torch.rand(2, 900, 1, 1, generator=generator)
    y, x = torch.arange(SIDE).view(1, -1, 1), torch.arange(SIDE).view(1, 1, -1)
    dy, dx = (y - centre[0]).abs(), (x - centre[1]).abs()
    square = torch.maximum(dx, dy) < size
    drawn = torch.stack(
        [dx**2 + dy**2 < size**2, square, square & ((dx < 1) | (dy < 1))]
    )
    images = drawn[kind, torch.arange(900)] * 160
    images = images + torch.randint(80, images.shape, generator=generator)
    return split(
        images[:, None].to(torch.uint8),
        {"kind": kind, "size": size.flatten()},
        standardise_targets=["size"],
    )


def trunk() -> nn.Module:
    first, second = nn.Conv2d(1, 8, 3, stride=2), nn.Conv2d(8, 16, 3, stride=2)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten())


def head(task: Task) -> nn.Module:
    return nn.Sequential(nn.Linear(144, 32), nn.ReLU(), nn.Linear(32, task.outputs))


def prepare(images: Tensor) -> Tensor:
    return images.float() / 255


tasks = [classification("kind", classes=3), regression("size")]
problem = Problem(
    "shapes", tasks, load, trunk, head, prepare=prepare, batch_size=64, epochs=12
)

# %%
# Six of the images, and how validation values rise with training: alone and together.
if __name__ == "__main__":
    import sys
    import tempfile
    from pathlib import Path

    import matplotlib.pyplot as plt

    from steelyard.study import compare

    train = problem.data().train
    figure, axes = plt.subplots(1, 6, figsize=(8, 1.7), layout="constrained")
    for image, kind, axis in zip(
        train.inputs, train.targets["kind"], axes, strict=False
    ):
        axis.imshow(image[0], cmap="gray")
        axis.set(title=SHAPES[int(kind)], xticks=[], yticks=[])

    judgement = compare(
        sys.argv[0],  # this file
        ["single-task", "equal", "uw"],
        store=Path(tempfile.mkdtemp()) / "shapes.sqlite",
        seeds=[0, 1, 2],
        progress=False,
    )
    print("\n".join(judgement.verdict))

    figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    for axis, task in zip(axes, judgement.tasks, strict=True):
        for curve in judgement.curves:
            axis.plot(curve.epochs, curve.validation[task.name], label=curve.method)
        axis.set(title=task.label, xlabel="epoch", ylabel=f"validation {task.metric}")
    axes[0].legend()
