"""The seed alone decides which labels are kept and in which order rows come."""

from itertools import pairwise

import pytest
import torch

from steelyard.problems import Split, classification, regression
from steelyard.study.training.sampling import batches, completed, kept_labels, steps_per_epoch, used_rows

LEFT, RIGHT = classification("left", 3), regression("right")


@pytest.fixture
def split():
    labels = torch.arange(100) % 3
    gaps = torch.arange(100.0)
    gaps[::4] = torch.nan  # 25 missing labels
    return Split(torch.zeros(100, 1), {"left": labels, "right": gaps})


def test_small_fractions_are_subsets_of_large_ones(split):
    for task, available in ((LEFT, 100), (RIGHT, 75)):
        kept = [kept_labels(task, split, fraction, seed=1) for fraction in (0.02, 0.1, 0.5, 1.0)]
        assert [int(mask.sum()) for mask in kept] == [max(1, round(f * available)) for f in (0.02, 0.1, 0.5, 1.0)]
        for small, large in pairwise(kept):
            assert bool((large | ~small).all())
    assert not kept_labels(RIGHT, split, 1.0, seed=1)[::4].any()


def test_tasks_of_one_fraction_keep_the_same_rows_and_seeds_others(split):
    split.targets["right"] = torch.arange(100.0)
    assert torch.equal(kept_labels(LEFT, split, 0.3, seed=1), kept_labels(RIGHT, split, 0.3, seed=1))
    assert not torch.equal(kept_labels(LEFT, split, 0.3, seed=1), kept_labels(LEFT, split, 0.3, seed=2))


def test_at_least_one_label_is_kept(split):
    assert int(kept_labels(LEFT, split, 1e-6, seed=0).sum()) == 1


def test_rows_without_any_label_are_left_out():
    labels = {"a": torch.tensor([True, False, False]), "b": torch.tensor([False, False, True])}
    assert used_rows(labels).tolist() == [True, False, True]


@pytest.mark.parametrize("rows", [1, 2, 7, 8, 9, 16, 17, 18, 31])
def test_each_row_comes_once_per_epoch_and_never_alone(rows):
    used = torch.arange(40) < rows
    found = list(batches(used, 8, seed=3, epoch=1))
    assert sorted(torch.cat(found).tolist()) == list(range(rows))
    assert len(found) == steps_per_epoch(rows, 8)
    assert rows == 1 or all(len(batch) > 1 for batch in found)
    assert all(len(batch) <= 9 for batch in found)


@pytest.mark.parametrize(("least", "passes"), [(0, 1), (3, 1), (4, 2), (7, 3)])
def test_an_epoch_of_few_rows_goes_through_them_as_often_as_its_steps_need(least, passes):
    used = torch.arange(40) % 2 == 0  # 20 rows: 3 steps of 8, 8 and 4
    found = list(batches(used, 8, seed=3, epoch=1, least=least))
    assert len(found) == steps_per_epoch(20, 8, least) == 3 * passes
    for start in range(0, len(found), 3):
        assert sorted(torch.cat(found[start : start + 3]).tolist()) == list(range(0, 40, 2))
    # The first pass is that of an epoch without a least, and every pass has an order of its own.
    assert all(map(torch.equal, found[:3], batches(used, 8, seed=3, epoch=1)))
    orders = {tuple(torch.cat(found[start : start + 3]).tolist()) for start in range(0, len(found), 3)}
    assert len(orders) == passes


def test_the_order_changes_by_epoch_and_is_shared_by_thinned_sets():
    everything, half = torch.ones(64, dtype=torch.bool), torch.arange(64) % 2 == 0
    order = torch.cat(list(batches(everything, 8, seed=3, epoch=1))).tolist()
    thinned = torch.cat(list(batches(half, 8, seed=3, epoch=1))).tolist()
    assert [row for row in order if row % 2 == 0] == thinned
    assert order != torch.cat(list(batches(everything, 8, seed=3, epoch=2))).tolist()
    assert order != torch.cat(list(batches(everything, 8, seed=4, epoch=1))).tolist()
    assert order == torch.cat(list(batches(everything, 8, seed=3, epoch=1))).tolist()


def test_a_further_batch_has_a_label_of_every_task_of_the_batch_at_hand():
    """The rare one comes as an independent draw of its rows; what the batch lacks itself, and what is there, stays."""
    common, rare, absent = torch.ones(50, dtype=torch.bool), torch.arange(50) >= 46, torch.arange(50) == 3
    labels, drawn = (common, rare, absent), torch.arange(8)
    found = [completed(drawn, labels, torch.tensor([47, 10]), seed) for seed in range(400)]
    assert all(torch.equal(each[:-1], drawn) and len(each) == 9 for each in found)
    counts = torch.bincount(torch.stack([each[-1] for each in found]), minlength=50)
    assert counts[:46].sum() == 0
    assert counts[46:].min() > 60, "each of its four rows a quarter of the time"
    assert torch.equal(completed(drawn, labels, torch.tensor([10, 11]), 0), drawn)
    assert torch.equal(completed(torch.tensor([2, 48]), labels, torch.tensor([47, 10]), 0), torch.tensor([2, 48]))
