"""A study's trained networks, given back as modules."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from steelyard.errors import PlanError, StoreError, UnknownNameError, warn
from steelyard.models import build
from steelyard.problems import Problem, load_problem
from steelyard.problems.rows import take
from steelyard.problems.task import Inputs
from steelyard.study.planning.plan import Plan
from steelyard.study.planning.tuning import deciding, validation_scores
from steelyard.study.storage.network_files import Networks, unpack
from steelyard.study.storage.store import Store
from steelyard.study.trial import Trial


class TrainedNetwork(nn.Module):
    """The networks of one method and seed, at the epoch that validation chose.

    Attributes:
        networks: one for all tasks, or one for each task or group of tasks.
        seeds: of the trial that each comes from.
    """

    def __init__(
        self, problem: Problem, networks: list[tuple[tuple[str, ...], nn.Module]], seeds: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.problem, self.seeds = problem, seeds
        self.serves = [tasks for tasks, _ in networks]
        self.networks = nn.ModuleList(network for _, network in networks)

    def only(self, task: str) -> TrainedNetwork:
        """The network that serves one task, with all tasks that it serves.

        Raises:
            UnknownNameError: none serves it.
        """
        for place, tasks in enumerate(self.serves):
            if task in tasks:
                return TrainedNetwork(self.problem, [(tasks, self.networks[place])], self.seeds[place : place + 1])
        raise UnknownNameError("task of the network", task, [name for tasks in self.serves for name in tasks])

    def forward(self, inputs: Any) -> dict[str, Tensor]:
        """Outputs by task, of inputs as the problem's ``prepare`` leaves them."""
        found = {}
        for tasks, network in zip(self.serves, self.networks, strict=True):
            outputs = network(inputs)[0]
            found.update({task: outputs[task] for task in tasks})
        return {task: found[task] for task in self.problem.task_names if task in found}

    @torch.inference_mode()
    def predict(self, inputs: Inputs, batch_size: int | None = None) -> dict[str, Tensor]:
        """Outputs [N, ...] by task, of inputs as the problem's data hold them, a batch at a time, in float32.

        Args:
            inputs: [N, ...], or a tuple of such tensors.
            batch_size: rows at a time; by default twice the problem's.
        """
        size = batch_size or 2 * self.problem.batch_size
        device = next(self.parameters()).device
        rows = len(inputs[0] if isinstance(inputs, tuple) else inputs)
        parts: dict[str, list[Tensor]] = {}
        for start in range(0, rows, size):
            taken = take(inputs, slice(start, start + size))
            moved = taken.to(device) if isinstance(taken, Tensor) else tuple(part.to(device) for part in taken)
            for task, output in self(self.problem.prepare(moved)).items():
                parts.setdefault(task, []).append(output)
        return {task: torch.cat(pieces) for task, pieces in parts.items()}


def network(
    store: Path | str,
    method: str,
    seed: int | None = None,
    setting: int = 0,
    device: torch.device | str = "cpu",
    plan: int = 0,
) -> TrainedNetwork:
    """A method's trained network, in evaluation mode.

    Args:
        store: of a study that was run with ``keep="best"`` or ``"all"``.
        method: as the study calls it.
        seed: of its trials; by default the best on validation data of those that were kept, network by network.
        setting: which fractions of labels, counted from 0.
        device: where it is to be.
        plan: which study of the store: 0 is the latest, 1 the one before, and so on.

    Raises:
        UnknownNameError: the study has no such method.
        StoreError: its networks were not kept.

    Example:
        >>> from steelyard.study import compare, network
        >>> store = folder / "kept.sqlite"
        >>> settings = {"seeds": 1, "epochs": 1, "progress": False}
        >>> _ = compare("digits", ["single-task", "equal"], store=store, keep="best", **settings)
        >>> trained = network(store, "equal")
        >>> images = trained.problem.data().test.inputs
        >>> {task: len(outputs) for task, outputs in trained.predict(images).items()} == {
        ...     "left": len(images), "right": len(images)
        ... }
        True
    """
    with Store(store) as opened:
        made, networks = Plan.from_dict(opened.plan(plan)), opened.networks
        if made.program is not None:
            raise StoreError(
                f"{made.program.text} builds its networks itself, so that a study has their weights alone: `steelyard "
                f"export {shlex.quote(str(store))} --method {shlex.quote(method)}{f' --plan {plan}' if plan else ''} "
                "--out network.safetensors`, and load "
                "them into your own, model.load_state_dict(safetensors.torch.load_file('network.safetensors'))"
            )
        trials = kept_trials(made, opened, method, seed, setting)
    problem = load_problem(made.reference)
    problem = problem.redrawn() if made.resplit else problem
    if made.origin is not None and (edited := made.origin.code.edited()):
        warn(
            f"{', '.join(edited)} was changed since the network was trained: what is loaded may compute something else"
        )
    found = [(made.serves(method, trial.tasks), _load(problem, trial, networks)) for trial in trials]
    return TrainedNetwork(problem, found, tuple(trial.seed for trial in trials)).eval().to(device)


def kept_trials(plan: Plan, store: Store, method: str, seed: int | None = None, setting: int = 0) -> list[Trial]:
    """The trials of a method whose networks are kept: of one seed, or of each network the best on validation data."""
    if method not in (known := [planned.name for planned in plan.methods]):
        raise UnknownNameError("method of the study", method, known)
    if not 0 <= setting < len(plan.settings):
        raise PlanError(f"setting={setting}: the study has {len(plan.settings)}, counted from 0")
    if seed is not None and seed not in plan.seeds:
        raise PlanError(f"seed={seed}: the study has the seeds {', '.join(map(str, plan.seeds))}")
    seeds = plan.seeds if seed is None else [seed]
    found = []
    for network in zip(*(plan.trials_of(method, setting, each) for each in seeds), strict=True):
        results = store.results([trial for trial in network if store.networks.has(trial)], plan.also)
        kept = list(results)  # one that was killed between its network and its row has none
        if not kept:
            which = "none of its networks is kept" if seed is None else f"its network of seed {seed} is not kept"
            given = " that the program gives, trial.report(…, network=model)," if plan.program is not None else ""
            raise StoreError(
                f"{method}, {' and '.join(network[0].tasks)}: {which} in {store.networks.folder}. A study keeps those"
                f"{given} with --keep all (in Python keep='all') as trials finish; what is finished is not trained "
                "again"
            )
        scores = validation_scores(deciding(plan, plan.serves(method, kept[0].tasks)), [results[t] for t in kept])
        found.append(kept[min(range(len(kept)), key=scores.__getitem__)])
    return found


def _load(problem: Problem, trial: Trial, networks: Networks) -> nn.Module:
    made = build(problem, trial.tasks, trial.seed, trial.architecture)
    made.load_state_dict(unpack(networks.file(trial)))
    return made
