"""Two images on one canvas: places, maximum in the overlap, and the resize of Multi-MNIST."""

import torch

from steelyard.problems.builtin.multi_mnist import OFFSET, pairs, prepare
from steelyard.problems.builtin.overlay import overlay


def test_images_lie_at_their_corners_and_the_maximum_wins():
    left = torch.full((1, 4, 4), 10, dtype=torch.uint8)
    right = torch.full((1, 4, 4), 200, dtype=torch.uint8)
    right[0, 0, 0] = 3
    canvas = overlay(left, right, 2)[0]
    assert canvas.shape == (6, 6)
    assert canvas[0, 0] == 10
    assert canvas[2, 2] == 10  # 10 over 3
    assert canvas[3, 3] == 200
    assert canvas[5, 5] == 200
    assert canvas[0, 5] == canvas[5, 0] == 0


def test_the_overlay_leaves_its_arguments_alone():
    left, right = torch.zeros(1, 3, 3, dtype=torch.uint8), torch.full((1, 3, 3), 9, dtype=torch.uint8)
    overlay(left, right, 1)
    assert left.sum() == 0


def test_pairs_are_resized_from_36_to_28_pixels():
    # A white left image alone covers 0:28 of 36 pixels, so 28 * 28 / 36 = 21.8 of 28 after the resize.
    white, black = torch.full((5000, 28, 28), 255, dtype=torch.uint8), torch.zeros(5000, 28, 28, dtype=torch.uint8)
    left, right = pairs(white, black), pairs(black, white)
    assert left.shape == (5000, 1, 28, 28)
    assert left.dtype == torch.uint8
    assert torch.equal(left[0], left[4999])
    width = left[0, 0, 0].double() / 255
    assert abs(width.sum() - 28 * 28 / 36) < 0.05
    assert right[0, 0, 10, : int(OFFSET * 28 / 36)].sum() == 0
    assert prepare(left).max() == 1
