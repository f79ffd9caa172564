"""Reading task gradients where the user points: ``shared=``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from steelyard.base.float64 import double
from steelyard.base.lookahead import Losses
from steelyard.base.method import Method
from steelyard.errors import LossError, MissingInputError
from steelyard.gradients.boundary import Boundary
from steelyard.gradients.gradients_near_loss import moves_nothing
from steelyard.gradients.graph import Edge, survey
from steelyard.gradients.heads import Factors, factors
from steelyard.gradients.redirection import Target
from steelyard.gradients.rows import Rows, precision_between, task_rows
from steelyard.gradients.shared_option import Place
from steelyard.gradients.trunk import TrunkGradients, trunk_gradients
from steelyard.gradients.wrappers import behind_wrapper, edges_of


@dataclass(frozen=True)
class Reading:
    """Task gradients of one step.

    Attributes:
        squared_norms, gramian: ``[T]`` and, where it was asked for, ``[T, T]`` at the place that was read.
        rows: task gradients where a direction may be sent: where heads meet the trunk, or for element-wise methods at
            the place that was read; ``None`` where nothing needs them.
        targets: where those rows were read, and where a direction may be sent.
        whole: task gradients at all of the parameters that were read, where they were asked for.
        at_depths: whether some of the targets lie behind others.
        angles_hold: whether inner products of tasks that share no samples are seen: at parameters, not at features.
    """

    squared_norms: Tensor
    gramian: Tensor | None
    rows: Rows | Factors | None
    targets: Sequence[Target]
    angles_hold: bool = False
    whole: Rows | None = None
    at_depths: bool = False

    @property
    def edges(self) -> list[Edge]:
        """The targets, where none of them is a tensor."""
        return [target for target in self.targets if not isinstance(target, Tensor)]

    def select(self, positions: list[int]) -> Reading:
        """The reading of the tasks at ``positions``."""
        return Reading(
            self.squared_norms[positions],
            None if self.gramian is None else self.gramian[positions][:, positions],
            None if self.rows is None else self.rows.select(positions),
            self.targets,
            self.angles_hold,
            None if self.whole is None else self.whole.select(positions),
            self.at_depths,
        )


def read(
    method: Method,
    names: Sequence[str],
    losses: Sequence[Tensor],
    place: Place,
    workspace: Tensor | None = None,
    whole: bool = False,
) -> Reading:
    """Differentiate the losses at a place, as far as the method needs it; ``whole`` asks for the parameters' rows."""
    reads = place.asked_by(method)
    with torch.enable_grad(), _graph_is_there():
        if place.look is not None:
            return _read_elsewhere(method, names, losses, place, whole)
        if place.is_trunk and reads != "rows":
            return _of_parameters(
                trunk_gradients(names, losses, place.tensors, at_boundary=method.heads == "plain", whole=whole)
            )
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


def _read_elsewhere(
    method: Method, names: Sequence[str], losses: Sequence[Tensor], place: Place, whole: bool
) -> Reading:
    """The Gramian at ``look=``; and where heads stay plain, the task gradients at ``shared=``, from the same passes."""
    assert place.look is not None
    boundary: Boundary | None = None
    rows: Factors | None = None
    if method.heads == "plain" and place.is_trunk:
        boundary = Boundary.of(survey(losses, place.tensors), losses)
    elif method.heads == "plain":
        rows = factors(losses, place.tensors)
        if rows is None:
            boundary = Boundary(edges_of(place.tensors), precision_between(losses, place.tensors).coarsest)
    found = _of_parameters(trunk_gradients(names, losses, place.look, False, whole, boundary=boundary, given="look="))
    if rows is None:
        return found
    return replace(found, rows=rows, targets=[behind_wrapper(tensor) or tensor for tensor in place.tensors])


def _of_parameters(found: TrunkGradients) -> Reading:
    gramian = found.gramian
    return Reading(gramian.diagonal(), gramian, found.rows, found.boundary, True, found.whole, found.at_depths)


@contextmanager
def _graph_is_there() -> Iterator[None]:
    """Own words for losses that a backward pass has been through."""
    try:
        yield
    except RuntimeError as error:
        if "graph a second time" in str(error):
            raise freed_error() from error
        raise


def freed_error(task: str = "") -> LossError:
    return LossError(
        f"the graph of {f'the loss of {task!r}' if task else 'a loss'} is gone: backward() has been called through it "
        "already. Call the balancer first and backward() once, on what it returns; where two backward passes are "
        "meant, give the first retain_graph=True; what is carried from batch to batch (a hidden state) wants .detach()"
    )


def read_cross(method: Method, names: Sequence[str], probes: Sequence[Losses] | None, place: Place) -> Tensor:
    """``J₁ J₂ᵀ`` of two independent batches as ``[T, T]`` float64: unbiased, where ``J Jᵀ`` of one batch is not."""
    found = rows_of_probes(method, names, names, probes, place)
    for number, (_, _, labels) in enumerate(found):
        for name, count in zip(names, labels, strict=True):
            if not count > 0:
                raise MissingInputError(
                    f"probes[{number}] has no labels for the task {name!r} (its loss there is exactly 0, and so is its "
                    "gradient), which the batch at hand has: draw probes with labels for all tasks"
                )
    (_, first, _), (_, second, _) = found
    return double(first) @ double(second).T


def rows_of_probes(
    method: Method, names: Sequence[str], required: Sequence[str], probes: Sequence[Losses] | None, place: Place
) -> list[tuple[list[int], Tensor, list[float]]]:
    """Of each probe batch: which of the tasks it has, their rows, and the labels behind them (0 behind idle zeros)."""
    if probes is None or len(probes) != 2:
        raise MissingInputError(
            f"{method.name} compares the gradients of two independent batches: pass "
            f"probes=[losses_1, losses_2], got {'none' if probes is None else len(probes)}"
        )
    tensors = tuple(tensor for tensor in place.read if tensor.requires_grad)
    found = []
    for number, losses in enumerate(probes):
        absent = [name for name in required if losses.get(name) is None]
        if absent:
            raise MissingInputError(f"probes[{number}] lacks the task {absent[0]!r}, which the batch at hand has")
        positions = [k for k, name in enumerate(names) if losses.get(name) is not None]
        there = [loss for name in names if (loss := losses.get(name)) is not None]
        with torch.enable_grad(), _graph_is_there():
            rows = task_rows([names[k] for k in positions], there, tensors).matrix
        found.append((positions, rows, _labels(method, there)))
    return found


def _labels(method: Method, losses: Sequence[Tensor]) -> list[float]:
    """Labels behind each loss; 0 where it is exactly zero and moves nothing, and nobody counts."""
    counts = [float(getattr(loss, "label_count", 1.0)) for loss in losses]
    if method.on_nonfinite == "ignore":  # nobody looks
        return counts
    numbers = torch.stack([loss.detach() for loss in losses]).tolist()
    return [
        0.0 if number == 0.0 and not hasattr(loss, "label_count") and moves_nothing(loss) else count
        for loss, number, count in zip(losses, numbers, counts, strict=True)
    ]
