"""Painting an image again: loss and metrics on pixels in [0, 1], from bytes."""

import pytest
import torch

from steelyard.models import build
from steelyard.problems import load_problem

PROBLEM = load_problem("digit-reconstruction")
IMAGE = PROBLEM.task("image")


@pytest.fixture
def images():
    return torch.randint(256, (6, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_errors_are_of_pixels_between_0_and_1(images):
    pixels = images.flatten(1) / 255
    off = pixels + 0.1
    rmse, r2 = (metric.function(off, images) for metric in IMAGE.metrics)
    assert float(IMAGE.loss(off, images)) == pytest.approx(0.01, rel=1e-4)
    assert rmse == pytest.approx(0.1, rel=1e-4)
    assert r2 == pytest.approx(1 - 0.01 / float(pixels.double().var(0, correction=0).mean()), rel=1e-4)
    mean = pixels.mean(0).expand_as(pixels)
    assert IMAGE.metrics[1].function(mean, images) == pytest.approx(0, abs=1e-6)


def test_a_black_image_is_a_target_like_any_other():
    assert IMAGE.labelled(torch.zeros(2, 1, 28, 28, dtype=torch.uint8)).all()


def test_the_network_paints_from_the_shared_features(images):
    outputs, features = build(PROBLEM, PROBLEM.task_names, seed=0)(PROBLEM.prepare(images))
    assert features.shape == (6, 50)
    assert outputs["digit"].shape == (6, 10)
    assert outputs["image"].shape == (6, 784)
