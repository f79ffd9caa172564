"""A first look: the numbers are autograd's, nothing is changed, and the words follow from the numbers."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor, nn

import steelyard
from helpers import TwoLayer
from steelyard.errors import LossError, SharedError
from steelyard.method_registry import method_names

TASKS = ["left", "right", "depth"]
SCALES = {"left": 1.0, "right": 3.0, "depth": 0.5}


def made(gradients: dict[str, list[float]]) -> tuple[dict[str, Tensor], Tensor]:
    """Losses whose gradients at the features (one sample) are these."""
    size = len(next(iter(gradients.values())))
    features = torch.ones(1, size, dtype=torch.float64, requires_grad=True) * 1.0
    return {
        task: (features * torch.tensor(row, dtype=torch.float64)).sum() + 10 for task, row in gradients.items()
    }, features


def words(found: steelyard.Diagnosis) -> str:
    return " ".join(found.advice)


@pytest.mark.parametrize("place", ["features", "trunk", "parameters", "tuple"])
def test_numbers_are_those_of_autograd(place: str) -> None:
    toy = TwoLayer(SCALES)
    losses, features = toy.losses()
    parameters = list(toy.trunk.parameters())
    shared = {"features": features, "trunk": toy.trunk, "parameters": parameters, "tuple": (features,)}[place]
    at = [features] if place in ("features", "tuple") else parameters
    rows = torch.stack([
        torch.cat([g.flatten() for g in torch.autograd.grad(losses[task], at, retain_graph=True)]) for task in TASKS
    ])  # fmt: skip
    found = steelyard.diagnose(losses, shared=shared)
    total = rows.sum(0)
    assert found.tasks == tuple(TASKS)
    assert found.place == ("features" if place in ("features", "tuple") else "trunk")
    assert torch.allclose(found.losses, torch.stack([losses[task] for task in TASKS]))
    assert torch.allclose(found.norms, rows.norm(dim=1))
    assert torch.allclose(found.cosines, torch.cosine_similarity(rows[:, None], rows[None], dim=2))
    assert torch.allclose(found.alignment, torch.cosine_similarity(rows, total[None], dim=1))
    assert torch.allclose(found.shares, rows @ total / total.dot(total))
    assert found.shares.sum().item() == pytest.approx(1)


def test_nothing_is_changed_and_the_backward_pass_may_follow() -> None:
    looked, plain = TwoLayer(SCALES), TwoLayer(SCALES)
    for toy in (looked, plain):
        losses, features = toy.losses()
        if toy is looked:
            random = torch.get_rng_state()
            steelyard.diagnose(losses, shared=features)
            steelyard.diagnose(losses, shared=toy.trunk)
            assert all(parameter.grad is None for parameter in [*toy.trunk_parameters(), *toy.head_parameters()])
            assert torch.equal(torch.get_rng_state(), random)
        sum(losses.values()).backward()
    for one, other in zip(looked.trunk_parameters(), plain.trunk_parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


def test_a_dominant_task_is_named_with_its_ratio_and_with_registered_methods_only() -> None:
    losses, features = made({"big": [100.0, 0.0], "small": [0.5, 0.5], "other": [30.0, 1.0]})
    found = steelyard.diagnose(losses, shared=features)
    assert (found.dominant, found.drowned) == ("big", ("small",))
    assert found.ratio == pytest.approx(100 / math.sqrt(0.5))
    assert "'big' dominates: its gradient is 141 x the shortest" in words(found)
    named = words(found).split("To even this out: ")[1].split(".")[0].split(", ")
    assert named
    assert set(named) <= set(method_names())
    assert "No conflict: the lowest cosine is" in words(found)


def test_conflicts_are_named_the_worst_first_and_so_is_who_is_outvoted() -> None:
    losses, features = made({"a": [1.0, 0.0], "b": [-0.5, 0.5], "c": [2.0, 0.1]})
    found = steelyard.diagnose(losses, shared=features)
    assert [pair[:2] for pair in found.conflicts] == [("a", "b"), ("b", "c")]
    assert found.worsened == ("b",)
    assert "In conflict, cosine -0.1 or lower: 'a' and 'b' (-0.71), 'b' and 'c' (-0.67)." in words(found)
    assert "makes 'b' worse" in words(found)
    assert "steelyard compare" in words(found)
    assert "No task dominates: the longest gradient is 2.8 x the shortest." in words(found)


def test_tasks_without_common_samples_are_blind_at_features_and_seen_at_the_trunk() -> None:
    torch.manual_seed(0)
    trunk, inputs = nn.Linear(3, 4), torch.randn(6, 3)
    features = trunk(inputs)
    losses = {"a": features[:3].square().sum(), "b": -features[3:].square().sum()}
    found = steelyard.diagnose(losses, shared=features)
    assert found.blind == [("a", "b")]
    assert "'a' and 'b' share no samples" in words(found)
    assert "conflict:" not in words(found)
    exact = steelyard.diagnose(losses, shared=trunk)
    assert exact.blind == []
    assert exact.cosines[0, 1] != 0


def test_a_gradient_of_zero_is_named() -> None:
    losses, features = made({"a": [1.0, 1.0], "flat": [0.0, 0.0], "b": [1.0, 2.0]})
    found = steelyard.diagnose(losses, shared=features)
    assert found.silent == ("flat",)
    assert "No gradient of 'flat' arrives at the features" in words(found)
    assert found.cosines[1].isnan().all()
    assert found.shares.tolist()[1] == 0
    assert found.dominant is None


def test_gradients_that_cancel_have_no_shares() -> None:
    losses, features = made({"a": [1.0, -1.0], "b": [-1.0, 1.0]})
    found = steelyard.diagnose(losses, shared=features)
    assert found.shares.isnan().all()
    assert "'a' and 'b' (-1.00)" in words(found)


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_what_is_not_finite_is_named_and_leaves_the_others_alone(bad: float) -> None:
    losses, features = made({"a": [1.0, 0.0], "b": [1.0, 1.0], "bad": [1.0, 1.0]})
    found = steelyard.diagnose({**losses, "bad": losses["bad"] * bad}, shared=features)
    alone = steelyard.diagnose({"a": losses["a"], "b": losses["b"]}, shared=features)
    assert found.non_finite == ("bad",)
    assert "The loss of 'bad' is not finite" in words(found)
    assert torch.equal(found.cosines[:2, :2], alone.cosines)
    assert torch.equal(found.shares[:2], alone.shares)
    steep = (features - features.detach()).norm() + losses["a"] * 0 + (features[0, 0] - 1).abs().sqrt()
    assert "The gradient of 'steep'" in words(steelyard.diagnose({"a": losses["a"], "steep": steep}, shared=features))


def test_absent_tasks_and_a_single_one() -> None:
    losses, features = made({"a": [1.0, 0.0], "b": [1.0, 1.0]})
    found = steelyard.diagnose({"a": losses["a"], "b": None}, shared=features)
    assert (found.tasks, found.absent) == (("a",), ("b",))
    assert "Absent: b" in str(found)
    assert found.advice == ("One task: there is nothing to balance.",)


def test_forty_tasks_are_summed_up() -> None:
    toy = TwoLayer({f"task{number}": 1.0 for number in range(40)})
    losses, features = toy.losses()
    found = steelyard.diagnose(losses, shared=features)
    text = str(found)
    assert len(found.pairs) == 780
    assert len(text.splitlines()) < 45
    assert ".. 20 more" in text
    assert found.pairs[0][2] == min(value for *_, value in found.pairs)
    assert "780 pairs" in text


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_any_scale_gives_the_same_picture(scale: float) -> None:
    plain = TwoLayer(SCALES)
    losses, features = plain.losses()
    one = steelyard.diagnose(losses, shared=features)
    other = steelyard.diagnose({task: loss * scale for task, loss in losses.items()}, shared=features)
    assert torch.allclose(other.cosines, one.cosines)
    assert torch.allclose(other.shares, one.shares)
    assert other.ratio == pytest.approx(one.ratio)


def test_it_prints_and_goes_into_json() -> None:
    losses, features = made({"a": [1.0, 0.0], "b": [-1.0, 1.0]})
    found = steelyard.diagnose(losses, shared=features)
    assert repr(found) == str(found)
    assert "-0.71" in found.table()
    back = json.loads(json.dumps(found.to_dict()))
    assert back["cosine"]["a,b"] == pytest.approx(-math.sqrt(0.5))
    assert back["norm"] == {"a": 1.0, "b": pytest.approx(math.sqrt(2))}
    assert back["advice"] == list(found.advice)


def test_wrong_input_is_named() -> None:
    losses, features = made({"a": [1.0, 0.0]})
    with pytest.raises(SharedError, match=r"diagnose\(losses, shared=features\)"):
        steelyard.diagnose(losses, shared=None)
    with pytest.raises(LossError, match="write diagnose"):
        steelyard.diagnose({}, shared=features)
    with pytest.raises(LossError, match="every task is absent"):
        steelyard.diagnose({"a": None}, shared=features)
    with pytest.raises(LossError, match="has no graph"):
        steelyard.diagnose({"a": losses["a"].detach()}, shared=features)
    with pytest.raises(SharedError, match="depends on shared="):
        steelyard.diagnose(losses, shared=features.clone())
