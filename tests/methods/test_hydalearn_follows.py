"""HydaLearn's weights follow the dials of the synthetic problem: rank correlations over whole training runs."""

from __future__ import annotations

import functools

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

import steelyard
from steelyard.problems.builtin.synthetic_auxiliary import draw, head, relevance, trunk
from steelyard.problems.kinds import regression

TASKS = ["main", "auxiliary"]


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk, self.heads = trunk(), nn.ModuleDict({task: head(regression(task)) for task in TASKS})

    def forward(self, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.trunk(inputs)
        return {task: head(features)[:, 0] for task, head in self.heads.items()}


@functools.cache
def trained(drift: float, spread: float, mode: str, batch: int = 64, epochs: int = 7) -> tuple[torch.Tensor, ...]:
    """By epoch and step: the auxiliary's weight, and how relevant it was in that batch."""
    rows = draw(3200, drift, spread, seed=0)
    labels = {"main": rows.main, "auxiliary": rows.auxiliary}
    network = Network()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    balancer = steelyard.make(f"hydalearn(main=main,mode={mode})", TASKS).attach(optimizer)

    def losses_on(call, chosen):
        outputs = call(rows.inputs[chosen])
        return {task: (outputs[task] - labels[task][chosen]).square().mean() for task in TASKS}

    weights, relevances = [], []
    for _ in range(epochs):
        for chosen in torch.randperm(len(rows.inputs)).split(batch):
            with torch.no_grad():
                errors = rows.main[chosen] - network(rows.inputs[chosen])["main"]
            relevances.append(relevance(rows.agreement[chosen], errors))
            again = steelyard.losses_of(network, losses_on, chosen)
            loss = balancer(losses_on(network, chosen), again=again, shared=network)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            weights.append(float(balancer.last_weights[1]))
    return torch.tensor(weights).view(epochs, -1), torch.tensor(relevances).view(epochs, -1)


@pytest.mark.parametrize("mode", ["exact", "first-order"])
@pytest.mark.slow("whole training runs, one per dial and mode")
def test_late_weights_fall_with_the_drift_and_early_ones_do_not(mode: str) -> None:
    """Rank correlation of the last epoch's mean weight with the dial: -1."""
    dial = [0.0, 0.25, 0.5, 1.0]
    late = [float(trained(drift, 0.0, mode)[0][-1].mean()) for drift in dial]
    assert spearmanr(dial, late).statistic == pytest.approx(-1.0)
    assert late[0] > 0.7
    assert late[-1] < 0.3
    drifting = trained(1.0, 0.0, mode)[0].mean(1)
    assert float(drifting[-1]) < 0.7 * float(drifting.max()), "helpful at first"
    steady = trained(0.0, 0.0, mode)[0].mean(1)
    assert float(steady[-1]) > 0.9 * float(steady.max())


@pytest.mark.parametrize("mode", ["exact", "first-order"])
@pytest.mark.slow("whole training runs, one per dial and mode")
def test_weights_follow_each_batchs_relevance_and_vary_with_the_spread(mode: str) -> None:
    """Rank correlation with the batch's relevance above 0.5; of the weights' deviation with the dial: 1."""
    weights, relevances = (part[1:].flatten() for part in trained(0.5, 2.0, mode, 32, 4))
    assert spearmanr(weights, relevances).statistic > 0.5
    dial = [0.0, 0.5, 1.0, 2.0]
    deviations = [float(trained(0.5, spread, mode, 32, 4)[0][1:].std(1).mean()) for spread in dial]
    assert spearmanr(dial, deviations).statistic == pytest.approx(1.0)
