"""Reading task gradients where the user points: ``shared=``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from steelyard.distributed.replicas import is_sharded
from steelyard.errors import AngleWarning, MissingInputError, SharedError
from steelyard.gradients.carrier import Target
from steelyard.gradients.graph import depends
from steelyard.gradients.heads import Factors, factors
from steelyard.gradients.rows import Rows, task_rows
from steelyard.gradients.trunk import trunk_gradients
from steelyard.gradients.wrappers import behind_wrapper
from steelyard.method import Method
from steelyard.warn import warn

Losses = Mapping[str, Tensor | None]
Shared = Tensor | Sequence[Tensor] | nn.Module | Iterable[nn.Parameter]


@dataclass(frozen=True)
class Place:
    """Where gradients are read: at feature tensors, or at the trunk's parameters."""

    tensors: tuple[Tensor, ...]
    is_trunk: bool


@dataclass(frozen=True)
class Reading:
    """Task gradients of one step.

    Attributes:
        squared_norms, gramian: ``[T]`` and, where it was asked for, ``[T, T]`` at the place that was read.
        rows: task gradients where a direction may be sent: where heads meet the trunk, or for element-wise methods at
            the place that was read; ``None`` where nothing needs them.
        targets: where those rows were read, and where a direction may be sent.
        whole: task gradients at all of the trunk's parameters, where they were asked for.
        angles_hold: whether inner products of tasks that share no samples are seen: at the trunk, not at features.
    """

    squared_norms: Tensor
    gramian: Tensor | None
    rows: Rows | Factors | None
    targets: Sequence[Target]
    angles_hold: bool = False
    whole: Rows | None = None

    def select(self, positions: list[int]) -> Reading:
        """The reading of the tasks at ``positions``."""
        return Reading(
            self.squared_norms[positions],
            None if self.gramian is None else self.gramian[positions][:, positions],
            None if self.rows is None else self.rows.select(positions),
            self.targets,
            self.angles_hold,
            None if self.whole is None else self.whole.select(positions),
        )


def read(
    method: Method,
    names: Sequence[str],
    losses: Sequence[Tensor],
    place: Place,
    workspace: Tensor | None = None,
    whole: bool = False,
) -> Reading:
    """Differentiate the losses at a place, as far as the method needs it; ``whole`` asks for the trunk's rows."""
    reads = method.looks_for(place.is_trunk)
    with torch.enable_grad():
        if place.is_trunk and reads != "rows":
            trunk = trunk_gradients(names, losses, place.tensors, at_boundary=method.heads == "plain", whole=whole)
            return Reading(trunk.gramian.diagonal(), trunk.gramian, trunk.rows, trunk.boundary, True, trunk.whole)
        tensors = tuple(tensor for tensor in place.tensors if tensor.requires_grad)
        rows: Rows | Factors | None = None
        if not place.is_trunk and reads != "rows":
            rows = factors(losses, tensors)
        if rows is None:
            rows = task_rows(names, losses, tensors, workspace if reads != "rows" else None)
    targets = [behind_wrapper(tensor) or tensor for tensor in tensors]
    if reads == "norms":
        return Reading(rows.squared_norms(), None, rows, targets, place.is_trunk)
    gramian = rows.gramian()
    return Reading(gramian.diagonal(), gramian, rows, targets, place.is_trunk)


def read_cross(method: Method, names: Sequence[str], probes: Sequence[Losses] | None, place: Place) -> Tensor:
    """``J₁ J₂ᵀ`` of two independent batches as ``[T, T]`` float64: unbiased, where ``J Jᵀ`` of one batch is not."""
    (_, first, _), (_, second, _) = rows_of_probes(method, names, names, probes, place)
    return first.double() @ second.double().T


def rows_of_probes(
    method: Method, names: Sequence[str], required: Sequence[str], probes: Sequence[Losses] | None, place: Place
) -> list[tuple[list[int], Tensor, list[float]]]:
    """Of each probe batch: which of the tasks it has, their rows, and the labels behind them."""
    if probes is None or len(probes) != 2:
        raise MissingInputError(
            f"{method.name} compares the gradients of two independent batches: pass "
            f"probes=[losses_1, losses_2], got {'none' if probes is None else len(probes)}"
        )
    tensors = tuple(tensor for tensor in place.tensors if tensor.requires_grad)
    found = []
    for number, losses in enumerate(probes):
        absent = [name for name in required if losses.get(name) is None]
        if absent:
            raise MissingInputError(f"probes[{number}] lacks the task {absent[0]!r}, which the batch at hand has")
        positions = [k for k, name in enumerate(names) if losses.get(name) is not None]
        there = [loss for name in names if (loss := losses.get(name)) is not None]
        with torch.enable_grad():
            rows = task_rows([names[k] for k in positions], there, tensors).matrix
        found.append((positions, rows, [float(getattr(loss, "label_count", 1.0)) for loss in there]))
    return found


def place_of(method: Method, shared: Shared | None) -> Place | None:
    """What ``shared=`` points at, or ``None`` for a method that reads no gradients."""
    if not method.needs_shared:
        return None
    if shared is None:
        blind = method.reads in ("losses", "lookahead")
        why = "leaves the heads plain" if blind else f"reads the tasks' {method.reads}"
        raise SharedError(
            f"{method.name} {why} and needs to know where: write balancer(losses, shared=features), with the tensor "
            "(or tuple of tensors) that the task heads read, or shared=trunk with the shared module"
        )
    if isinstance(shared, Tensor):
        tensors: tuple[Tensor, ...] = (shared,)
    else:
        tensors = tuple(shared.parameters() if isinstance(shared, nn.Module) else shared)
    tensors = tuple({id(tensor): tensor for tensor in tensors}.values())  # the same tensor twice is one place
    if not tensors:
        raise SharedError("shared= is empty: pass the tensors that the task heads read, or the shared module")
    for position, tensor in enumerate(tensors):
        if not isinstance(tensor, Tensor):
            raise SharedError(
                f"shared[{position}] is a {type(tensor).__name__}, not a tensor: pass what the task heads read itself, "
                "shared=features, or the shared module, shared=trunk"
            )
    parameters = sum(isinstance(tensor, nn.Parameter) for tensor in tensors)
    if parameters not in (0, len(tensors)):
        raise SharedError(
            "shared= mixes features and parameters: pass either the tensors that the heads read, or the trunk"
        )
    return _trunk(method, tensors) if parameters else _features(method, tensors)


def _trunk(method: Method, tensors: tuple[Tensor, ...]) -> Place:
    if "trunk" not in method.where:
        raise SharedError(
            f"{method.name} is defined on features, not on the trunk's parameters: pass the tensor that the task heads "
            "read as shared="
        )
    if method.memory == "numbers" and method.looks_for(True) == "rows":
        raise SharedError(
            f"memory='numbers' keeps losses and norms, and {method.name} reads the task gradients themselves at the "
            "trunk: use memory='rows', or pass the tensor that the task heads read as shared="
        )
    if any(is_sharded(tensor) for tensor in tensors):
        raise SharedError(
            "the trunk given as shared= is sharded over ranks (DTensor, as fully_shard makes them), and its gradients "
            "exist nowhere in one piece: pass the tensor that the task heads read as shared=, which is exact"
        )
    if not any(tensor.requires_grad for tensor in tensors):
        raise SharedError(
            "every parameter of the trunk given as shared= is frozen: there is no shared gradient to balance"
        )
    return Place(tensors, is_trunk=True)


def _features(method: Method, tensors: tuple[Tensor, ...]) -> Place:
    if "features" not in method.where:
        raise SharedError(
            f"{method.name} is defined on the trunk's parameters, not on features: pass the shared module as shared="
        )
    if method.memory == "rows":
        raise SharedError(
            "memory='rows' compares gradients of different batches, which correspond at the trunk's parameters and not "
            "at features: pass the shared module as shared="
        )
    for position, tensor in enumerate(tensors):
        if not tensor.requires_grad:
            raise SharedError(
                f"shared[{position}] has no graph (requires_grad=False): the trunk is frozen or ran under no_grad, or "
                "this is its input. There is no shared gradient to balance: pass what the trunk returned, graph and all"
            )
    if len(tensors) > 1:
        _check_independent(tensors)
    return Place(tensors, is_trunk=False)


def _check_independent(features: tuple[Tensor, ...]) -> None:
    """Gradients at a tensor count what passes through the tensors computed from it: together they would count twice."""
    nodes = [(behind_wrapper(feature) or get_gradient_edge(feature))[0] for feature in features]
    for position, node in enumerate(nodes):
        others = [other for other in nodes if other is not node]
        if depends(node, others):
            raise SharedError(
                f"shared[{position}] is computed from another tensor in shared=, so gradients would count twice: pass "
                "only tensors of which none feeds another, or the shared module"
            )


def lone(method: Method, is_trunk: bool) -> bool:
    """Whether a task that is alone in its batch has a weight that says nothing: its gradient meets no other."""
    return method.memory != "rows" and method.looks_for(is_trunk) in ("gramian", "cross_gramian", "rows")


def refused_lone_tasks(method: Method, steps: int) -> SharedError:
    """One task per batch, and a method that compares the gradients of several."""
    if method.reads == "cross_gramian" or "trunk" not in method.where:
        rows = ""
    else:
        rows = "make it with memory='rows' and pass shared=trunk (it keeps each task's last gradient, T x P numbers), "
    return SharedError(
        f"{method.name} compares the gradients of different tasks, and each of the first {steps} batches held one task "
        f"alone: {rows}put several tasks into a batch, or choose a method that reads losses or norms"
    )


def warn_of_lone_tasks(method: Method, steps: int, weight: float) -> None:
    """One task per batch, and a method that weighs tasks against the others in the batch."""
    warn(
        f"{method.name} weighs tasks against the others in a batch, and each of the first {steps} batches held one "
        f"task alone: all had the weight {weight:g}. Make it with memory='numbers', which weighs a task against "
        "what was last seen of the others, or put several tasks into a batch",
    )


def warn_of_unreached_tasks(method: Method, tasks: Sequence[str], steps: int) -> None:
    """Their losses do not depend on what the others share, by mistake more often than not."""
    one = len(tasks) == 1
    warn(
        f"{method.name}: the gradient of {', '.join(map(repr, tasks))} at shared= was exactly zero in each of the "
        f"first {steps} steps, so {'it is' if one else 'they are'} not balanced: "
        f"{'its head reads' if one else 'their heads read'} something else (detached or other features, or shared= is "
        "the head of another task). Pass what all heads read, or the module that all tasks share",
    )


def disjoint(gramian: Tensor) -> bool:
    """Whether two tasks that both have a gradient have an inner product of exactly zero: they share no samples."""
    moving = gramian.diagonal() > 0
    return bool(((gramian == 0) & moving[:, None] & moving).any())


def warn_of_disjoint_samples(method: Method) -> None:
    """Angles between such tasks mean nothing at the features."""
    warn(
        f"{method.name} uses the angles between task gradients, but at the features some tasks share no samples "
        "(their own inputs, disjoint labels, one task per batch): their inner products are exactly zero there, and "
        "conflict is invisible. Read the gradients at the trunk (shared=trunk), or choose a method that reads losses "
        "or norms",
        AngleWarning,
    )
