"""Every registered method runs through the whole contract; so do third parties' that are installed."""

from __future__ import annotations

import pytest

import steelyard
from steelyard.registry import method_names
from steelyard.testing import CHECKS

# Variants that go through other code; by default relobralo looks back, and so draws, once in a thousand steps.
VARIANTS = [
    *[name for name in method_names() if name != "relobralo"],
    "relobralo(keep=0.3)",
    "schedule(per=epoch)",
    "uw-revised(learn=external)",
    "imtl-l(learn=external)",
    "cov(decay=0.9)",
    "stch(warm_up=0,smoothness=0.3,period=2)",
    "igb(base_epoch=1,log_losses=False,period=1)",
    "softadapt(variant=normalised,order=3)",
    "softadapt(variant=loss-weighted,per=epoch)",
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
    "log+initial-scale(steps=2)+max-norm",
]


@pytest.mark.parametrize("check", CHECKS, ids=str)
@pytest.mark.parametrize("method", VARIANTS)
def test_contract(method: str, check: str) -> None:
    CHECKS[check](lambda tasks, **options: steelyard.make(method, tasks, **options))
