"""Office: every row has a label of its own task only; batches mix tasks; angles show at the trunk alone."""

import dataclasses

import numpy as np
import pytest
import torch

import steelyard
from steelyard.errors import AngleWarning
from steelyard.models import build
from steelyard.problems.builtin import office
from steelyard.study.training.batch import task_losses
from steelyard.study.training.rows_on_device import RowsOnDevice
from steelyard.study.training.sampling import batches, kept_labels, used_rows
from steelyard.study.training.training_rows import Material

SIZES = {"amazon": 90, "caltech10": 80, "webcam": 60, "dslr": 50}


@pytest.fixture
def problem(write_arrays):
    random = np.random.default_rng(0)
    arrays = {}
    for source, size in SIZES.items():
        arrays[f"{source}_surf_X"] = random.integers(0, 5, (size, office.WORDS), dtype=np.uint8)
        arrays[f"{source}_surf_y"] = (np.arange(size) % office.CLASSES + 1).astype(np.int16)
    write_arrays(office, **arrays)
    return dataclasses.replace(office.problem)


def test_each_row_has_one_label_and_each_fold_its_share_of_every_class(problem):
    tested = 0
    for fold in range(office.FOLDS):
        data = problem.data(fold)
        for share, split in zip((0.6, 0.2, 0.2), data.splits().values(), strict=True):
            labelled = torch.stack([task.labelled(split.targets[task.name]) for task in problem.tasks])
            assert labelled.sum(0).eq(1).all()
            assert labelled.sum(1).tolist() == pytest.approx([share * size for size in SIZES.values()])
        classes = data.test.targets["amazon"]
        assert set(classes[classes >= 0].bincount(minlength=10).tolist()) == {1, 2}  # 9 of each in 5 folds
        tested += len(data.test)
    assert tested == sum(SIZES.values())


def test_rows_are_distributions_whatever_the_number_of_words_counted():
    counts = torch.randint(0, 9, (4, office.WORDS)).float()
    torch.testing.assert_close(office.roots(counts), office.roots(7 * counts))
    torch.testing.assert_close(office.roots(counts).square().sum(1), torch.ones(4))


def test_a_batch_mixes_all_tasks_and_one_task_alone_sees_its_own_rows(problem):
    train = problem.data().train
    labels = {task.name: kept_labels(task, train, 1.0, seed=0) for task in problem.tasks}
    for rows in batches(used_rows(labels), problem.batch_size, seed=0, epoch=1):
        assert all(mask[rows].any() for mask in labels.values())
    alone = used_rows({"dslr": labels["dslr"]})
    assert int(alone.sum()) == SIZES["dslr"] * 0.6
    for rows in batches(alone, 8, seed=0, epoch=1):
        assert (train.targets["dslr"][rows] >= 0).all()


def test_a_loss_is_the_mean_over_its_own_rows_and_angles_are_warned_of_at_features_alone(problem):
    train, tasks = problem.data().train, list(problem.tasks)
    rows = torch.arange(len(train))
    network = build(problem, problem.task_names, 0).eval()
    labels = {task.name: task.labelled(train.targets[task.name]) for task in tasks}
    _, targets = Material(problem, tasks, RowsOnDevice(train, tasks), labels).batch(rows)

    def losses():
        outputs, features = network(train.inputs)
        return task_losses(tasks, outputs, targets), features

    found, features = losses()
    own = labels["webcam"]
    alone = network(train.inputs[own])[0]["webcam"]
    expected = torch.nn.functional.cross_entropy(alone, train.targets["webcam"][own])
    torch.testing.assert_close(found["webcam"], expected)

    with pytest.warns(AngleWarning, match="share no samples"):
        steelyard.make("pcgrad", problem.task_names)(found, shared=features)
    assert problem.shared == "trunk"
    at_trunk = steelyard.make("pcgrad", problem.task_names)
    at_trunk(losses()[0], shared=network.trunk).backward()  # any warning is an error here
    assert at_trunk.metrics()["cosine/amazon,caltech"] != 0
