"""
A model that returns its losses
===============================

Detectors return a dict of losses in training and keep their features to themselves.
Change the line that sums the dict, and let `features_of` remember what the backbone
returned.
"""

# %%
# ``Detector`` stands for torchvision's, detectron2's or mmdetection's: one rectangle
# per image, of one of three brightnesses; where is it, and of which class? The box is
# in pixels, so its loss is the larger by far.
import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

import steelyard

TASKS = ["loss_box", "loss_class"]


class Detector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        first, second = nn.Conv2d(1, 8, 3, stride=2), nn.Conv2d(8, 8, 3, stride=2)
        self.backbone = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten())
        self.box, self.classes = nn.Linear(72, 4), nn.Linear(72, 3)

    def forward(
        self, images: Tensor, boxes: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        features = self.backbone(images)
        box = nn.functional.mse_loss(self.box(features), boxes)
        kind = nn.functional.cross_entropy(self.classes(features), labels)
        return {"loss_box": box, "loss_class": kind}


def scenes(number: int) -> tuple[Tensor, Tensor, Tensor]:
    corner, size = torch.randint(0, 8, (number, 2)), torch.randint(3, 8, (number, 2))
    boxes, labels = torch.cat([corner, corner + size], 1), torch.randint(3, (number,))
    images = torch.rand(number, 1, 16, 16) / 4
    for image, (top, left, bottom, right), label in zip(
        images, boxes, labels, strict=True
    ):
        image[:, top:bottom, left:right] += (label + 1) / 4
    return images, boxes.float(), labels


def train(method: str) -> list[dict[str, float]]:
    torch.manual_seed(0)
    detector = Detector()
    optimizer = torch.optim.Adam(detector.parameters(), lr=3e-3)
    balancer = steelyard.make(method, TASKS).attach(optimizer)
    features = steelyard.features_of(detector.backbone)  # remembers what it returned
    history = []
    for _ in range(300):
        losses = detector(*scenes(64))
        loss = balancer(losses, shared=features())  # was: sum(losses.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(balancer.metrics())
    return history


# %%
# The losses under the plain sum and under ``db-mtl``, which gives the gradients of both
# tasks the same length where the heads begin. Here both losses end lower; one seed of
# one small network shows no more than that.
histories = {method: train(method) for method in ("equal", "db-mtl")}
figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
for axis, task in zip(axes, TASKS, strict=True):
    for method, history in histories.items():
        axis.plot([step[f"loss/{task}"] for step in history], label=method)
    axis.set(title=task, xlabel="step", yscale="log")
axes[0].legend()
for method, history in histories.items():
    last = history[-50:]
    means = {task: sum(step[f"loss/{task}"] for step in last) / 50 for task in TASKS}
    print(method, {task: round(mean, 2) for task, mean in means.items()})
