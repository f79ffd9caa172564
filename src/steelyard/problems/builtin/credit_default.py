"""Credit default: will a borrower fail (the main task), at what interest and in which grade was the loan made?

29,092 loans of LendingClub. The lender set rate and grade by what it held the risk to be, with data that are not
here: they know much about the main task (default rises from 6 % in grade A to 38 % in G) and cannot be had from the
inputs, of which they are therefore no part. The rate is missing in 9.5 % of the rows.

Inputs: amount, income, amount by income and age as logarithms, years of employment (the median where missing, and
whether it was), ownership of the home; standardised on the training rows.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib

import numpy as np
import numpy.typing as npt
from torch import nn

from steelyard.errors import DataFileError
from steelyard.problems.data import Data
from steelyard.problems.files import DataFile, find
from steelyard.problems.kinds import binary, classification, regression
from steelyard.problems.problem import Problem
from steelyard.problems.splits import split
from steelyard.problems.task import Task

COLUMNS = ("default", "amount", "interest", "grade", "years", "ownership", "income", "age")
MISSING = "NA"
GRADES = "ABCDEFG"
OWNERSHIP = ("RENT", "MORTGAGE", "OWN")  # one more, OTHER, is none of them
FILE = DataFile(
    "lendingclub_loans",
    "loan_data.csv.gz",
    how=f"It holds 29,092 lines of {','.join(COLUMNS)}, gzipped.",
)
TEXT = "48cc67c9a5f9e2f54edd465466905e345119d54ea4d98745ed8700ac125cac2b"

Numbers = npt.NDArray[np.float64]


def load(seed: int = 29) -> Data:
    columns = _read()
    targets = {
        "default": _numbers(columns["default"]),
        "interest": _numbers(columns["interest"]),
        "grade": np.array([GRADES.index(grade) for grade in columns["grade"]]),
    }
    return split(inputs(columns), targets, seed=seed, standardise=True, standardise_targets=["interest"])


def inputs(columns: dict[str, list[str]]) -> Numbers:
    """[N, 9], not yet standardised; of rate, grade and default they know nothing."""
    amount, income, age = (_numbers(columns[name]) for name in ("amount", "income", "age"))
    years = _numbers(columns["years"])
    unknown = np.isnan(years)
    parts = [np.log(amount), np.log(income), np.log(amount / income), np.log(age)]
    parts += [np.log1p(np.where(unknown, np.nanmedian(years), years)), unknown]
    parts += [np.array(columns["ownership"]) == kind for kind in OWNERSHIP]
    return np.stack(parts, axis=1).astype(np.float64)


def _read() -> dict[str, list[str]]:
    path = find(FILE)
    try:
        text = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataFileError(f"{path} cannot be unpacked: {error}. {FILE.how}") from error
    found = hashlib.sha256(text).hexdigest()
    if found != TEXT:
        raise DataFileError(
            f"the text in {path} differs from the known one: its sha256 is {found[:16]}…, expected "
            f"{TEXT[:16]}…. {FILE.how}"
        )
    lines = [line.split(",") for line in text.decode().split()]
    return {name: list(column) for name, column in zip(lines[0], zip(*lines[1:], strict=True), strict=True)}


def _numbers(values: list[str]) -> Numbers:
    return np.array([np.nan if value == MISSING else float(value) for value in values])


def trunk() -> nn.Module:
    return nn.Sequential(nn.Linear(9, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU())


def head(task: Task) -> nn.Module:
    return nn.Linear(32, task.outputs)


problem = Problem(
    name="credit-default",
    summary="will a borrower fail (main task), at what interest and in which grade was the loan made",
    tasks=(
        binary("default"),
        regression("interest", label="interest rate"),
        classification("grade", len(GRADES)),
    ),
    load=load,
    main="default",
    trunk=trunk,
    head=head,
    batch_size=128,
    epochs=15,
    source="LendingClub loans (terms unclear)",
    needs=("lendingclub_loans",),
)
