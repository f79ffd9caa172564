"""Credit default: nothing of rate, grade or default reaches the inputs; a missing rate is masked; other files fail."""

import dataclasses
import gzip
import hashlib

import numpy as np
import pytest

from steelyard.problems import DataFileError
from steelyard.problems.builtin import credit_default

LOANS = 60


def lines(missing=(3, 4)):
    random = np.random.default_rng(0)
    rows = []
    for number in range(LOANS):
        rate = "NA" if number in missing else f"{random.uniform(5, 20):.2f}"
        grade, home = random.choice(list("ABCDEFG")), random.choice(["RENT", "MORTGAGE", "OWN", "OTHER"])
        years = "NA" if number % 9 == 0 else str(number % 20)
        amounts = [random.integers(500, 30_000), random.integers(10_000, 90_000), random.integers(20, 70)]
        rows.append(f"{number % 5 == 0:d},{amounts[0]},{rate},{grade},{years},{home},{amounts[1]},{amounts[2]}")
    return [",".join(credit_default.COLUMNS), *rows]


@pytest.fixture
def write(tmp_path, monkeypatch):
    def write(content, known=True):
        path = tmp_path / "lendingclub_loans" / "loan_data.csv.gz"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(content))
        monkeypatch.setenv("STEELYARD_DATA", str(tmp_path))
        if known:
            monkeypatch.setattr(credit_default, "TEXT", hashlib.sha256(content).hexdigest())
        return path

    return write


def test_a_missing_rate_is_masked_and_the_others_are_standardised(write):
    write("\n".join(lines()).encode())
    problem = dataclasses.replace(credit_default.problem)
    splits = problem.data().splits()
    task = problem.task("interest")
    assert sum(int((~task.labelled(split.targets["interest"])).sum()) for split in splits.values()) == 2
    assert float(splits["train"].targets["interest"].nanmean()) == pytest.approx(0, abs=1e-5)
    assert problem.main == "default"


def test_inputs_know_nothing_of_what_is_to_be_learnt():
    header, *rows = lines()
    columns = dict(zip(header.split(","), map(list, zip(*(row.split(",") for row in rows), strict=True)), strict=True))
    there = credit_default.inputs(columns)
    assert there.shape == (LOANS, 9)
    assert np.isfinite(there).all()
    hidden = {**columns, "default": ["1"] * LOANS, "interest": ["NA"] * LOANS, "grade": ["G"] * LOANS}
    assert np.array_equal(there, credit_default.inputs(hidden))


def test_a_file_that_is_damaged_or_another_one_is_named(write):
    text = "\n".join(lines()).encode()
    path = write(text)
    write(text + b"1,1,1,A,1,OWN,1,1\n", known=False)
    with pytest.raises(DataFileError, match="differs from the known one"):
        credit_default.load()
    path.write_bytes(gzip.compress(text)[:-200])
    with pytest.raises(DataFileError, match="cannot be unpacked"):
        credit_default.load()
    path.write_bytes(text)
    with pytest.raises(DataFileError, match="cannot be unpacked: Not a gzipped file"):
        credit_default.load()
