"""Every registered method runs through the whole contract; so do third parties' that are installed."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import pytest

import steelyard
from cells import every
from steelyard.balancing.balancer import Balancer
from steelyard.base.specs import parse_spec
from steelyard.method_registry import method_class, method_names, options_of
from steelyard.testing import CHECKS

# By default relobralo looks back, and so draws, once in a thousand steps.
METHODS = [f"{name}(keep=0.3)" if name == "relobralo" else name for name in method_names()]
# Variants that go through other code.
OPTIONS = [
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
    "famo(form=before)",
    "mgda(solver=amortised)",
    "mgda(solver=amortised,heads=plain)",
    "mgda(solver=amortised,look=last)",
    "nash-mtl(solver=amortised)",
    "fairgrad(solver=amortised,alpha=2.0)",
    "cr-mogm(alpha=0.5)+log+mgda(solver=amortised,rate=0.5)",
    "dwa(period=2)",
    "pcgrad(reduce=mean)",
    "cagrad(c=0.2,rescale=False)",
    "nash-mtl(normalise=True,max_norm=1.0)",
    "fairgrad(alpha=2.0)",
    "aligned-mtl(common_scale=rmse)",
    "gradvac(update=below,beta=0.5)",
    "gcs(variant=weighted)",
    "log+ol-aux(steps=2)",
    "ol-aux(similarity=cosine,steps=1)",
    "metabalance(strategy=reduce,relax=1.0)",
    "mgda(normalise=l2)",
    "inverse-norm(heads=plain)",
    "max-norm(heads=weighted,common_scale=median)",
    "equal(heads=plain)",
    "log+equal",
    "ema-scale(beta=0.5)+mgda",
    "initial-scale+uw",
    "log+initial-scale(steps=2)+max-norm",
    "cr-mogm+mgda",
    "cr-mogm(alpha=0.5)+ema-scale+uw-so",
    "cr-mogm+famo(form=lagged)",
    "hydalearn(mode=first-order)",
    "log+hydalearn(judged=held-out,heads=plain)",
    "auto-lambda(start=1.0,weight_rate=0.1)",
    *[f"{row.name}(look=last)" for row in steelyard.methods() if row.reads in ("norms", "gramian", "cross_gramian")],
]
VARIANTS = [*METHODS, *OPTIONS]


def options_slow(cases: Iterable[tuple[str, ...]]) -> list[Any]:
    """Cases that begin with a method or a variant of one, for a parametrisation: variants are left to `make slow`."""
    again = pytest.mark.slow("once more for each of dozens of variants")
    return [pytest.param(*case, marks=[again] if case[0] in OPTIONS else []) for case in cases]


def build(method: str, tasks: list[str], **options: Any) -> Balancer:
    """The method; one with a main task serves ``left``, or the first task where there is no such."""
    if "main" in options_of(method_class(parse_spec(method).name)):
        options["main"] = "left" if "left" in tasks else tasks[0]
    return steelyard.make(method, tasks, **options)


LONG = "one_task_and_many"


# The toy's optimizer does not have the weights that an outside one learns.
@pytest.mark.filterwarnings("ignore:.*did not move in 10 steps:steelyard.SteelyardWarning")
@every("check", [name for name in CHECKS if name != LONG])
@pytest.mark.parametrize("method", METHODS)
def test_contract(method: str, check: str) -> None:
    CHECKS[check](functools.partial(build, method))


@pytest.mark.takes("a thousand tasks, for three steps")
@pytest.mark.parametrize("method", METHODS)
def test_contract_of_many_tasks(method: str) -> None:
    CHECKS[LONG](functools.partial(build, method))


@pytest.mark.filterwarnings("ignore:.*did not move in 10 steps:steelyard.SteelyardWarning")
@pytest.mark.slow("the whole contract again for each of dozens of variants")
@every("check", CHECKS)
@pytest.mark.parametrize("method", OPTIONS)
def test_contract_of_variants(method: str, check: str) -> None:
    CHECKS[check](functools.partial(build, method))
