"""Try every method once before a study starts, so that what cannot work is said at once and not trial by trial."""

from __future__ import annotations

from torch import nn

from steelyard.balancing.balancer import Balancer
from steelyard.errors import LossError, OptionError, SteelyardError
from steelyard.models import build
from steelyard.problems.network_parameters import Parameters
from steelyard.problems.problem import Problem
from steelyard.study.planning.plan import Plan
from steelyard.study.training.batch import (
    Forward,
    LossesOf,
    recompute,
    tell_labels,
)
from steelyard.study.training.hardware import ON_CPU, Hardware
from steelyard.study.training.rows_on_device import RowsOnDevice
from steelyard.study.training.sampling import order_of
from steelyard.study.training.train import make_balancer
from steelyard.study.training.training_rows import Material
from steelyard.study.trial import SINGLE_TASK


def rehearse_methods(plan: Plan, problem: Problem, hardware: Hardware = ON_CPU) -> int:
    """One backward of every method on one batch of the untrained network; the network's number of parameters.

    Args:
        hardware: where to try them.

    Raises:
        SteelyardError: a method cannot balance these losses.
    """
    tasks, seed = [problem.task(name) for name in plan.task_names], plan.seeds[0]
    material = Material.of(
        problem, tasks, seed, rows=RowsOnDevice(problem.data(seed).train, tasks, hardware, stays=False)
    )
    rows = next(order_of(material.rows.split, material.used, plan.batch_size, seed, epoch=1))
    networks: dict[str, nn.Module] = {}
    with hardware.drawing_from(seed):
        inputs, targets = material.batch(rows)
        for method in plan.methods:
            architecture = method.architecture or plan.architecture
            if architecture not in networks:
                networks[architecture] = build(problem, plan.task_names, seed, architecture)
                tell_labels(networks[architecture], tasks, material.rows.split, material.labels)
                networks[architecture].to(hardware.device)
            if method.name == SINGLE_TASK:
                continue
            network = networks[architecture]
            again = recompute(network, tasks, inputs, targets, None, (inputs, targets), hardware)
            forward = Forward(network, tasks, inputs, targets, hardware)
            if method.networks:
                _rehearse_networks(plan, method.name)
            balancer = make_balancer(plan.trial(method.name, method.choice(0).method, plan.task_names, 0, seed))
            assert balancer is not None
            _check_signs(method.name, balancer, architecture, network)
            _check_penalty(method.name, balancer, architecture, forward)
            if method.shared is not None:
                forward.check_trunk(problem.name, f"{method.name} balances")
            balancer.attach(balancer.optimizer_for(problem.optimizer(Parameters.of(network))))
            probes = [LossesOf(network, tasks, hardware)(inputs, targets) for _ in range(2)]
            shared = forward.shared(method.shared, balancer)
            balancer(forward.balanced(), shared=shared, again=again, probes=probes).backward()
    # Of the largest network: what is kept of it on disk is estimated from this.
    return max(sum(parameter.numel() for parameter in network.parameters()) for network in networks.values())


def _rehearse_networks(plan: Plan, method: str) -> None:
    """An option that names tasks (`main=`, constant weights) must fit every network of the arm."""
    for trial in plan.trials_of(method, 0, plan.seeds[0]):
        try:
            make_balancer(trial)
        except SteelyardError as error:
            raise OptionError(f"{method}: the network of {', '.join(trial.tasks)} cannot have it: {error}") from error


def _check_penalty(method: str, balancer: Balancer, architecture: str, forward: Forward) -> None:
    """What an architecture adds to the balanced loss has a gradient, and must not be added to steps."""
    if balancer.sends_steps and forward.penalty() is not None:
        raise OptionError(
            f"{method} sends steps, to which the gradient of what {architecture} adds to the loss would be added as if "
            "it were one: take another architecture, or a method that sends gradients"
        )


def _check_signs(method: str, balancer: Balancer, architecture: str, network: nn.Module) -> None:
    """Losses that an architecture turns negative do so late in training: what cannot take them is told now."""
    instead = getattr(network, "for_positive_losses", "")
    if instead and balancer.positive_reader() is not None and balancer.on_nonfinite != "ignore":
        raise LossError(
            f"{method} takes losses of at least 0 only, and {architecture} may turn them negative as training goes on: "
            f"write {instead}"
        )
