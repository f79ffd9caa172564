"""Train the plain sum for a while, and look at the tasks' gradients on the way."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce

import torch
from torch import Tensor

from steelyard.diagnosis.diagnosis import Diagnosis, diagnose
from steelyard.diagnosis.fidelity import Fidelity, fidelity
from steelyard.errors import PlanError, SharedError, TrainingError
from steelyard.models import build
from steelyard.problems.network_parameters import Parameters
from steelyard.problems.problem import Problem, check_place
from steelyard.study.training.batch import Forward, recompute, tell_labels
from steelyard.study.training.hardware import CPU, FULL, Hardware, seed_everything
from steelyard.study.training.problem_rehearsal import rehearse
from steelyard.study.training.rows_on_device import rows_of
from steelyard.study.training.task_affinity import look_ahead
from steelyard.study.training.training_rows import Material
from steelyard.study.trial import derive_seed

EPOCHS = 5
"""Epochs, where the problem itself does not train for fewer."""
PLACES = ("features", "last", "trunk")
"""Where gradients can be read; the last of them is exact."""
LOOK_AHEAD = "look-ahead (TAG)"
COSINES = {"trunk": "cosine at the trunk", "last": "cosine at the last layer"}
"""Affinities by where gradients are read."""
COMPARED = 4
"""Looks per epoch at which the cheap places are compared with the exact gradients, which cost a look themselves."""
LOOKS = 20
"""Looks per epoch at most, evenly spaced: a mean over more tells nothing new, and a look at a trunk costs."""


@dataclass(frozen=True)
class Course:
    """What was seen over training: means over the looks of each epoch, and over all.

    ``fidelity`` says what the cheap places show of the exact gradients; empty for one task, or for a network in which
    they cannot be compared: ``not_compared`` says why. ``affinities`` are the means of three affinities over the looks
    at which they were asked for, by name; ``[T, T]``, row: whose loss, column: who helps.
    """

    problem: str
    summary: str
    place: str
    epochs: tuple[Diagnosis, ...]
    whole: Diagnosis
    fidelity: tuple[Fidelity, ...] = ()
    not_compared: str = ""
    affinities: Mapping[str, Tensor] = field(default_factory=dict)


def diagnose_training(
    problem: Problem,
    epochs: int | None = None,
    architecture: str = "hard-sharing",
    shared: str | None = None,
    seed: int = 0,
    on_epoch: Callable[[int, int], None] = lambda epoch, epochs: None,
    affinity: bool = False,
    tasks: Sequence[str] | None = None,
    device: str = CPU,
    precision: str = FULL,
) -> Course:
    """Train a problem by the plain sum, as the method ``equal`` does in a study, and look at the gradients.

    Args:
        problem: what is trained.
        epochs: by default 5, or the problem's if it has fewer.
        architecture: of the network.
        shared: where gradients are read: ``"features"`` or ``"trunk"``; by default the problem's.
        seed: decides the start of the network and the batches, as in a study.
        on_epoch: called with the number of finished epochs and of all.
        affinity: measure affinities between tasks, at the steps at which the places are compared.
        tasks: names of those that are trained; by default all.
        device: where to train, one that is here: ``"cuda"``, ``"cuda:1"``, ``"mps"``, or ``"auto"``.
        precision: of the network's forward passes: ``"float32"``, ``"bf16"`` or ``"fp16"``.

    Raises:
        SteelyardError: anything unknown or broken by name; a loss that is not finite.
    """
    shared = problem.shared if shared is None else shared
    check_place(shared)
    if epochs is not None and epochs < 1:
        raise PlanError(f"epochs={epochs!r} must be a whole number of at least 1")
    if seed < 0:
        raise PlanError(f"seed={seed} must be at least 0")
    epochs = min(EPOCHS, problem.epochs) if epochs is None else epochs
    hardware = Hardware.of(device, precision)
    rehearse(problem, architecture)
    trained = problem.chosen(tasks)
    names = tuple(task.name for task in trained)
    material = Material.of(problem, trained, seed, rows=rows_of(problem.data(seed), trained, hardware)["train"])
    network = build(problem, names, seed, architecture)
    tell_labels(network, trained, material.rows.split, material.labels)
    network.to(hardware.device).train()
    optimizer = problem.optimizer(Parameters.of(network))
    scaler = hardware.scaler()

    seen: list[list[Diagnosis]] = []
    compared = _Compared()
    on_epoch(0, epochs)
    for epoch in range(1, epochs + 1):
        seed_everything(derive_seed(seed, "epoch", epoch))
        order = material.order(problem.batch_size, epoch, sampling=problem.sampling)
        look_at, compare_at = ({len(order) * k // most for k in range(most)} for most in (LOOKS, COMPARED))
        looks = []
        for step, batch in enumerate(material.read(order, epoch)):
            before = hardware.random_state()
            forward = Forward(network, trained, *batch, hardware)
            if not forward.losses:
                continue
            _check_finite(forward.losses, epoch)
            forward.check_trunk(problem.name, "a diagnosis compares")
            balanced = forward.balanced()
            if step in look_at:
                looks.append(diagnose(balanced, shared=forward.shared(shared)))
            if step in compare_at and len(trained) > 1:
                compared.take(balanced, forward)
                if affinity:
                    again = recompute(network, trained, *batch, before, hardware=hardware)
                    compared.ahead.append(look_ahead(forward, again, optimizer))
            forward.step(optimizer, reduce(torch.add, balanced.values()), scaler)
        seen.append(looks)
        on_epoch(epoch, epochs)
    averages = tuple(averaged(names, looks) for looks in seen)
    whole = averaged(names, [look for looks in seen for look in looks])
    return Course(
        problem.name,
        problem.summary,
        shared,
        averages,
        whole,
        _fidelity(compared.looks),
        compared.refused,
        compared.affinities(names) if affinity else {},
    )


class _Compared:
    """What is looked at a few times an epoch: one batch at all places, and what a step for each task would do."""

    def __init__(self) -> None:
        self.looks: list[dict[str, Diagnosis]] = []
        self.refused = ""
        self.ahead: list[Tensor] = []

    def take(self, losses: Mapping[str, Tensor], forward: Forward) -> None:
        if not self.refused:
            try:
                self.looks.append(_at_all_places(losses, forward))
            except SharedError as error:  # a network whose features have nothing behind them, or are none
                self.refused = str(error)

    def affinities(self, tasks: Sequence[str]) -> dict[str, Tensor]:
        """Means over the looks, by name; nothing of one task on itself."""
        found = {LOOK_AHEAD: torch.stack(self.ahead).nanmean(0)} if self.ahead else {}
        for place, name in COSINES.items() if self.looks else ():
            mean = averaged(tasks, [looks[place] for looks in self.looks])
            index = torch.tensor([tasks.index(task) for task in mean.tasks])
            wide = torch.full((len(tasks), len(tasks)), torch.nan, dtype=torch.float64)
            wide[index[:, None], index] = mean.cosines
            found[name] = wide
        return {name: matrix.fill_diagonal_(torch.nan) for name, matrix in found.items()}


def _at_all_places(losses: Mapping[str, Tensor], forward: Forward) -> dict[str, Diagnosis]:
    """One batch at the features, the last layer and the trunk."""
    features = forward.shared("features")
    return {place: diagnose(losses, shared=features, look=place) for place in PLACES}


def _fidelity(compared: Sequence[Mapping[str, Diagnosis]]) -> tuple[Fidelity, ...]:
    if not compared:
        return ()
    exact = [looks["trunk"] for looks in compared]
    return tuple(fidelity(place, [looks[place] for looks in compared], exact) for place in PLACES[:-1])


def averaged(tasks: Sequence[str], looks: Sequence[Diagnosis]) -> Diagnosis:
    """Means over looks of the tasks that any of them saw, each over the looks that saw it."""
    seen = {task for look in looks for task in look.tasks}
    present = tuple(task for task in tasks if task in seen)
    place = {task: k for k, task in enumerate(present)}
    indices = [torch.tensor([place[task] for task in look.tasks]) for look in looks]

    def mean(name: str) -> Tensor:
        total = []
        for look, index in zip(looks, indices, strict=True):
            value: Tensor = getattr(look, name)
            wide = value.new_full((len(present),) * value.dim(), torch.nan)
            wide[torch.meshgrid(*[index] * value.dim(), indexing="ij")] = value
            total.append(wide)
        return torch.stack(total).nanmean(0)

    return Diagnosis(
        tasks=present,
        absent=tuple(task for task in tasks if task not in seen),
        place=looks[0].place,
        losses=mean("losses"),
        norms=mean("norms"),
        cosines=mean("cosines"),
        alignment=mean("alignment"),
        shares=mean("shares"),
        looks=len(looks),
        conflict_rates=mean("conflict_rates"),
    )


def _check_finite(losses: dict[str, Tensor], epoch: int) -> None:
    for task, loss in losses.items():
        if not math.isfinite(loss.item()):
            raise TrainingError(
                f"the training loss of {task!r} is {loss.item()} in epoch {epoch} under the plain sum: lower the "
                "learning rate of the problem's optimizer"
            )
