"""GCS, OL-AUX and MetaBalance: methods that serve one main task."""

from __future__ import annotations

import pytest
import torch

import steelyard
from gramian_cases import balancer, random_rows, weigh
from steelyard.errors import OptionError, UnknownNameError

METHODS = ["gcs", "ol-aux", "metabalance"]


def without(method: steelyard.Balancer, rows: torch.Tensor, absent: str) -> torch.Tensor:
    features = torch.zeros(rows.shape[1], dtype=rows.dtype, requires_grad=True) * 1
    losses = {task: row @ features + 1 for task, row in zip(method.tasks, rows, strict=True) if task != absent}
    method(losses, shared=features)
    return method.last_weights


@pytest.mark.parametrize("name", METHODS)
def test_the_main_task_must_be_named(name: str) -> None:
    with pytest.raises(OptionError, match=r"give main='seg', or another of seg, depth"):
        steelyard.make(name, ["seg", "depth"])
    with pytest.raises(UnknownNameError, match=r"Did you mean 'depth'.*main="):
        steelyard.make(name, ["seg", "depth"], main="deepth")
    assert steelyard.make(f"{name}(main=depth)", ["seg", "depth"]).main == "depth"


@pytest.mark.parametrize("variant", ["unweighted", "weighted"])
@pytest.mark.parametrize("main", [0, 2])
def test_gcs_is_its_reference(variant: str, main: int) -> None:
    for seed in range(5):
        rows = random_rows(4, 12, seed, 1e6, 1.0)
        expected = []
        for k, row in enumerate(rows):
            cosine = float(torch.nn.functional.cosine_similarity(rows[main], row, dim=0))
            expected.append(1.0 if k == main else max(0.0, cosine) if variant == "weighted" else float(cosine > 0))
        found = weigh(balancer("gcs", 4, variant=variant, main=str(main)), rows)
        assert found.tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("similarity", ["inner", "cosine"])
def test_ol_aux_is_its_reference(similarity: str) -> None:
    options = {"beta": 2.0, "steps": 3, "similarity": similarity, "learning_rate": 0.1, "main": "1"}
    method = balancer("ol-aux", 3, **options)
    weights, total = torch.ones(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for number in range(10):
        rows = random_rows(3, 12, number)
        assert torch.allclose(weigh(method, rows), weights, rtol=1e-10), (
            "what a step teaches counts from the next one on"
        )
        units = rows / rows.norm(dim=1, keepdim=True)
        total += 0.1 * (units @ units[1] if similarity == "cosine" else rows @ rows[1])
        if number % 3 == 2:
            weights, total = weights + 2.0 * total, 0 * total
            weights[1] = 1.0


def test_ol_aux_holds_still_without_the_main_task() -> None:
    method = balancer("ol-aux(steps=1,similarity=cosine,learning_rate=1.0)", 3)
    rows = random_rows(3, 12, 0)
    assert weigh(method, rows).tolist() == [1.0, 1.0, 1.0]
    held = without(method, rows, "0")
    assert float(held[0]) == 0
    assert torch.equal(without(method, rows, "0"), held)
    assert torch.equal(weigh(method, rows)[1:], held[1:])


@pytest.mark.parametrize("strategy", ["both", "reduce", "enlarge"])
def test_metabalance_is_its_reference(strategy: str) -> None:
    method = balancer("metabalance", 4, strategy=strategy, relax=0.6, beta=0.8, main="2")
    averages = torch.zeros(4, dtype=torch.float64)
    for number in range(6):
        rows = random_rows(4, 12, number, 1e3)
        averages = 0.8 * averages + 0.2 * rows.norm(dim=1)
        weights = 0.6 * averages[2] / averages + 0.4
        if strategy == "reduce":
            weights = weights.clamp(max=1)
        elif strategy == "enlarge":
            weights = weights.clamp(min=1)
        assert torch.allclose(weigh(method, rows), weights, rtol=1e-10)


def test_metabalance_remembers_an_absent_main_task() -> None:
    method = balancer("metabalance(relax=1.0,beta=0.0)", 2)
    rows = random_rows(2, 12, 0)
    weigh(method, rows)
    ratio = float(rows[0].norm() / rows[1].norm())
    assert without(method, 2 * rows, "0").tolist() == pytest.approx([0.0, ratio / 2])


def test_zero_auxiliary_gradients_weigh_one() -> None:
    rows = random_rows(2, 12, 0)
    assert weigh(balancer("metabalance", 2), rows * torch.tensor([[1.0], [0.0]])).tolist() == [1.0, 1.0]
