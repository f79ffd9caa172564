"""Data that fit on a device go there once: decided by size alone."""

import pytest
import torch

from steelyard.problems import Data, Split, regression
from steelyard.problems.rows import take
from steelyard.study.training.rows_on_device import bytes_of, fits, rows_of

GIB = 2**30


@pytest.mark.parametrize(
    ("needed", "free", "sharing", "expected"),
    [
        (GIB, 2 * GIB, 1, True),  # the other half is the network's
        (GIB + 1, 2 * GIB, 1, False),
        (GIB, 4 * GIB, 2, True),
        (GIB, 4 * GIB, 3, False),
        (0, 0, 1, True),
        (1, 0, 1, False),
    ],
)
def test_half_of_a_trials_share_of_the_free_memory_is_for_data(needed, free, sharing, expected):
    assert fits(needed, free, sharing) is expected


def test_inputs_count_once_and_targets_of_the_tasks_at_hand():
    rows = Split((torch.zeros(4, 3), torch.zeros(4, dtype=torch.uint8)), {"a": torch.zeros(4), "b": torch.zeros(4, 5)})
    data = Data(rows, rows, rows)
    assert bytes_of(data, [regression("a")]) == 3 * (48 + 4 + 16)
    assert bytes_of(data, [regression("a"), regression("b")]) == 3 * (48 + 4 + 16 + 80)


def test_on_the_cpu_rows_are_the_problems_own_tensors():
    x = torch.arange(12.0).reshape(6, 2)
    rows = Split(x, {"a": x[:, 0]})
    train = rows_of(Data(rows, rows, rows), [regression("a")])["train"]
    assert train.stays
    assert train.inputs(slice(1, 3)).data_ptr() == x[1:].data_ptr()
    assert torch.equal(train.targets("a", torch.tensor([4, 0])), torch.tensor([8.0, 0.0]))


def test_take_reads_each_tensor_of_a_tuple():
    first, second = take((torch.arange(5), torch.arange(5) * 10), torch.tensor([3, 1]))
    assert first.tolist() == [3, 1]
    assert second.tolist() == [30, 10]
