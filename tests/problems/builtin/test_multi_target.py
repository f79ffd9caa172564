"""Multi-target tables: targets keep their proportions, stand at zero on the training rows, and are divided by seed."""

import dataclasses
import typing

import numpy as np
import pytest
import torch

from steelyard.errors import DataFileError, UnknownNameError
from steelyard.problems import load_problem
from steelyard.problems.builtin import arrays, multi_target

TABLES = typing.get_args(multi_target.Table)
ROWS = 50


@pytest.fixture
def jura(tmp_path, monkeypatch):
    """A made-up table of three targets, 1 : 4 : 25, taken for the known one."""
    random = np.random.default_rng(0)
    values = {
        "X": random.normal(3, 7, (ROWS, 15)).astype(np.float32),
        "Y": (random.normal(size=(ROWS, 3)) * [1, 4, 25] + [10, -20, 30]).astype(np.float32),
    }
    (tmp_path / "mulan_mtr").mkdir()
    np.savez(tmp_path / "mulan_mtr" / "jura.npz", **values)
    monkeypatch.setenv("STEELYARD_DATA", str(tmp_path))
    known = dataclasses.replace(multi_target.SHAPES["jura"], arrays=arrays.digest(values))
    monkeypatch.setitem(multi_target.SHAPES, "jura", known)
    return values


def all_targets(data):
    return {name: torch.cat([part.targets[name] for part in data.splits().values()]) for name in data.train.targets}


def test_targets_are_centred_and_share_one_scale_by_the_training_rows(jura):
    data = multi_target.problem("jura").data()
    known = torch.stack(list(data.train.targets.values())).double()
    torch.testing.assert_close(known.mean(1), torch.zeros(3).double(), atol=1e-6, rtol=0)
    assert float(known.var(1, correction=0).mean()) == pytest.approx(1, rel=1e-5)
    found = [float(values.std()) for values in all_targets(data).values()]
    raw = jura["Y"].std(0)
    np.testing.assert_allclose(np.divide(found, found[0]), raw / raw[0], rtol=1e-5)
    assert float(data.train.inputs.std(0, correction=0).mean()) == pytest.approx(1, abs=1e-5)


def test_targets_stay_with_their_inputs(jura):
    data = multi_target.problem("jura").data()
    inputs = torch.cat([part.inputs for part in data.splits().values()]).double()
    copper = all_targets(data)["copper"].double()
    for column in range(15):  # sorted by a column of the inputs, the targets come in the file's order
        by_input = copper[inputs[:, column].argsort()]
        raw = torch.from_numpy(jura["Y"][np.argsort(jura["X"][:, column]), 2]).double()
        assert float(torch.corrcoef(torch.stack([by_input, raw]))[0, 1]) == pytest.approx(1, abs=1e-6)


def test_a_seed_may_have_its_own_division(jura):
    problem = multi_target.problem("jura").redrawn()
    assert not torch.equal(problem.data(0).test.inputs, problem.data(1).test.inputs)


def test_another_table_and_another_file_are_refused(jura, tmp_path):
    with pytest.raises(UnknownNameError, match=r"value of table 'rf1'.*enb.*wq"):
        load_problem("multi-target(table=rf1)")
    np.savez(tmp_path / "mulan_mtr" / "jura.npz", X=jura["X"], Y=jura["Y"] + 1)
    with pytest.raises(DataFileError, match=r"jura\.npz differ from the known ones.*multi-target table jura"):
        multi_target.problem("jura").data()


def test_rows_that_differ_in_one_column_alone_are_a_family():
    rows = np.array([[1, 7, 2], [1, 8, 2], [1, 7, 3], [1, 9, 2], [4, 7, 3]])
    families = multi_target._families(rows, 1)
    assert [[int(each == other) for other in families] for each in families] == [
        [1, 1, 0, 1, 0],
        [1, 1, 0, 1, 0],
        [0, 0, 1, 0, 0],
        [1, 1, 0, 1, 0],
        [0, 0, 0, 0, 1],
    ]
    assert multi_target._families(rows, None) is None


def test_the_four_directions_of_a_building_stay_together(real_data):
    problem = multi_target.problem("enb").redrawn()
    for seed in range(3):
        parts = [part.inputs[:, [0, 1, 2, 3, 4, 6, 7]] for part in problem.data(seed).splits().values()]
        families = [{tuple(row) for row in part.tolist()} for part in parts]
        assert [len(part) / len(family) for part, family in zip(parts, families, strict=True)] == [4, 4, 4]
        assert len(set.union(*families)) == sum(map(len, families)) == 192


@pytest.mark.parametrize("table", TABLES)
def test_every_table_is_what_it_is_said_to_be(table, real_data):
    shape = multi_target.SHAPES[table]
    data = load_problem(f"multi-target(table={table})").data()
    assert data.train.inputs.shape[1] == shape.inputs
    assert all(bool(values.isfinite().all()) for values in all_targets(data).values())
    deviations = torch.stack([values.std() for values in all_targets(data).values()])
    apart = {"enb": 1, "jura": 26, "oes97": 21, "scm20d": 1.5, "wq": 2}[table]
    assert float(deviations.max() / deviations.min()) == pytest.approx(apart, rel=0.2)
