"""Try everything once before a study starts, so that what cannot work is said at once and not trial by trial."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from steelyard.errors import SteelyardError
from steelyard.models import build
from steelyard.problems.problem import Problem
from steelyard.problems.user_file import describe
from steelyard.study.batch import recompute, shared_of, targets_of, task_losses
from steelyard.study.errors import PlanError
from steelyard.study.evaluate import labelled, measure, predict, take
from steelyard.study.plans import Plan
from steelyard.study.sampling import batches
from steelyard.study.train import make_balancer
from steelyard.study.trial import SINGLE_TASK


def rehearse(plan: Plan, problem: Problem) -> int:
    """One evaluation of the untrained network and one backward of every method; the number of parameters.

    Raises:
        SteelyardError: a method cannot balance these losses.
        PlanError: the network, a loss or a metric of the problem fails; names the line of the problem's file.
    """
    tasks, train = list(problem.tasks), problem.data().train
    seed = plan.seeds[0]
    used = torch.stack([task.labelled(train.targets[task.name]) for task in tasks]).any(0)
    rows = next(batches(used, plan.batch_size, seed, epoch=1))
    with torch.random.fork_rng(devices=[]):
        with told_by(problem, "evaluating the untrained network"):
            network = build(problem, plan.task_names, seed, plan.architecture)
            predictions = predict(network, problem, problem.data().validation, plan.batch_size)
            for task in tasks:
                measure(task.metrics, *labelled(task, predictions, problem.data().validation))
        for method in plan.methods:
            with told_by(problem, "the first training step"):
                inputs = problem.prepare(take(train.inputs, rows))
                targets = {
                    t.name: targets_of(train.targets[t.name], t.labelled(train.targets[t.name]), rows) for t in tasks
                }
                outputs, features = network(inputs)
                losses = task_losses(tasks, outputs, targets)
            if method.name == SINGLE_TASK:
                continue
            balancer = make_balancer(plan.trials_of(method.name, 0, seed)[0])
            assert balancer is not None
            again = recompute(network, tasks, inputs, targets, None)
            shared = shared_of(method.shared, network, features)
            balancer(losses, shared=shared, again=again).backward()
    return sum(parameter.numel() for parameter in network.parameters())


@contextmanager
def told_by(problem: Problem, doing: str) -> Iterator[None]:
    """Turn an error inside a user's problem file into one that names the line of the file."""
    try:
        yield
    except SteelyardError:
        raise
    except Exception as error:
        if not problem.fingerprint:
            raise
        path = Path(problem.reference.rpartition(".py")[0] + ".py")
        raise PlanError(f"{doing} failed in {describe(error, path)}") from error
