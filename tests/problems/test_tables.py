"""split() divides plain arrays without losing or repeating a row, and scales by the training rows alone."""

import numpy as np
import pytest
import torch

from steelyard.errors import UnknownNameError
from steelyard.problems import ProblemError, split
from steelyard.problems.tables import deal, in_fold


def test_every_row_lands_in_one_part_with_its_own_label():
    data = split(np.arange(50.0)[:, None], {"a": np.arange(50.0), "b": np.arange(50)}, seed=3)
    assert [len(part) for part in data.splits().values()] == [30, 10, 10]
    rows = torch.cat([part.inputs[:, 0] for part in data.splits().values()])
    assert sorted(rows.tolist()) == list(range(50))
    for part in data.splits().values():
        assert torch.equal(part.inputs[:, 0], part.targets["a"])
        assert part.targets["b"].dtype == torch.int64
        assert part.inputs.dtype == torch.float32


def test_the_seed_decides_the_division_and_the_global_state_does_not():
    def rows(seed):
        torch.manual_seed(torch.seed())
        return split(np.arange(50.0), {"a": np.arange(50)}, seed=seed).test.targets["a"].tolist()

    assert rows(1) == rows(1) != rows(2)


def test_scaling_uses_the_training_rows_alone():
    inputs = np.random.default_rng(0).normal(5, 3, (200, 4))
    data = split(inputs, {"a": inputs[:, 0]}, standardise=True, standardise_targets=["a"])
    torch.testing.assert_close(data.train.inputs.mean(0), torch.zeros(4), atol=1e-6, rtol=0)
    torch.testing.assert_close(data.train.inputs.std(0, correction=0), torch.ones(4))
    assert data.test.inputs.mean(0).abs().max() > 1e-3
    for part in data.splits().values():
        torch.testing.assert_close(part.targets["a"], part.inputs[:, 0])


def test_folds_are_disjoint_and_each_gets_its_share_of_every_stratum():
    strata = torch.tensor([0] * 50 + [1] * 25 + [7] * 8)
    dealt = deal(strata, folds=5, seed=1)
    assert [strata[dealt == fold].bincount()[[0, 1]].tolist() for fold in range(5)] == [[10, 5]] * 5
    assert {int((dealt[strata == 7] == fold).sum()) for fold in range(5)} == {1, 2}
    tested = []
    for fold in range(5):
        train, validation, test = in_fold(dealt, fold)
        assert torch.cat([train, validation, test]).sort().values.tolist() == list(range(83))
        assert set(validation.tolist()) == set((dealt == (fold + 1) % 5).nonzero()[:, 0].tolist())
        tested += test.tolist()
    assert sorted(tested) == list(range(83))
    assert not torch.equal(dealt, deal(strata, folds=5, seed=2))


def test_constant_columns_become_zero_and_time_stamps_keep_their_differences():
    inputs = np.stack([np.full(100, 0.1), 1.7e9 + np.arange(100.0)], axis=1)
    data = split(inputs, {"a": np.arange(100)}, standardise=True)
    assert data.train.inputs[:, 0].abs().max() < 1e-6
    order = data.train.targets["a"].argsort()
    assert (data.train.inputs[order, 1].diff() > 0).all()


def test_missing_targets_stay_missing_when_scaled():
    values = np.arange(30.0)
    values[::3] = np.nan
    data = split(np.zeros((30, 1)), {"a": values}, standardise_targets=["a"])
    missing = sum(int(part.targets["a"].isnan().sum()) for part in data.splits().values())
    assert missing == 10


def test_several_inputs_stay_a_tuple_and_bytes_stay_bytes():
    images, table = np.zeros((20, 3, 3), np.uint8), np.random.default_rng(0).normal(size=(20, 2))
    data = split((images, table), {"a": np.arange(20)}, standardise=True)
    assert [part.dtype for part in data.train.inputs] == [torch.uint8, torch.float32]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"inputs": np.array([["young"], ["old"]]), "targets": {"a": [0, 1]}},
            "inputs hold something that is no number",
        ),
        ({"inputs": np.zeros((9, 1)), "targets": {"a": ["x"] * 9}}, "targets of 'a' hold something"),
        ({"inputs": np.zeros((9, 1)), "targets": {"a": np.zeros(8)}}, "8 rows of 'a' for 9 rows"),
        ({"inputs": np.zeros((9, 1)), "targets": {}}, "needs targets"),
        ({"inputs": np.zeros((9, 1)), "targets": {"a": np.zeros(9)}, "test": 0.9}, "leave an empty part"),
        ({"inputs": np.zeros((9, 1)), "targets": {"a": np.zeros(9)}, "validation": 0.0}, "leave an empty part"),
    ],
)
def test_what_cannot_be_divided_is_named(arguments, message):
    with pytest.raises(ProblemError, match=message):
        split(**arguments)


def test_an_unknown_target_to_scale_suggests_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean 'weight'"):
        split(np.zeros((9, 1)), {"weight": np.arange(9.0)}, standardise_targets=["wieght"])
