"""Losses and metrics of tasks with a label per pixel, against plain loops; unlabelled pixels count nowhere."""

import math

import numpy as np
import pytest
import sklearn.metrics
import torch
import torch.nn.functional as F

from steelyard.errors import ProblemError
from steelyard.problems.dense import WITHIN, depth, normals, segmentation

SEG, DEPTH, NORMALS = segmentation("seg", classes=4), depth("depth", unit=0.5), normals("normals")


def metrics(task, outputs, targets, batch=2):
    """As an evaluation does it: statistics batch by batch, metrics on all of them."""
    parts = [task.statistics(o, y) for o, y in zip(outputs.split(batch), targets.split(batch), strict=True)]
    statistics = torch.cat(parts)
    assert len(statistics) == len(outputs)
    return [metric.function(statistics, targets) for metric in task.metrics]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def labels():
    made = torch.randint(4, (5, 6, 7), generator=generator(), dtype=torch.uint8)
    made[torch.rand(made.shape, generator=generator(1)) < 0.3] = 255
    return made


@pytest.fixture
def directions():
    """Directions of many lengths, some of them missing, and outputs 0 to 180 degrees off."""
    y = torch.randint(-127, 128, (5, 3, 6, 7), generator=generator(), dtype=torch.int8)
    y.permute(0, 2, 3, 1)[torch.rand(5, 6, 7, generator=generator(1)) < 0.3] = 0
    return torch.randn(5, 3, 6, 7, generator=generator(2)) * 3 + y / 40, y


def test_segmentation_agrees_with_scikit_learn_over_all_labelled_pixels(labels):
    logits = torch.randn(5, 4, 6, 7, generator=generator(2))
    known = labels != 255
    predicted, wanted = logits.argmax(1)[known].numpy(), labels[known].numpy()
    iou = sklearn.metrics.jaccard_score(wanted, predicted, average="macro")
    accuracy = sklearn.metrics.accuracy_score(wanted, predicted)
    assert metrics(SEG, logits, labels) == pytest.approx([iou, accuracy])
    rows = logits.permute(0, 2, 3, 1)[known]
    torch.testing.assert_close(SEG.loss(logits, labels), F.cross_entropy(rows, labels[known].long()))


def test_a_class_that_no_label_has_is_left_out_of_the_mean():
    labels = torch.tensor([[[0, 0, 1, 1]]], dtype=torch.uint8)
    logits = F.one_hot(torch.tensor([[[0, 0, 1, 3]]]), 4).permute(0, 3, 1, 2).float()
    assert metrics(SEG, logits, labels) == pytest.approx([(1 + 1 / 2) / 2, 3 / 4])


def test_depth_errors_are_in_metres_over_measured_pixels():
    units = torch.tensor([[[[2, 4, 0]]], [[[8, 0, 0]]]], dtype=torch.uint8)  # 1, 2 and 4 m
    outputs = torch.tensor([[[[1.5, 1.0, 9.0]]], [[[4.0, 9.0, math.inf]]]])
    assert metrics(DEPTH, outputs, units) == pytest.approx([1.5 / 3, (0.5 / 1 + 1 / 2) / 3])
    assert float(DEPTH.loss(outputs[:1], units[:1])) == pytest.approx(1.5 / 2)


def test_angles_agree_with_a_loop_over_pixels(directions):
    outputs, targets = directions
    angles = []
    for o, y in zip(
        outputs.permute(0, 2, 3, 1).reshape(-1, 3), targets.permute(0, 2, 3, 1).reshape(-1, 3), strict=True
    ):
        if y.any():
            o, y = o.double().numpy(), y.double().numpy()
            angles.append(math.degrees(math.acos(o @ y / np.linalg.norm(o) / np.linalg.norm(y))))
    mean, median, *shares = metrics(NORMALS, outputs, targets)
    assert mean == pytest.approx(np.mean(angles), rel=1e-5)
    assert median == pytest.approx(np.median(angles), abs=1.0)  # of 150 pixels: a few lie between
    assert shares == pytest.approx([np.mean(np.array(angles) < degrees) for degrees in WITHIN])
    cosines = np.cos(np.radians(angles))
    assert float(NORMALS.loss(outputs, targets)) == pytest.approx(1 - cosines.mean(), rel=1e-5)


def test_the_median_angle_is_exact_to_a_bin():
    y = torch.zeros(1, 3, 100, 100)
    y[:, 2] = 1
    angles = torch.rand(100, 100, generator=generator(), dtype=torch.float64) * 40
    outputs = torch.stack([angles.deg2rad().sin(), torch.zeros(100, 100), angles.deg2rad().cos()])[None].float()
    assert metrics(NORMALS, outputs, y)[1] == pytest.approx(float(angles.quantile(0.5)), abs=0.05)


def test_what_lies_under_unlabelled_pixels_changes_no_loss_no_gradient_and_no_metric(labels, directions):
    outputs, targets = directions
    units = torch.randint(0, 3, (5, 1, 6, 7), generator=generator(), dtype=torch.uint8)
    for task, y, made, known in (
        (SEG, labels, torch.randn(5, 4, 6, 7, generator=generator(3)), (labels != 255)[:, None]),
        (DEPTH, units, torch.randn(5, 1, 6, 7, generator=generator(3)), units > 0),
        (NORMALS, targets, outputs, (targets != 0).any(1, keepdim=True)),
    ):
        first = made.clone().requires_grad_()
        other = torch.where(known, made, 1e4 * torch.rand(made.shape, generator=generator(4))).requires_grad_()
        losses = [task.loss(first, y), task.loss(other, y)]
        torch.testing.assert_close(*losses)
        sum(losses).backward()
        assert (first.grad.masked_select(~known.expand_as(made)) == 0).all()
        torch.testing.assert_close(first.grad, other.grad)
        assert metrics(task, first.detach(), y) == pytest.approx(metrics(task, other.detach(), y), rel=1e-6)


@pytest.mark.parametrize(
    ("task", "targets"),
    [
        (SEG, torch.full((2, 3, 3), 255, dtype=torch.uint8)),
        (DEPTH, torch.zeros(2, 1, 3, 3, dtype=torch.uint8)),
        (NORMALS, torch.zeros(2, 3, 3, 3, dtype=torch.int8)),
    ],
)
def test_an_image_without_any_labelled_pixel_is_an_unlabelled_row(task, targets):
    assert task.labelled(targets).tolist() == [False, False]
    targets[1, ..., 0, 0] = 1
    assert task.labelled(targets).tolist() == [False, True]


def test_perfect_outputs_reach_the_ideals():
    labels = torch.randint(4, (2, 5, 5), generator=generator(), dtype=torch.uint8)
    units = torch.randint(1, 9, (2, 1, 5, 5), generator=generator(), dtype=torch.uint8)
    y = torch.randint(1, 99, (2, 3, 5, 5), generator=generator(), dtype=torch.int8)
    for task, outputs, targets in (
        (SEG, F.one_hot(labels.long(), 4).permute(0, 3, 1, 2).float(), labels),
        (DEPTH, units * 0.5, units),
        (NORMALS, y * 0.1, y),
    ):
        ideals = [metric.ideal for metric in task.metrics]
        assert metrics(task, outputs, targets) == pytest.approx(ideals, abs=0.03)


@pytest.mark.parametrize("ignored", [0, 2, -1, 255])
def test_what_is_ignored_in_the_loss_is_in_the_metrics(ignored):
    task = segmentation("seg", classes=4, ignored=ignored)
    labels = torch.randint(4, (3, 6, 7), generator=generator())
    labels[torch.rand(labels.shape, generator=generator(1)) < 0.3] = ignored
    outputs = 9.0 * F.one_hot(labels.clamp(0, 3), 4).permute(0, 3, 1, 2)
    wrong = torch.where((labels == ignored)[:, None], torch.tensor([9.0, 0, 0, 9.5]).view(1, 4, 1, 1), outputs)
    assert metrics(task, wrong, labels) == [1.0, 1.0]


@pytest.mark.parametrize("channel", [True, False])
def test_depth_is_compared_pixel_by_pixel_with_a_channel_or_without(channel):
    y = torch.randint(0, 9, (3, 6, 7), generator=generator(), dtype=torch.uint8)
    outputs = (y * 0.5).unsqueeze(1) if channel else y * 0.5
    for targets in (y, y.unsqueeze(1)):
        assert DEPTH.loss(outputs, targets).item() == 0
        assert metrics(DEPTH, outputs, targets) == [0.0, 0.0]
    with pytest.raises(ProblemError, match=r"one size, got \[3, 1, 6, 7\] and \[3, 6, 8\]"):
        DEPTH.loss(torch.zeros(3, 1, 6, 7), torch.zeros(3, 6, 8))
