"""QM8: bits become numbers of bits, targets are standardised and may be missing, a foreign file is refused."""

import dataclasses

import numpy as np
import pytest
import torch

from steelyard.problems import DataFileError, ProblemError
from steelyard.problems.builtin import qm8

MOLECULES = 50


def arrays(missing=()):
    random = np.random.default_rng(0)
    bits = np.zeros((MOLECULES, qm8.BITS), np.uint8)
    for row in bits:
        row[random.choice(qm8.BITS, random.integers(1, 9), replace=False)] = 1
    values = random.normal(0.2, 0.04, (MOLECULES, 12)).astype(np.float32)
    values[missing, 3] = np.nan
    return {
        "fp_packed": np.packbits(bits, axis=1),
        "desc": random.normal(size=(MOLECULES, qm8.DESCRIPTORS)).astype(np.float32),
        "Y": values,
        "tasks": np.array(list(qm8.TARGETS)),
    }


def test_a_bag_over_the_set_bits_is_a_linear_layer_on_all_bits():
    bits = np.random.default_rng(0).integers(0, 2, (6, qm8.BITS), np.uint8) * (np.arange(6)[:, None] != 2)
    numbers = torch.from_numpy(qm8.set_bits(bits))
    assert numbers.shape == (6, bits.sum(1).max())
    trunk = qm8.Trunk()
    dense = torch.from_numpy(bits).float() @ trunk.bits.weight[: qm8.BITS]
    torch.testing.assert_close(trunk.bits(numbers), dense, rtol=1e-4, atol=1e-4)
    assert trunk.bits(numbers)[2].abs().max() == 0  # no bit set


def test_targets_are_standardised_by_the_training_rows_and_gaps_stay(write_arrays):
    write_arrays(qm8, **arrays(missing=[0, 1, 2]))
    data = dataclasses.replace(qm8.problem).data()
    energies = data.train.targets["E1-CC2"]
    assert float(energies.mean()) == pytest.approx(0, abs=1e-6)
    assert float(energies.std(correction=0)) == pytest.approx(1, abs=1e-5)
    task = qm8.problem.task("f2-CC2")
    assert sum(int((~task.labelled(split.targets["f2-CC2"])).sum()) for split in data.splits().values()) == 3


def test_a_target_without_any_value_and_a_foreign_file_are_refused(write_arrays):
    path = write_arrays(qm8, **arrays(missing=slice(None)))
    with pytest.raises(ProblemError, match="every label of 'f2-CC2' is missing"):
        dataclasses.replace(qm8.problem).data()
    np.savez(path, **arrays())
    with pytest.raises(DataFileError, match=r"qm8\.npz differ from the known ones"):
        dataclasses.replace(qm8.problem).data()
