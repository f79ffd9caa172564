"""Equal weights: the plain sum."""

from __future__ import annotations

import pytest

import steelyard
from loss_sequences import SIZES, epochs_of_losses, task_names, tie


class PlainSum:
    def step(self, losses):
        return dict.fromkeys(losses, 1.0)


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["equal", "fixed", "schedule"])
def test_nothing_said_is_the_plain_sum(name: str, size: int, absent: bool) -> None:
    tie(steelyard.make(name, task_names(size)), PlainSum(), epochs_of_losses(size, absent=absent))
