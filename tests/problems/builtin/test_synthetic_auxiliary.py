"""The dials do what the equations say, and one thing each."""

from __future__ import annotations

import pytest
import torch

from steelyard.errors import OptionError, UnknownNameError
from steelyard.problems import load_problem
from steelyard.problems.builtin.synthetic_auxiliary import draw, relevance

ROWS = 200_000


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack((a, b)))[0, 1])


@pytest.mark.parametrize("drift", [0.0, 0.4, 1.0])
def test_drift_decides_what_is_left_in_common_once_the_easy_part_is_learnt(drift):
    drawn = draw(ROWS, drift, 0.0, seed=0)
    x = drawn.inputs
    easy = 2**0.5 * (x[:, 0] * x[:, 1] + x[:, 2] * x[:, 3])
    left = correlation(drawn.main - easy, drawn.auxiliary - easy)
    assert left == pytest.approx((1 - drift) ** 0.5, abs=0.03)
    assert correlation(drawn.main, drawn.auxiliary) > 0.75, "at first, the easy part counts most"
    plain = draw(ROWS, 0.0, 0.0, seed=0).auxiliary
    assert float(drawn.auxiliary.std()) == pytest.approx(float(plain.std()), rel=0.02)


@pytest.mark.parametrize("spread", [0.0, 0.5, 2.0])
def test_spread_decides_how_far_batches_differ_and_leaves_the_mean(spread):
    drawn = draw(ROWS, 0.3, spread, seed=0)
    assert float(drawn.agreement.mean()) == pytest.approx(1.0, abs=0.02)
    batches = [relevance(*part) for part in zip(drawn.agreement.split(32), drawn.main.split(32), strict=True)]
    deviation = torch.tensor(batches).std()
    # Squared errors as weights make a batch of 32 count as one of about 32 / kurtosis.
    kurtosis = float(drawn.main.pow(4).mean() / drawn.main.square().mean() ** 2)
    assert float(deviation) == pytest.approx(spread * (kurtosis / 32) ** 0.5, rel=0.35)
    plain = draw(ROWS, 0.3, 0.0, seed=0)
    assert torch.equal(plain.main, drawn.main)
    assert torch.equal(plain.inputs, drawn.inputs)
    assert float((drawn.auxiliary * drawn.main).mean()) == pytest.approx(
        float((plain.auxiliary * plain.main).mean()), rel=0.05
    )


def test_dials_are_options_of_the_problem():
    found = load_problem("synthetic-auxiliary(drift=0.5,rows=100)")
    assert found.main == "main"
    assert len(found.data().train) == 100
    default, other = load_problem("synthetic-auxiliary").data(), load_problem("synthetic-auxiliary(drift=0)").data()
    assert torch.equal(default.test.targets["main"], other.test.targets["main"])
    assert not torch.equal(default.test.targets["auxiliary"], other.test.targets["auxiliary"])
    for wrong, message in (("drift=2", "drift=2 must lie"), ("spread=-1", "spread=-1"), ("rows=0", "rows=0")):
        with pytest.raises(OptionError, match=message):
            load_problem(f"synthetic-auxiliary({wrong})")
    with pytest.raises(UnknownNameError, match="Did you mean 'drift'"):
        load_problem("synthetic-auxiliary(drit=1)")
