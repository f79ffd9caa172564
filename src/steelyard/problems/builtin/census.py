"""Census-Income (KDD): income above $50,000 (the main task), never married, college degree.

These are the 99,762 rows of the official *test* half, divided by a fixed seed. The inputs that give a label
away are left out: education and marital status themselves, and the tax and household columns that spell out
who is married to whom; so is the sampling weight.
"""

from __future__ import annotations

import gzip

import numpy as np
import torch
from torch import Tensor, nn

from steelyard.errors import DataFileError
from steelyard.problems.data import Data
from steelyard.problems.files import DataFile, find
from steelyard.problems.kinds import binary
from steelyard.problems.problem import Problem
from steelyard.problems.rows import Split
from steelyard.problems.splits import divide, standardised
from steelyard.problems.task import Task

NAMES = """age class_worker det_ind_code det_occ_code education wage_per_hour hs_college marital_stat
major_ind_code major_occ_code race hisp_origin sex union_member unemp_reason full_or_part_emp capital_gains
capital_losses stock_dividends tax_filer_stat region_prev_res state_prev_res det_hh_fam_stat det_hh_summ
instance_weight mig_chg_msa mig_chg_reg mig_move_reg mig_same mig_prev_sunbelt num_emp fam_under_18
country_father country_mother country_self citizenship own_or_self vet_question vet_benefits weeks_worked
year income_50k"""
COLUMNS = tuple(NAMES.split())
AMOUNTS = (
    "wage_per_hour",
    "capital_gains",
    "capital_losses",
    "stock_dividends",
)  # of dollars: taken as log(1 + x)
NUMBERS = ("age", "num_emp", "weeks_worked", *AMOUNTS)
LEFT_OUT = (
    *("income_50k", "marital_stat", "education"),
    *("tax_filer_stat", "det_hh_fam_stat", "det_hh_summ", "fam_under_18", "instance_weight"),
)
CATEGORIES = tuple(name for name in COLUMNS if name not in NUMBERS and name not in LEFT_OUT)
DEGREES = (
    "Associates degree",
    "Bachelors degree",
    "Masters degree",
    "Prof school degree",
    "Doctorate degree",
)
LEVELS, HIDDEN = 512, 128

FILE = DataFile(
    "census_income_kdd_test",
    "census-income.test.gz",
    ("5ac4cacd3ca9f1ecb10de1a0a41e4ac68fdc419e3fec190f5c0c6cc03b2ea659",),
    url="https://archive.ics.uci.edu/ml/machine-learning-databases/census-income-mld/census-income.test.gz",
)


def load(seed: int = 50) -> Data:
    columns = _read()
    rows = divide(len(columns["age"]), seed=seed)
    numbers = torch.stack([torch.tensor([float(value) for value in columns[name]]) for name in NUMBERS], dim=1)
    numbers[:, -len(AMOUNTS) :] = numbers[:, -len(AMOUNTS) :].log1p()
    inputs = zip(standardised(*(numbers[part] for part in rows)), _codes(columns, rows), strict=True)
    labels = {
        "income": [value == "50000+." for value in columns["income_50k"]],
        "never-married": [value == "Never married" for value in columns["marital_stat"]],
        "degree": [value.startswith(DEGREES) for value in columns["education"]],
    }
    targets = {name: torch.tensor(values).float() for name, values in labels.items()}
    splits = [
        Split(pair, {name: values[part] for name, values in targets.items()})
        for part, pair in zip(rows, inputs, strict=True)
    ]
    return Data(splits[0], splits[1], splits[2], "the official test half alone, divided 60/20/20 by seed 50")


def _read() -> dict[str, list[str]]:
    path = find(FILE)
    # All fields in one list: four million of them in 100,000 small lists would take three times as long.
    fields = gzip.decompress(path.read_bytes()).decode().strip().replace("\n", ", ").split(", ")
    if len(fields) % len(COLUMNS):
        raise DataFileError(f"{path}: every line must have {len(COLUMNS)} fields")
    return {name: fields[index :: len(COLUMNS)] for index, name in enumerate(COLUMNS)}


def _codes(columns: dict[str, list[str]], rows: tuple[Tensor, ...]) -> list[Tensor]:
    """Number the levels of all columns in one sequence; 0 is a level that the training rows never show."""
    coded, start, training = [], 1, rows[0].tolist()
    for name in CATEGORIES:
        values = columns[name]
        code = dict.fromkeys(values, 0)
        for level in sorted(set(map(values.__getitem__, training))):
            code[level] = start
            start += 1
        coded.append(torch.from_numpy(np.fromiter(map(code.__getitem__, values), np.int32, len(values))))
    assert start <= LEVELS
    codes = torch.stack(coded, dim=1)
    return [codes[part] for part in rows]


class Trunk(nn.Module):
    """Two layers on numbers [N, 7] and codes [N, C]; a bag is a linear layer on one-hot columns."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = nn.Linear(len(NUMBERS), HIDDEN)
        self.categories = nn.EmbeddingBag(LEVELS, HIDDEN, mode="sum")
        nn.init.normal_(self.categories.weight, std=len(CATEGORIES) ** -0.5)
        self.rest = nn.Sequential(nn.ReLU(), nn.Linear(HIDDEN, 64), nn.ReLU())

    def forward(self, numbers: Tensor, codes: Tensor) -> Tensor:
        features: Tensor = self.rest(self.numbers(numbers) + self.categories(codes))
        return features


def head(task: Task) -> nn.Module:
    return nn.Linear(64, task.outputs)


problem = Problem(
    name="census",
    summary="income above $50,000, never married, college degree, from a census",
    tasks=(
        binary("income", label="income > 50k"),
        binary("never-married", label="never married"),
        binary("degree", label="college degree"),
    ),
    main="income",
    load=load,
    trunk=Trunk,
    head=head,
    batch_size=512,
    epochs=10,
    source="UCI Census-Income (KDD), the official test half (CC BY 4.0)",
    needs=("census_income_kdd_test",),
)
