"""The real data sets, where a folder of them is named: sizes, no leak between splits, sane labels."""

import pytest
import torch

from steelyard.problems import load_problem
from steelyard.problems.builtin.idx import images_and_labels
from steelyard.study.training.problem_rehearsal import rehearse

pytestmark = pytest.mark.usefixtures("real_data")


@pytest.fixture(autouse=True)
def single_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("multi-mnist", [50_000, 10_000, 10_000]),
        ("mnist-fashion", [50_000, 10_000, 10_000]),
        ("digit-reconstruction", [50_000, 10_000, 10_000]),
        ("nyuv2", [695, 100, 654]),
        ("census", [59_858, 19_952, 19_952]),
        ("sarcos", [2669, 890, 890]),
        ("tox21", [4693, 1565, 1565]),
        ("qm8", [13_072, 4357, 4357]),
        ("office", [1519, 507, 507]),
        ("credit-default", [17_456, 5818, 5818]),
        ("gdsc", [592, 198, 198]),
        ("mnist-imbalanced", [1100, 2000, 10_000]),
        ("multi-target(table=enb)", [464, 152, 152]),
        ("multi-target(table=jura)", [215, 72, 72]),
        ("multi-target(table=oes97)", [200, 67, 67]),
        ("multi-target(table=scm20d)", [5380, 1793, 1793]),
        ("multi-target(table=wq)", [636, 212, 212]),
    ],
)
@pytest.mark.slow("reads every real data set, some of 150 MB")
def test_it_loads_and_every_part_works(name, sizes):
    data = rehearse(load_problem(name))
    assert [len(split) for split in data.splits().values()] == sizes


def test_fashion_has_ten_balanced_kinds():
    images, labels = images_and_labels("fashion_mnist", train=True)
    assert images.shape == (60_000, 28, 28)
    assert labels.bincount().tolist() == [6000] * 10


def test_left_digits_of_the_splits_are_all_mnist_images_used_once():
    data = load_problem("multi-mnist").data()
    _, labels = images_and_labels("mnist", train=True)
    left = torch.cat([data.train.targets["left"], data.validation.targets["left"]])
    assert torch.equal(left.bincount(), labels.bincount())
    assert data.train.inputs.dtype == torch.uint8


def test_census_leaves_out_what_gives_a_label_away():
    from steelyard.problems.builtin.census import CATEGORIES, NUMBERS

    used = {*CATEGORIES, *NUMBERS}
    assert not used & {"income_50k", "education", "marital_stat", "tax_filer_stat", "det_hh_fam_stat", "det_hh_summ"}
    assert len(used) == 34
    targets = load_problem("census").data().train.targets
    shares = {name: round(float(values.mean()), 2) for name, values in targets.items()}
    assert shares == {"income": 0.06, "never-married": 0.43, "degree": 0.2}


def test_sarcos_targets_keep_their_raw_scales():
    targets = load_problem("sarcos").data().train.targets
    deviations = [float(values.std()) for values in targets.values()]
    assert max(deviations) / min(deviations) > 15


def test_tox21_has_17_percent_missing_labels():
    problem = load_problem("tox21")
    splits = problem.data().splits().values()
    labelled = [task.labelled(split.targets[task.name]).float() for task in problem.tasks for split in splits]
    assert 1 - float(torch.cat(labelled).mean()) == pytest.approx(0.171, abs=1e-3)


@pytest.mark.slow("decodes 1,449 images")
def test_nyuv2_has_sane_pixels():
    problem = load_problem("nyuv2")
    splits = list(problem.data().splits().values())
    labels, depths, normals = (torch.cat([split.targets[task] for split in splits]) for task in problem.task_names)
    known = labels[labels != 255]
    shares = known.bincount().double() / len(known)
    assert int(shares.argmax()) == 11  # wall; the majority's share of all pixels of the 40 classes is .283
    assert shares.min() > 0.005
    metres = depths[depths > 0].double() * 10 / 255
    assert 2.5 < metres.mean() < 3
    floor, ceiling = (normals.permute(0, 2, 3, 1)[labels == number].double() / 127 for number in (4, 2))
    for pixels, up in ((floor, -1), (ceiling, 1)):  # y runs down
        pixels = pixels[pixels.any(1)]
        assert float((pixels[:, 1] * up > 0.7).double().mean()) > 0.65
    assert 0.5 < float((normals != 0).any(1).double().mean()) < 0.7


def test_digit_reconstruction_is_multi_mnist_with_another_second_task():
    pairs, data = (load_problem(name).data().validation for name in ("multi-mnist", "digit-reconstruction"))
    assert torch.equal(pairs.inputs, data.inputs)
    assert torch.equal(pairs.targets["left"], data.targets["digit"])
    assert data.targets["image"].data_ptr() == data.inputs.data_ptr()  # no copy


def test_a_tenth_of_the_loans_fails_and_a_tenth_of_the_rates_is_missing():
    problem = load_problem("credit-default")
    splits = problem.data().splits().values()
    assert float(torch.cat([split.targets["default"] for split in splits]).mean()) == pytest.approx(0.111, abs=1e-3)
    rates = torch.cat([split.targets["interest"] for split in splits])
    assert float(rates.isnan().float().mean()) == pytest.approx(0.095, abs=1e-3)


def test_gdsc_lists_drugs_by_how_often_they_were_measured():
    problem = load_problem("gdsc")
    splits = problem.data().splits().values()
    measured = [sum(int(task.labelled(split.targets[task.name]).sum()) for split in splits) for task in problem.tasks]
    assert measured == sorted(measured, reverse=True)
    assert 1 - sum(measured) / (988 * 265) == pytest.approx(0.183, abs=1e-3)
