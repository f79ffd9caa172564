"""Where gradients are read: what ``shared=`` points at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from steelyard.base.method import Method, tensors_of
from steelyard.errors import SharedError
from steelyard.gradients.graph import depends
from steelyard.gradients.wrappers import behind_wrapper, is_sharded

Shared = Tensor | Sequence[Tensor] | nn.Module | Iterable[nn.Parameter | nn.Module]


@dataclass(frozen=True)
class Place:
    """Where gradients are read: at feature tensors, or at the trunk's parameters."""

    tensors: tuple[Tensor, ...]
    is_trunk: bool


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
    tensors = tensors_of(shared)
    if not tensors:
        raise SharedError("shared= is empty: pass the tensors that the task heads read, or the shared module")
    for position, tensor in enumerate(tensors):
        if not isinstance(tensor, Tensor):
            raise SharedError(
                f"shared[{position}] is a {type(tensor).__name__}, not a tensor: pass what the task heads read itself, "
                "shared=features, or the shared module, shared=trunk (several in a list)"
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
