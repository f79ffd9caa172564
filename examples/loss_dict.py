"""Models that return a dict of losses, as detectors do: balance the dict, read gradients inside the backbone.

    python examples/loss_dict.py

`Detector` stands for torchvision's, detectron2's or mmdetection's: in training it takes images and targets, returns
its losses by name and keeps its features to itself. A trainer sums the dict; change that sum and nothing else.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import steelyard


class Backbone(nn.Module):
    """Two levels of features and, as in feature pyramids, a third that is pooled from the second."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU())
        self.fine = nn.Conv2d(8, 8, 3, padding=1, stride=2)
        self.coarse = nn.Conv2d(8, 8, 3, padding=1, stride=4)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        shared = self.stem(images)
        fine, coarse = self.fine(shared), self.coarse(shared)
        return {"0": fine, "1": coarse, "pool": nn.functional.max_pool2d(coarse, 2)}


class Detector(nn.Module):
    """One object per image: whether, where and of which class."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.objectness, self.box, self.classes = (nn.LazyLinear(size) for size in (1, 4, 3))

    def forward(self, images: Tensor, targets: dict[str, Tensor]) -> dict[str, Tensor]:
        features = torch.cat([level.relu().flatten(1) for level in self.backbone(images).values()], 1)
        there = targets["label"] >= 0
        return {
            "loss_objectness": nn.functional.binary_cross_entropy_with_logits(
                self.objectness(features).squeeze(1), there.float()
            ),
            "loss_box_reg": nn.functional.smooth_l1_loss(self.box(features)[there], targets["box"][there]),
            "loss_classifier": nn.functional.cross_entropy(self.classes(features)[there], targets["label"][there]),
        }


def scenes(number: int = 64) -> tuple[Tensor, dict[str, Tensor]]:
    """Rectangles of three brightnesses on a dark ground; every fourth image is empty."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.randint(0, 8, (number, 2), generator=generator)
    size = torch.randint(3, 8, (number, 2), generator=generator)
    label = torch.randint(0, 3, (number,), generator=generator)
    label[::4] = -1
    images = torch.zeros(number, 1, 16, 16)
    for image, (top, left), (height, width), brightness in zip(images, corner, size, label, strict=True):
        image[:, top : top + height, left : left + width] = (brightness + 1) / 3
    return images, {"box": torch.cat([corner, corner + size], 1).float(), "label": label}


def main(steps: int = 100) -> None:
    torch.manual_seed(0)
    images, targets = scenes()
    detector = Detector()
    detector(images, targets)  # gives the lazy layers their shapes
    optimizer = torch.optim.Adam(detector.parameters(), lr=3e-3)

    balancer = steelyard.make("upgrad", ["loss_objectness", "loss_box_reg", "loss_classifier"]).attach(optimizer)
    # The tensors that the heads read and of which none feeds another: the pooled level comes from level 1.
    features = steelyard.features_of(detector.backbone, pick=lambda levels: (levels["0"], levels["1"]))

    for step in range(steps):
        losses = detector(images, targets)
        loss = balancer(losses, shared=features())  # was: sum(losses.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 19:
            print({name: round(value, 4) for name, value in balancer.metrics().items()})


if __name__ == "__main__":
    main()
