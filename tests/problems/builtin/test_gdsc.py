"""GDSC: a task for each drug, folds that keep the tissues' shares, responses standardised by drug, gaps kept."""

import numpy as np
import pytest
import torch

from steelyard.errors import OptionError, UnknownNameError
from steelyard.models import build
from steelyard.problems import ProblemError, load_problem
from steelyard.problems.builtin import gdsc

LINES = 6 * gdsc.TISSUES


def arrays(unmeasured=None):
    random = np.random.default_rng(0)
    response = random.normal(-3, 2, (LINES, len(gdsc.DRUGS))).astype(np.float32)
    response[random.random(response.shape) < 0.18] = np.nan
    names = [f"Drug_{drug}_IC50" for drug in sorted(gdsc.DRUGS, key=int)]
    if unmeasured is not None:
        response[:, names.index(f"Drug_{unmeasured}_IC50")] = np.nan
    return {
        "X": random.integers(0, 2, (LINES, gdsc.MARKS), dtype=np.uint8),
        "tissue": np.array([f"tissue {number % gdsc.TISSUES}" for number in range(LINES)]),
        "Y": response,
        "drug": np.array(names),
    }


def test_every_line_is_tested_once_and_every_drug_keeps_its_column_and_gaps(write_arrays):
    made = arrays()
    write_arrays(gdsc, **made)
    problem = gdsc.problem(drugs=30)
    assert len(problem.tasks) == 30
    tested = []
    for fold in range(gdsc.FOLDS):
        splits = problem.data(fold).splits()
        for drug in gdsc.DRUGS[:30]:
            targets = splits["train"].targets[f"drug{drug}"]
            assert float(targets.nanmean()) == pytest.approx(0, abs=1e-5)
        tested.append(splits["test"])
    column = made["Y"][:, made["drug"].tolist().index(f"Drug_{gdsc.DRUGS[3]}_IC50")]
    targets = torch.cat([split.targets[f"drug{gdsc.DRUGS[3]}"] for split in tested])
    assert len(targets) == LINES
    assert int(targets.isnan().sum()) == int(np.isnan(column).sum())
    tissues = [split.inputs[:, gdsc.MARKS :].count_nonzero(0).tolist() for split in tested]
    assert {count for fold in tissues for count in fold} == {1, 2}  # six lines of each tissue in five folds


def test_with_the_network_of_tugda_responses_are_as_measured(write_arrays):
    made = arrays()
    write_arrays(gdsc, **made)
    place = made["drug"].tolist().index(f"Drug_{gdsc.DRUGS[1]}_IC50")
    splits = gdsc.problem(drugs=2, network="tugda").data(0).splits().values()
    found = torch.cat([split.targets[f"drug{gdsc.DRUGS[1]}"] for split in splits])
    measured = torch.from_numpy(made["Y"][:, place])
    assert torch.equal(found[~found.isnan()].sort().values, measured[~measured.isnan()].sort().values)


def test_the_network_of_tugda_comes_with_its_training():
    wide = load_problem("gdsc(drugs=5,network=tugda)")
    assert (wide.batch_size, wide.epochs, wide.choose) == (300, 100, "last")
    network = build(wide, [task.name for task in wide.tasks], seed=0)
    assert [m.p for m in network.modules() if isinstance(m, torch.nn.Dropout)] == [0.1, 0.1]
    shapes = [tuple(m.weight.shape) for m in network.modules() if isinstance(m, torch.nn.Linear)]
    assert sorted(shapes) == [*[(1, 700)] * 5, (700, 1024), (1024, 705)]
    optimizer = wide.optimizer(network.parameters())
    assert (type(optimizer), optimizer.defaults["lr"]) == (torch.optim.Adagrad, 0.001)
    with pytest.raises(UnknownNameError, match="network"):
        load_problem("gdsc(network=wide)")


def test_a_drug_that_was_never_measured_is_refused(write_arrays):
    write_arrays(gdsc, **arrays(unmeasured=gdsc.DRUGS[0]))
    with pytest.raises(ProblemError, match=f"every label of 'drug{gdsc.DRUGS[0]}' is missing"):
        gdsc.problem(drugs=5).data()


def test_dropout_hides_marks_and_never_the_tissue():
    trunk = gdsc.Trunk()
    seen = []
    trunk.layers.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    trunk(torch.ones(8, gdsc.MARKS + gdsc.TISSUES))
    assert (seen[0][:, gdsc.MARKS :] == 1).all()
    assert 0.3 < float((seen[0][:, : gdsc.MARKS] == 0).float().mean()) < 0.7


def test_drugs_is_an_option_and_names_the_problem():
    problem = load_problem("gdsc(drugs=3)")
    assert problem.name == "gdsc(drugs=3)"
    network = build(problem, problem.task_names, 0)
    assert sum(name.startswith("heads") for name, _ in network.named_parameters()) == 2 * 3
    assert len(load_problem("gdsc").tasks) == len(set(gdsc.DRUGS)) == 265
    for drugs in (0, 266, "many"):
        with pytest.raises(OptionError, match="from 1 to 265"):
            load_problem(f"gdsc(drugs={drugs})")
