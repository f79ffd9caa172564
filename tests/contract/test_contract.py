"""Every registered method runs through the whole contract; so do third parties' that are installed."""

from __future__ import annotations

import pytest

import steelyard
from steelyard.registry import method_names
from steelyard.testing import CHECKS

# Options that a method cannot be built without, and variants that go through other code.
VARIANTS = [
    *[name for name in method_names() if name not in ("fixed", "schedule")],
    "fixed(weights={'left': 2.0, 'right': 0.5})",
    "ema(variant=normalised)",
    "ema(variant=to-max,start=first-loss)",
    "ema(variant=proportional)",
    "ema(per=epoch)",
    "uw(learn=external)",
    "random(distribution=dirichlet)",
    "famo(form=lagged)",
    "dwa(period=2)",
    "mgda(normalise=l2)",
    "inverse-norm(heads=plain)",
    "max-norm(heads=weighted,common_scale=median)",
    "equal(heads=plain)",
    "log+equal",
    "ema-scale(beta=0.5)+mgda",
    "initial-scale+uw",
    "log+initial-scale(steps=2)+db-mtl",
]


@pytest.mark.parametrize("check", CHECKS, ids=str)
@pytest.mark.parametrize("method", VARIANTS)
def test_contract(method: str, check: str) -> None:
    CHECKS[check](lambda tasks, **options: steelyard.make(method, tasks, **options))
