"""What results come from: the code, the data and the versions; trials are known by them."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from steelyard import __version__
from steelyard.problems.problem import Problem
from steelyard.problems.sources import code_digest, data_digest


@dataclass(frozen=True)
class Origin:
    """The code, data and versions that a study trains with.

    Args:
        code: digest of the files that the problem is written in.
        sources: these files, by module.
        data: digest of all numbers of all splits, by fold; None of a fold that no seed of the study is tested on.
        versions: of Steelyard, torch and Python (whose last digit changes no result).
    """

    code: str
    sources: dict[str, str]
    data: tuple[str | None, ...]
    versions: dict[str, str]

    @classmethod
    def of(cls, problem: Problem, seeds: Iterable[int]) -> Origin:
        """Load the data of these seeds' folds and take note of what there is."""
        folds = {seed % problem.folds for seed in seeds}
        return cls(
            code_digest(problem.sources),
            {module: str(file) for module, file in problem.sources.items()},
            tuple(data_digest(problem.data(fold)) if fold in folds else None for fold in range(problem.folds)),
            {
                "steelyard": __version__,
                "torch": str(torch.__version__),
                "python": ".".join(platform.python_version_tuple()[:2]),
            },
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Origin:
        return cls(**{**values, "data": tuple(values["data"])})

    def mark(self, seed: int) -> str:
        """Sixteen letters that change with anything of it that a trial of this seed is trained with."""
        text = json.dumps([self.code, self.data_of(seed), self.versions], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def data_of(self, seed: int) -> str | None:
        return self.data[seed % len(self.data)]

    def code_is_unchanged(self) -> bool:
        return code_digest({module: Path(file) for module, file in self.sources.items()}) == self.code
