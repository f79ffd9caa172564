"""A clip that cuts every step because weights are large: said once, where it is so, and nowhere else."""

from __future__ import annotations

import warnings

import pytest
import torch

from loops.test_closures import PLACED, toy_for
from testing.test_contract import VARIANTS, build, options_slow

TASKS = ["left", "right"]
LARGE = {"log", "db-mtl", "log+equal"}
"""Some of those whose weights are far above 1 for losses of 1e-3, by their formula."""
ONE = {spec: place for spec, place in PLACED if spec in VARIANTS}
# What is said follows from the weights and the clip, wherever gradients are read: one of each kind in both places.
BOTH = [each for each in PLACED if each[0] in ("inverse-norm", "mgda", "pcgrad", "db-mtl")]
# By their formula these send one length to the trunk in every step, and nothing to speak of to plain heads.
ONE_LENGTH = [(f"{spec}(heads=plain)", "trunk") for spec in ("nash-mtl", "fairgrad", "log+nash-mtl")]
CASES = list(dict.fromkeys([*ONE.items(), *BOTH, *ONE_LENGTH]))


def heard(spec: str, place: str, clip: float | None, scale: str = "paper") -> tuple[list[str], list[float]]:
    """What is said in ten steps on losses of about 1e-3, and the sums of the weights."""
    balancer = build(spec, TASKS, scale=scale)
    toy = toy_for(balancer, place, TASKS)
    toy.rescale = lambda task, loss: 1e-3 * loss
    optimizer = torch.optim.SGD(toy.parameters(), lr=0.1 if clip else 1e-3)
    balancer.attach(optimizer)
    sums = []
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(10):
            losses, where = toy.losses()
            optimizer.zero_grad()
            balancer(losses, **where).backward()
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(toy.parameters(), clip)
            optimizer.step()
            if balancer.needs_after:
                balancer.observe(after=toy.losses()[0])
            sums.append(float(balancer.last_weights.sum()) / len(TASKS))
    return [str(each.message) for each in said if "clip_grad_norm_" in str(each.message)], sums


@pytest.mark.parametrize("spec", ["nash-mtl", "nash-mtl(max_norm=1.0)", "nash-mtl(max_norm=9.0)", "fairgrad"])
def test_a_length_that_is_said_to_be_constant_is(spec: str) -> None:
    """Whatever the gradients and the priorities are."""
    generator = torch.Generator().manual_seed(0)
    balancer = build(spec, TASKS, priorities={"left": 3.0, "right": 1.0})
    for _ in range(3):
        rows = torch.randn(2, 5, generator=generator, dtype=torch.float64)
        place = torch.ones(5, dtype=torch.float64, requires_grad=True)
        balancer(dict(zip(TASKS, rows @ place, strict=True)), shared=[place]).backward()
        assert float(place.grad.norm()) == pytest.approx(balancer.constant_length)
    assert balancer.constant_length == (1.0 if "1.0" in spec else 2.0)


@pytest.mark.parametrize(("spec", "place"), options_slow(CASES))
def test_a_clip_that_cuts_every_step_is_said_where_weights_are_large(spec: str, place: str) -> None:
    texts, sums = heard(spec, place, clip=1e-2)
    large = min(sums) >= 20 and (max(sums) - min(sums)) / max(sums) >= 1e-3
    assert len(texts) == large, sums
    assert large or spec not in LARGE, sums
    assert all("scale='sum'" in text for text in texts)
    if large:
        assert not heard(spec, place, clip=1e-2, scale="sum")[0]
        assert not heard(spec, place, clip=None)[0]
