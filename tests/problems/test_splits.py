"""split() divides plain arrays without losing or repeating a row, and scales by the training rows alone."""

import importlib.util
import itertools

import numpy as np
import pytest
import torch

from steelyard.errors import SteelyardError, UnknownNameError
from steelyard.problems import ProblemError, split
from steelyard.problems.splits import deal, divide_evenly, divide_groups, in_fold


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


def test_whole_numbers_are_scaled_where_that_is_asked_for():
    """A table of whole numbers alone, and targets of whole numbers, -1 for what is missing."""
    ages = np.arange(60) * 7
    labels = ages.copy()
    labels[::5] = -1
    found, expected = (
        split(values[0][:, None], {"a": values[1]}, standardise=True, standardise_targets=["a"])
        for values in ((ages, labels), (ages.astype(float), np.where(labels == -1, np.nan, labels)))
    )
    for part, other in zip(found.splits().values(), expected.splits().values(), strict=True):
        torch.testing.assert_close(part.inputs, other.inputs, rtol=0, atol=0)
        torch.testing.assert_close(part.targets["a"], other.targets["a"], rtol=0, atol=0, equal_nan=True)


def test_several_inputs_stay_a_tuple_and_bytes_stay_bytes():
    images, table = np.zeros((20, 3, 3), np.uint8), np.random.default_rng(0).normal(size=(20, 2))
    data = split((images, table), {"a": np.arange(20)}, standardise=True)
    assert [part.dtype for part in data.train.inputs] == [torch.uint8, torch.float32]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"inputs": np.array([["young"], ["old"]]), "targets": {"a": [0, 1]}},
            "inputs, column 0 holds 'young', which is no number",
        ),
        ({"inputs": np.zeros((9, 1)), "targets": {"a": ["x"] * 9}}, "targets of 'a' holds 'x', which is no number"),
        ({"inputs": [[1.0], [2.0, 3.0]], "targets": {"a": [0, 1]}}, "inputs are no table of numbers"),
        ({"inputs": [[2**70], [1]], "targets": {"a": [0, 1]}}, "column 0 holds a whole number that 64 bits do not"),
        ({"inputs": np.zeros((9, 1)), "targets": {"a": np.zeros(8)}}, "8 rows of 'a' for 9 rows"),
        ({"inputs": np.zeros((9, 1)), "targets": {}}, "needs targets"),
        (
            {"inputs": np.zeros((9, 2), np.uint8), "targets": {"a": np.zeros(9)}, "standardise": True},
            r"the inputs are bytes \(uint8\), which stay bytes: give them as fractions",
        ),
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


class Frame:
    """What split() asks of a data frame: pandas' columns, iloc and array."""

    class NAType:
        """What pandas puts for a missing value of a column of whole numbers."""

    NA = NAType()

    def __init__(self, **columns):
        self.columns = list(columns)
        self._values = [np.asarray(values) for values in columns.values()]
        self.iloc = self

    def __getitem__(self, place):
        rows, column = place
        assert rows == slice(None)
        return self._values[column]

    def __array__(self, dtype=None, copy=None):
        kinds = {values.dtype for values in self._values}
        array = np.empty((len(self._values[0]), len(self._values)), kinds.pop() if len(kinds) == 1 else object)
        for place, values in enumerate(self._values):
            array[:, place] = values
        return array


FRAMES = [Frame]
if importlib.util.find_spec("pandas"):
    import pandas

    FRAMES.append(lambda **columns: pandas.DataFrame(columns))

TRUE, WHOLE, FRACTION = np.arange(40) % 2 == 0, np.arange(40), np.arange(40) / 8


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("columns", list(itertools.product((TRUE, WHOLE, FRACTION), repeat=2)))
def test_columns_of_several_types_stand_side_by_side(frame, columns):
    inputs = frame(**{f"column{place}": values for place, values in enumerate(columns)})
    data = split(inputs, {"a": WHOLE})
    wanted = torch.float32 if any(values is FRACTION for values in columns) else torch.int64
    for part in data.splits().values():
        assert part.inputs.dtype == wanted
        expected = torch.tensor(np.column_stack([values.astype(float) for values in columns]))[part.targets["a"]]
        assert torch.equal(part.inputs.double(), expected)


@pytest.mark.parametrize("frame", FRAMES)
def test_columns_of_truth_values_and_whole_numbers_are_standardised_as_fractions(frame):
    """As `get_dummies` gives them."""
    data = split(frame(age=WHOLE, paris=TRUE, rome=~TRUE), {"a": WHOLE}, standardise=True)
    rows = torch.cat([part.inputs for part in data.splits().values()])
    assert rows.dtype == torch.float32
    assert torch.allclose(data.train.inputs.mean(0), torch.zeros(3), atol=1e-6)
    assert torch.allclose(data.train.inputs.std(0, unbiased=False), torch.ones(3), atol=1e-6)


@pytest.mark.parametrize("frame", FRAMES)
def test_what_stands_for_a_missing_value_becomes_nan(frame):
    gaps = np.array([None, Frame.NA, True, 7, np.float32(0.5)] * 8, object)
    data = split(frame(gaps=gaps, whole=WHOLE), {"a": WHOLE, "b": gaps})
    for part in data.splits().values():
        expected = torch.tensor([torch.nan, torch.nan, 1, 7, 0.5] * 8)[part.targets["a"]]
        torch.testing.assert_close(part.targets["b"], expected, equal_nan=True)
        torch.testing.assert_close(part.inputs[:, 0], expected, equal_nan=True)


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("value", ["Paris", object(), 3j, b"raw", np.datetime64("2026-01-01")])
def test_the_column_that_is_no_numbers_is_named(frame, value):
    odd = np.array([value] * 40, object)
    with pytest.raises(ProblemError, match=r"inputs, column 'city' holds .* is no number: encode text"):
        split(frame(age=WHOLE, city=odd), {"a": WHOLE})


def test_a_foreign_byte_order_is_read():
    data = split(WHOLE.astype(">f4")[:, None], {"a": WHOLE.astype(">i2")})
    assert torch.equal(data.train.inputs[:, 0], data.train.targets["a"].float())


class TestGroups:
    """Rows of a group stay together, and parts come near to their sizes."""

    @pytest.mark.parametrize("seed", range(5))
    def test_no_group_is_in_two_parts(self, seed):
        draw = np.random.default_rng(seed)
        groups = draw.choice([f"patient {number}" for number in range(60)], size=600)
        rows = divide_groups(groups, seed, 0.2, 0.3)
        assert sorted(torch.cat(rows).tolist()) == list(range(600))
        members = [set(groups[part.numpy()]) for part in rows]
        assert not members[0] & members[1]
        assert not members[0] & members[2]
        assert not members[1] & members[2]
        assert len(rows[1]) == pytest.approx(120, abs=12)
        assert len(rows[2]) == pytest.approx(180, abs=12)

    def test_the_seed_decides(self):
        groups = np.arange(100) // 4
        first, again, other = (divide_groups(groups, seed) for seed in (1, 1, 2))
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        assert not torch.equal(first[2], other[2])

    def test_one_large_group_leaves_something_for_each_part(self):
        for seed in range(10):
            rows = divide_groups(np.array([0] * 97 + [1, 2, 3]), seed)
            assert all(len(part) for part in rows)
            assert len(rows[0]) >= 97  # the largest part has it

    def test_split_takes_them(self):
        groups = [number // 5 for number in range(40)]
        data = split(np.arange(40.0)[:, None], {"a": np.arange(40.0)}, groups=groups)
        parts = [set((part.targets["a"].long() // 5).tolist()) for part in data.splits().values()]
        assert sum(map(len, parts)) == len(set.union(*parts)) == 8


class TestStratify:
    """Every part has every value's share, to within a row."""

    @pytest.mark.parametrize("seed", range(5))
    def test_shares_of_rare_values(self, seed):
        values = np.array(["common"] * 880 + ["rare"] * 100 + ["rarest"] * 20)
        rows = divide_evenly(values, seed, 0.2, 0.3)
        assert sorted(torch.cat(rows).tolist()) == list(range(1000))
        assert [len(part) for part in rows] == [500, 200, 300]
        for part, share in zip(rows, (0.5, 0.2, 0.3), strict=True):
            for value, count in (("common", 880), ("rare", 100), ("rarest", 20)):
                assert abs((values[part.numpy()] == value).sum() - share * count) <= 2

    def test_numbers_are_shared_out_along_their_range(self):
        values = np.random.default_rng(0).lognormal(size=1000)
        for part in divide_evenly(values, 0):
            assert np.quantile(values[part.numpy()], 0.9) == pytest.approx(np.quantile(values, 0.9), rel=0.1)

    def test_by_a_task_with_missing_labels(self):
        labels = np.where(np.arange(200) % 4 == 0, np.nan, np.arange(200) % 2)
        data = split(np.arange(200.0)[:, None], {"a": labels}, stratify="a", validation=0.25, test=0.25)
        for part in data.splits().values():
            assert float(part.targets["a"].isnan().float().mean()) == pytest.approx(0.25, abs=0.03)

    def test_draws_differ_by_seed_and_rows_of_one_value_by_chance(self):
        chosen = torch.stack(
            [torch.zeros(50).index_fill(0, divide_evenly(np.zeros(50), s)[2], 1.0) for s in range(400)]
        )
        assert float(chosen.mean(0).min()) > 0.1  # a fifth of the rows, and each row as often as others
        assert float(chosen.mean(0).max()) < 0.3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"groups": [0, 1] * 5, "stratify": [0] * 10}, "give one"),
        ({"groups": [0, 1]}, "groups must have one value for each of the 10 rows"),
        ({"stratify": [[0]] * 10}, "stratify must have one value for each of the 10 rows"),
        ({"groups": [0, 1] * 5}, "2 groups cannot be divided"),
        ({"stratify": "b"}, "unknown task in stratify: 'b'"),
    ],
)
def test_groups_and_strata_that_make_no_sense(options, said):
    with pytest.raises(SteelyardError, match=said):
        split(np.arange(10.0)[:, None], {"a": np.arange(10.0)}, **options)


@pytest.mark.parametrize("gone", [None, float("nan")])
def test_rows_without_a_value_are_shared_out_as_a_value_of_their_own(gone):
    kinds = np.array(["a", "b", gone] * 20, dtype=object)
    data = split(torch.arange(60.0), {"t": torch.zeros(60)}, stratify=kinds, validation=0.2, test=0.2)
    for rows, count in zip(data.splits().values(), (12, 4, 4), strict=True):
        assert [int((rows.inputs.long() % 3 == kind).sum()) for kind in range(3)] == [count] * 3
    numbers = np.array([1.0, 2.0, None] * 20, dtype=object)
    same = split(torch.arange(60.0), {"t": torch.zeros(60)}, stratify=numbers, validation=0.2, test=0.2)
    assert [int((same.test.inputs.long() % 3 == kind).sum()) for kind in range(3)] == [4] * 3


def test_whole_numbers_keep_apart_what_fractions_do_not():
    names = np.array([10**18 + number for number in range(20)] * 2, dtype=object)
    data = split(torch.arange(40.0), {"t": torch.zeros(40)}, groups=names)
    parts = [set((rows.inputs.long() % 20).tolist()) for rows in data.splits().values()]
    assert all(not one & other for one, other in itertools.combinations(parts, 2))
    with_gaps = np.array([*names[:-1], None], dtype=object)
    assert len(split(torch.arange(40.0), {"t": torch.zeros(40)}, stratify=with_gaps).train) == 24


@pytest.mark.parametrize("groups", [["a", None] * 10, [1.0, float("nan")] * 10, [1, None] * 10])
def test_rows_of_no_group_are_refused(groups):
    with pytest.raises(ProblemError, match="groups= has no value for 10 rows, the first of them row 1: give each"):
        split(torch.arange(20.0), {"t": torch.zeros(20)}, groups=groups)
