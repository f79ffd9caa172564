"""A few rows through network, losses and metrics, so that a mistake in a problem shows at once and by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from steelyard.errors import ProblemError, SteelyardError, warn
from steelyard.io.lists_and_counts import first_few
from steelyard.models import build
from steelyard.problems.batches_for_rows import WHAT_TO_GIVE, positions
from steelyard.problems.data import Data
from steelyard.problems.network_parameters import Parameters
from steelyard.problems.problem import Problem, adam, constant
from steelyard.problems.rows import DataRows, Draw, ReadBatch
from steelyard.problems.task import Inputs, JointMetric, Metric, Task
from steelyard.problems.user_file import describe
from steelyard.study.training.batch import labelled_targets

ROWS = 32
FEW = 2
LARGE = 1e4  # an output of a network whose inputs have about the size of one is far below it
EPOCHS = 1000  # of a longer training the schedule is asked at so many
LINES = {"trunk": "lambda: nn.Sequential(…)", "head": "lambda task: nn.Linear(32, task.outputs)"}
T = TypeVar("T")


class ChangedInPlaceError(ProblemError):
    """What may only read the data writes them."""


def rehearse(problem: Problem, architecture: str = "hard-sharing", seeds: Iterable[int] = (0,)) -> Data:
    """Load and check the data, build the network, and take every loss and metric once, without training.

    The metrics are taken on every division of the rows (every fold) that one of these seeds is tested on.

    Raises:
        ProblemError: what fails, for which task, with the shapes, and the line of the user's file.
    """
    data = attempt(problem, "loading the data", problem.data)
    network = attempt(problem, "building the network", lambda: build(problem, problem.task_names, 0, architecture))
    optimizer = None if problem.optimizer is adam else try_optimizer(problem, network)
    if problem.schedule is not constant:
        _try_schedule(problem)
    _check_fresh(problem)
    outputs: dict[str, Tensor] = {}
    told = False
    for batch in _samples(problem, data.train):
        found = _rehearse_network(problem, network, batch)
        told = told or _warn_of_batches(problem, network, batch)
        for name in batch.targets:
            outputs[name], loss = _rehearse_task(problem, problem.task(name), found[name], *batch.targets[name], data)
            if optimizer is not None:
                attempt(problem, f"the backward pass of task {name!r}", partial(loss.backward, retain_graph=True))
    if optimizer is not None:
        _try_step(problem, optimizer)
    _rehearse_joint(problem, outputs, data)
    part = "fold" if problem.folds > 1 else "division"
    for number in sorted({problem.division(seed) for seed in seeds} - {0}):
        further = attempt(problem, f"loading the data of {part} {number}", partial(problem.data, number))
        for task in problem.tasks:
            _rehearse_metrics(problem, task, outputs[task.name], further, f" of {part} {number}")
        _rehearse_joint(problem, outputs, further)
    return data


def _rehearse_network(problem: Problem, network: nn.Module, batch: ReadBatch) -> dict[str, Tensor]:
    stored = batch.inputs
    inputs = _unchanged("prepare()", stored, lambda: attempt(problem, "prepare()", lambda: problem.prepare(stored)))
    if _tensors(stored) and not _tensors(inputs):
        raise ProblemError(
            f"problem {problem.name!r}: prepare() returned {type(inputs).__name__}, in which there is no tensor: it is "
            "to return what the trunk takes, e.g. prepare=lambda inputs: inputs / 255"
        )
    what = f"the network on inputs {_shape(inputs)}{_told_of_type(inputs)}"
    found: dict[str, Tensor]
    try:
        found, _ = _unchanged(what, inputs, lambda: attempt(problem, what, lambda: network(inputs)))
    except ChangedInPlaceError:
        raise
    except ProblemError as error:
        raise ProblemError(f"{error}{_told_of_batches(batch)}") from error.__cause__
    return found


def _rows_within(problem: Problem, network: nn.Module, batch: ReadBatch) -> int:
    """How many inputs a row holds of which the network takes each by itself, as it takes rows; 0 where it does not."""
    size = positions(batch.inputs, {name: targets for name, (targets, _) in batch.targets.items()})
    if size < 2:
        return 0
    few = tree_map(lambda part: part[:FEW] if isinstance(part, Tensor) else part, batch.inputs)
    apart = tree_map(lambda part: part.flatten(0, 1) if isinstance(part, Tensor) else part, few)
    network.eval()
    try:
        with torch.no_grad():
            together, single = (network(problem.prepare(inputs))[0] for inputs in (few, apart))
        alike = all(torch.allclose(each.flatten(0, 1), single[name]) for name, each in together.items())
    except Exception:  # the network takes no part of a row by itself: it is a row
        return 0
    finally:
        network.train()
    return size if alike else 0


def _warn_of_batches(problem: Problem, network: nn.Module, batch: ReadBatch) -> bool:
    """Say that these rows are rows of rows, if they are, as those of ``list(loader)``."""
    size = _rows_within(problem, network, batch)
    if size:
        warn(
            f"problem {problem.name!r}: each row of the training data holds {size} inputs and {size} targets of "
            f"{first_few([repr(name) for name in batch.targets], 3)}, and the network takes every one of these by "
            f"itself, as it takes rows. Where a row is a sequence with a label at every position, that is as it should "
            f"be. Are they batches? {WHAT_TO_GIVE}"
        )
    return size > 0


def attempt(problem: Problem, what: str, action: Callable[[], T]) -> T:
    """Run a piece of the problem's own code; a failure says what was being done, and where in the file."""
    try:
        return action()
    except SteelyardError:
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit() and exceptions of the user's own kind, too
        file, separator, _ = problem.reference.rpartition(".py")
        told = describe(error, Path(file + separator) if separator else None)
        raise ProblemError(f"problem {problem.name!r}: {what} failed.\n{told}") from error


def try_optimizer(problem: Problem, network: nn.Module) -> torch.optim.Optimizer:
    """The problem's optimizer, if it is one."""
    made = attempt(problem, "building the optimizer", lambda: problem.optimizer(Parameters.of(network)))
    if not isinstance(made, torch.optim.Optimizer):
        raise ProblemError(
            f"problem {problem.name!r}: optimizer() returned {type(made).__name__}, not a torch optimizer: write "
            "optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-3)"
        )
    return made


def _try_schedule(problem: Problem) -> None:
    """Its value at the start of every epoch, and at the end of the last."""
    epochs = min(problem.epochs, EPOCHS)
    for epoch in range(epochs + 1):
        attempt(problem, f"schedule({epoch / epochs:g})", partial(problem.rate_factor, epoch / epochs))


def _try_step(problem: Problem, optimizer: torch.optim.Optimizer) -> None:
    """A step of the optimizer, on a network that nobody trains."""
    name = type(optimizer).__name__
    wanted = inspect.signature(optimizer.step).parameters.values()
    if any(each.default is each.empty and each.kind is each.POSITIONAL_OR_KEYWORD for each in wanted):
        raise ProblemError(
            f"problem {problem.name!r}: the step of {name} asks for the losses again, by a closure, and a study takes "
            "one step on each batch: choose an optimizer like torch.optim.Adam, or train in a loop of your own "
            "(steelyard compare … -- python train.py)"
        )
    attempt(problem, f"a step of {name}", optimizer.step)


def _rehearse_task(
    problem: Problem, task: Task, outputs: Tensor, targets: Tensor, places: Tensor | None, data: Data
) -> tuple[Tensor, Tensor]:
    """The task's outputs for those rows that have a label, and their loss."""
    if not isinstance(outputs, Tensor):
        raise ProblemError(f"task {task.name!r}: the head gives a {type(outputs).__name__}, not a tensor")
    targets, places = labelled_targets(task, targets, places)
    outputs = outputs if places is None else outputs[places]
    where = f"outputs {_shape(outputs)} and targets {_shape(targets)}{_told_of_labels(targets)}"
    what = f"the loss of task {task.name!r}"
    loss = _unchanged(
        what, targets, lambda: attempt(problem, f"{what} on {where}", lambda: task.loss(outputs, targets))
    )
    if not isinstance(loss, Tensor) or loss.dim() != 0:
        shape = f"shape {_shape(loss)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ProblemError(f"task {task.name!r}: the loss must be a scalar tensor, not {shape}; take the mean")
    if not torch.isfinite(loss):
        raise ProblemError(
            f"task {task.name!r}: the loss of an untrained network is {loss.item()}, on {where}"
            f"{_told_of_size(task, outputs, targets)}"
        )
    if not loss.requires_grad:
        raise ProblemError(f"task {task.name!r}: the loss has no gradient; it must be computed from the outputs")
    if task.statistics is not None:
        _rehearse_statistics(problem, task, outputs.detach(), targets, where)
    else:
        _rehearse_metrics(problem, task, outputs.detach(), data)
    return outputs.detach(), loss


def _rehearse_statistics(problem: Problem, task: Task, outputs: Tensor, targets: Tensor, where: str) -> None:
    """The statistics of these rows, and the metrics on them: those of a whole split would be a pass over the data."""
    what = f"the statistics of task {task.name!r} on {where}"
    assert task.statistics is not None
    statistics = attempt(problem, what, partial(task.statistics, outputs, targets))
    if not isinstance(statistics, Tensor) or statistics.dim() == 0 or len(statistics) != len(outputs):
        found = f"shape {_shape(statistics)}" if isinstance(statistics, Tensor) else type(statistics).__name__
        raise ProblemError(f"{what} must be a tensor with one entry per row ({len(outputs)}), not {found}")
    for metric in task.metrics:
        _rehearse_metric(problem, task, metric, statistics, targets, f"statistics {_shape(statistics)}")


def _rehearse_metrics(problem: Problem, task: Task, outputs: Tensor, data: Data, of: str = "") -> None:
    """The few outputs over and over: a metric that these labels do not allow shows without a pass over the data."""
    if task.statistics is not None:
        return
    for name, rows in (("validation", data.validation), ("test", data.test)):
        targets = rows.labels(task, rows.labelled(task))
        if targets is None:  # to be known they would have to be read: what a metric makes of some rows says nothing
            continue
        repeated = outputs[torch.arange(len(targets)) % len(outputs)]
        for metric in task.metrics:
            _rehearse_metric(problem, task, metric, repeated, targets, f"the {name} data{of}")


def _rehearse_metric(problem: Problem, task: Task, metric: Metric, outputs: Tensor, targets: Tensor, on: str) -> None:
    what = f"{metric.name} of task {task.name!r} on {on}"

    def taken() -> float:
        try:
            return metric.function(outputs, targets)
        except SteelyardError as error:  # a ready metric knows neither its task nor its rows
            raise ProblemError(f"problem {problem.name!r}: {what}: {error}") from error

    value = _unchanged(what, targets, lambda: attempt(problem, what, taken))
    if not isinstance(value, (int, float)):
        raise ProblemError(f"{what} is a {type(value).__name__}; a metric must return a float")


def _rehearse_joint(problem: Problem, outputs: Mapping[str, Tensor], data: Data) -> None:
    """The metrics of all tasks together, which are taken when everything is trained: the few outputs over and over."""
    if not problem.joint:
        return
    targets = joint_targets(problem, data)
    repeated = {name: outputs[name][torch.arange(len(labels)) % len(outputs[name])] for name, labels in targets.items()}
    for metric in problem.joint:
        joint_value(problem, metric, repeated, targets)


def joint_targets(problem: Problem, data: Data) -> dict[str, Tensor]:
    """Of every task the test labels that there are."""
    found = {task.name: data.test.labels(task, data.test.labelled(task)) for task in problem.tasks}
    assert None not in found.values()  # a problem with joint metrics has its test data in memory
    return {name: labels for name, labels in found.items() if labels is not None}


def joint_value(
    problem: Problem, metric: JointMetric, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]
) -> float:
    """The metric's value. Raises ProblemError where it fails, or is no number."""
    what = f"joint metric {metric.name!r} on the test data"
    given = (*outputs.values(), *targets.values())  # which the next metric gets, too

    def taken() -> float:
        return attempt(problem, what, lambda: metric.function(dict(outputs), dict(targets)))

    value = _unchanged(what, given, taken)
    if not isinstance(value, (int, float)):
        raise ProblemError(f"{what} is a {type(value).__name__}; a metric must return a float")
    return float(value)


def _unchanged(what: str, given: Inputs, action: Callable[[], T]) -> T:
    """Run what may only read: data that it changed in place would be other data from then on."""
    parts = _tensors(given)
    before = [part._version for part in parts]
    result = action()
    if [part._version for part in parts] != before:
        raise ChangedInPlaceError(
            f"{what} changes the data in place, which would be other data from then on: write x * 2 in the place of "
            "x.mul_(2), and leave inplace=True away in a first layer"
        )
    return result


def _check_fresh(problem: Problem) -> None:
    """Each trial starts anew, from a seed of its own, and no two tasks share a head unknowingly."""
    tasks = problem.tasks[:2]
    with torch.random.fork_rng(devices=[]):
        trunks = [attempt(problem, "trunk()", problem.trunk) for _ in range(2)]
        heads = [attempt(problem, f"head({t.name})", partial(problem.head, t)) for t in tasks for _ in range(2)]
    for name, made in (("trunk", trunks), ("head", heads)):
        weights = [{id(weight) for weight in each.parameters()} for each in made if isinstance(each, nn.Module)]
        if any(first & second for first, second in combinations(weights, 2)):
            raise ProblemError(
                f"problem {problem.name!r}: {name}() gives the same weights each time, so that trials would go on with "
                f"those of each other: make new ones in it, e.g. {name}={LINES[name]}"
            )


def _told_of_type(inputs: Inputs) -> str:
    """What is to be said where a layer wants other numbers than it gets, as NumPy's or those of a table of counts."""
    parts = _tensors(inputs)
    if not parts:
        return " of text alone (make numbers of it by a tokenizer, in a DataLoader's collate_fn or in the trunk)"
    usual = torch.get_default_dtype()
    other = sorted({_name(p.dtype) for p in parts if p.dtype.is_floating_point and p.dtype != usual})
    if other:
        there, wanted = ", ".join(other), _name(usual)
        return f" of type {there} (networks are of {wanted}: call inputs.to(torch.{wanted}) in load())"
    whole = sorted({str(part.dtype).removeprefix("torch.") for part in parts if not part.dtype.is_floating_point})
    if not whole:
        return ""
    return (
        f" of whole numbers ({', '.join(whole)}; nn.Embedding takes these, nn.Linear and nn.Conv2d take fractions: "
        "give the inputs as such in load(), or write prepare=lambda inputs: inputs.float())"
    )


def _told_of_batches(batch: ReadBatch) -> str:
    """What is to be said where rows that fail hold as many inputs as targets."""
    size = positions(batch.inputs, {name: targets for name, (targets, _) in batch.targets.items()})
    return "" if size < 2 else f"\nIf each row is a batch of {size} inputs and {size} targets: {WHAT_TO_GIVE}."


def _told_of_labels(targets: Tensor) -> str:
    """Between what whole numbers lie; -1, which marks a missing label, may have become one of them on the way."""
    if targets.dim() != 1 or targets.dtype.is_floating_point or not len(targets):
        return ""
    low, high = int(targets.min()), int(targets.max())
    hint = "; 255 is what -1 becomes among NumPy's uint8: mark missing labels in y.astype(int)" if high == 255 else ""
    return f" from {low} to {high}{hint}"


def _told_of_size(task: Task, outputs: Tensor, targets: Tensor) -> str:
    """What is to be said where a loss is not finite because inputs, or labels, are not of the size of one."""
    large, options = [], []
    for what, values, option in (
        ("labels", targets, f"standardise_targets=[{task.name!r}]"),
        ("outputs", outputs.detach(), "standardise=True"),
    ):
        if values.dtype.is_floating_point and (size := float(values.abs().max())) > LARGE:
            large.append(f"{what} are as large as {size:.2g}")
            options.append(option)
    return f": {' and '.join(large)}. Write split(…, {', '.join(options)}) in load()" if large else ""


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _samples(problem: Problem, rows: DataRows) -> Iterator[ReadBatch]:
    """Some rows; of each task alone, where tasks have rows of their own."""
    sections = rows.sections or {"": slice(0, len(rows))}
    for name, here in sections.items():
        tasks = [problem.task(name)] if rows.sections else problem.tasks
        chosen = [range(here.start, here.stop)[:ROWS], *(_extremes(task, rows) for task in tasks)]
        numbers = torch.tensor(sorted({row for each in chosen for row in each}))
        read = rows.reader(ahead=False)([Draw(numbers, seed=0)])
        yield attempt(problem, "reading the training data", partial(next, read))


def _extremes(task: Task, rows: DataRows) -> list[int]:
    """The rows with a task's smallest and largest label, where they are in memory: wrong class numbers show there."""
    labelled = rows.labelled(task)
    targets = rows.labels(task, labelled)
    places = labelled.nonzero()[:, 0]
    if targets is None:
        return [int(places[0])]
    size = targets.reshape(len(targets), -1).sum(1, dtype=torch.float64)
    return [int(places[size.argmin()]), int(places[size.argmax()])]


def _tensors(inputs: Any) -> list[Tensor]:
    """All tensors among a batch of inputs, whatever holds them."""
    return [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)]


def _shape(values: Any) -> str:
    return ", ".join(str(list(part.shape)) for part in _tensors(values))
