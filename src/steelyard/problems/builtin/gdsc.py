"""GDSC: how cancer cell lines respond to drugs; every drug is a task, 18 % of the responses were not measured.

988 cell lines by 265 drugs, the natural logarithm of the concentration (µM) that halves growth, standardised by drug on
the training rows. Inputs are 678 genomic marks (mutations and copy numbers, yes or no) and the tissue, one of 27, which
ridge regression tells apart best: its columns are 3 where the others are 1.

Five folds, drawn within each tissue: 60 % training, 20 % validation, 20 % test. ``gdsc(drugs=50)`` has the 50 drugs
that were measured on most cell lines. ``gdsc(drugs=50,network=tugda)`` has the network and the training that da Silva
et al. have in their public code of TUGDA: layers of 1,024 and 700, a tenth of them dropped, Adagrad at 0.001, batches
of 300 and 100 epochs, the last of which counts, and responses as they are, not standardised. (Their inputs, 200 drugs
and three folds are others.)

Source: Iorio et al., "A Landscape of Pharmacogenomic Interactions in Cancer" (Cell, 2016); release 17 of the Genomics
of Drug Sensitivity in Cancer.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from steelyard.base.options import one_of
from steelyard.errors import OptionError
from steelyard.problems.builtin.arrays import load_arrays
from steelyard.problems.data import Data
from steelyard.problems.files import DataFile
from steelyard.problems.kinds import regression
from steelyard.problems.metrics import pearson, r2, rmse
from steelyard.problems.problem import Problem
from steelyard.problems.rows import Split
from steelyard.problems.splits import deal, in_fold, standardised
from steelyard.problems.task import Task

# By the number of cell lines that they were measured on, most first.
NUMBERS = """211 221 152 203 225 230 206 208 223 228 238 193 205 222 229 252 253 255 256 277 283 301 306 329 332 235
254 282 292 298 330 1378 219 249 257 260 261 262 263 266 279 286 288 291 295 303 305 309 310 312 326 345 281 287 290
304 224 258 275 294 300 265 271 308 341 344 1219 1236 245 299 1494 293 333 1230 179 269 276 1192 1194 1199 1243 302
196 328 1072 1091 272 1069 331 1067 1175 1498 1149 1261 1268 346 1133 1371 273 1242 1218 1241 1259 1377 1262 1264 1375
226 274 1129 1495 268 1248 1066 134 140 153 1170 155 157 163 166 1372 154 170 171 147 156 159 165 164 136 172 200 133
151 201 202 150 167 176 192 1527 204 173 178 199 207 184 185 135 197 182 190 158 177 194 1526 1502 175 186 1114 1373
180 1012 1019 1020 1004 1005 1007 1017 1018 1026 1033 1003 1008 1011 1022 1024 1029 1031 1032 1037 1047 1049 1052 1030
1036 1021 1023 1028 1043 1006 1010 1038 1057 1058 1059 1060 1001 1009 1014 1015 1016 1042 1039 1061 1054 1053 1062 231
1013 1050 1239 1046 1025 1529 1166 1164 1142 1158 1161 1143 1203 6 35 37 34 38 29 89 91 30 104 127 9 11 55 63 71 87 88
94 5 45 53 54 59 62 64 86 41 60 52 56 111 51 106 110 119 17 32 83 1 3"""
DRUGS = tuple(NUMBERS.split())
MARKS, TISSUES, TISSUE_WEIGHT, HIDDEN, FEATURES, FOLDS = 678, 27, 3.0, 128, 64, 5
WIDE = 1024, 700  # of TUGDA
Network = Literal["small", "tugda"]
FILE = DataFile(
    "gdsc_v17",
    "gdsc_v17.npz",
    how=(
        "It holds, of release 17, X (988, 678; uint8 genomic marks), tissue (988 names), Y (988, 265; float32 ln IC50, "
        "NaN where not measured) and drug (265 names, Drug_1_IC50 and so on)."
    ),
)
ARRAYS = "3a7f09b65c987b63f045be630badf3d402d4da7d63cb423c0deebec8fe12b209"


def load(drugs: int, standard: bool, fold: int) -> Data:
    arrays = load_arrays(FILE, ("X", "tissue", "Y", "drug"), ARRAYS)
    columns = arrays["drug"].tolist()
    response = torch.from_numpy(arrays["Y"][:, [columns.index(f"Drug_{drug}_IC50") for drug in DRUGS[:drugs]]])
    _, numbers = np.unique(arrays["tissue"], return_inverse=True)
    tissue = torch.from_numpy(numbers)
    marks = torch.from_numpy(arrays["X"]).float()
    inputs = torch.cat([marks, TISSUE_WEIGHT * nn.functional.one_hot(tissue, TISSUES)], dim=1)
    rows = in_fold(deal(tissue, FOLDS, seed=17), fold)
    measured = [response[part] for part in rows]
    targets = standardised(*measured) if standard else measured
    train, validation, test = (
        Split(inputs[part], {f"drug{drug}": values[:, place] for place, drug in enumerate(DRUGS[:drugs])})
        for part, values in zip(rows, targets, strict=True)
    )
    return Data(train, validation, test, f"fold {fold} of {FOLDS} for test, the next one for validation")


class Trunk(nn.Module):
    """Two layers; half of the genomic marks are hidden from each training row, its tissue never is."""

    def __init__(self) -> None:
        super().__init__()
        self.hide = nn.Dropout(0.5)
        self.layers = nn.Sequential(
            nn.Linear(MARKS + TISSUES, HIDDEN),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(HIDDEN, FEATURES),
            nn.ReLU(),
            nn.Dropout(0.3),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        marks, tissue = torch.split(inputs, [MARKS, TISSUES], dim=1)
        features: Tensor = self.layers(torch.cat([self.hide(marks), tissue], dim=1))
        return features


def head(task: Task) -> nn.Module:
    return nn.Linear(FEATURES, task.outputs)


def wide_trunk() -> nn.Module:
    """That of TUGDA."""
    first, second = WIDE
    return nn.Sequential(
        nn.Linear(MARKS + TISSUES, first),
        nn.Dropout(0.1),
        nn.ReLU(),
        nn.Linear(first, second),
        nn.Dropout(0.1),
        nn.ReLU(),
    )


def wide_head(task: Task) -> nn.Module:
    return nn.Linear(WIDE[1], task.outputs)


def adagrad(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adagrad(parameters, lr=1e-3)


SMALL: dict[str, Any] = {"trunk": Trunk, "head": head, "batch_size": 64, "epochs": 40}
TUGDA: dict[str, Any] = {
    "trunk": wide_trunk,
    "head": wide_head,
    "optimizer": adagrad,
    "batch_size": 300,
    "epochs": 100,
    "choose": "last",
}


def problem(drugs: int = len(DRUGS), network: Network = "small") -> Problem:
    """GDSC.

    Args:
        drugs: so many, those that were measured on most cell lines.
        network: ``small``, or ``tugda``, with its training.
    """
    one_of("network", network, Network)
    if not isinstance(drugs, int) or not 1 <= drugs <= len(DRUGS):
        raise OptionError(f"drugs={drugs!r}: give a number of drugs from 1 to {len(DRUGS)}")
    return Problem(
        name="gdsc",
        summary="the response of cancer cell lines to drugs, a task for each, 18 % of it missing",
        tasks=[regression(f"drug{drug}", metrics=(pearson, r2, rmse), label=f"drug {drug}") for drug in DRUGS[:drugs]],
        load=partial(load, drugs, network == "small"),
        folds=FOLDS,
        source="Genomics of Drug Sensitivity in Cancer, release 17 (non-commercial use)",
        needs=("gdsc_v17",),
        **(SMALL if network == "small" else TUGDA),
    )
