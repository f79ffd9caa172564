"""Where gradients are read: what ``shared=`` points at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.nn.utils.rnn import PackedSequence

from steelyard.base.method import Look, Method, tensors_of
from steelyard.base.observation import Reads
from steelyard.errors import SharedError
from steelyard.gradients.graph import depends
from steelyard.gradients.look_option import looked_at
from steelyard.gradients.wrappers import behind_wrapper, is_sharded

Shared = Tensor | Sequence[Tensor] | nn.Module | Iterable[nn.Parameter | nn.Module]


@dataclass(frozen=True)
class Place:
    """Where gradients are read, and where the balanced one is sent.

    Attributes:
        tensors: feature tensors, or the trunk's parameters: there the balanced gradient is sent.
        is_trunk: whether they are parameters.
        look: parameters whose gradients are read in their place; ``None``: those of the tensors.
        told: whether the method is told of what is read; not where weights are held, and read only to be carried.
    """

    tensors: tuple[Tensor, ...]
    is_trunk: bool
    look: tuple[Tensor, ...] | None = None
    told: bool = True

    @property
    def at_parameters(self) -> bool:
        """Whether what is read are gradients of parameters, which have products between all samples."""
        return self.is_trunk or self.look is not None

    @property
    def read(self) -> tuple[Tensor, ...]:
        """The tensors whose gradients are read."""
        return self.tensors if self.look is None else self.look

    def asked_by(self, method: Method) -> Reads:
        """What the method reads here: where it looks elsewhere it answers with weights, as at features."""
        return method.looks_for(self.is_trunk) if self.look is None else method.reads_at(False)

    def __str__(self) -> str:
        """For messages."""
        trainable = sum(tensor.numel() for tensor in self.read if tensor.requires_grad)
        carrier = f"a trunk of {trainable:,} numbers" if self.is_trunk else "features"
        if self.look is None:
            return carrier
        return f"{'a trunk' if self.is_trunk else 'features'}, looked at in {trainable:,} numbers"


def _refuse_containers(shared: Any) -> None:
    """Iterating over these gives pieces that nobody meant."""
    if isinstance(shared, Mapping):
        raise SharedError(
            "shared= is a dict: pass what it holds, shared=tuple(features.values()); for parameters pass the module "
            "itself, shared=trunk"
        )
    if isinstance(shared, PackedSequence):
        raise SharedError("shared= is a PackedSequence: pass the tensor in it, shared=packed.data")


def place_of(
    method: Method,
    shared: Shared | None,
    look: Look | None = None,
    losses: Sequence[Tensor] = (),
    refresh: bool = True,
) -> Place | None:
    """What ``shared=`` and ``look=`` point at, or ``None`` for a method that reads no gradients.

    Args:
        method: says what it reads, and where it is defined.
        shared, look: see `Balancer.forward`.
        losses: those at hand; they show where a trunk ends.
        refresh: whether the method weighs anew, and looks.
    """
    if not method.needs_shared:
        return None
    if shared is None:
        blind = method.reads in ("losses", "lookahead")
        why = "leaves the heads plain" if blind else f"reads the tasks' {method.reads}"
        raise SharedError(
            f"{method.name} {why} and needs to know where: write balancer(losses, shared=features), with the tensor "
            "(or tuple of tensors) that the task heads read, or shared=trunk with the shared module"
        )
    _refuse_containers(shared)
    tensors = tensors_of(shared)
    if not tensors:
        raise SharedError("shared= is empty: pass the tensors that the task heads read, or the shared module")
    for position, tensor in enumerate(tensors):
        if not isinstance(tensor, Tensor):
            raise SharedError(
                f"shared[{position}] is a {type(tensor).__name__}, not a tensor: pass what the task heads read itself, "
                "shared=features, or the shared module, shared=trunk (several in a list)"
            )
        if tensor.is_nested:
            raise SharedError(
                f"shared[{position}] is a nested tensor: pass the rows that it holds, shared=z.values(), and have the "
                "heads read them"
            )
        if tensor.dim() == 0 and any(tensor is loss for loss in losses):
            raise SharedError(
                f"shared[{position}] is one of the losses: pass what the task heads read, shared=features, or the "
                "shared module, shared=trunk"
            )
    parameters = sum(isinstance(tensor, nn.Parameter) for tensor in tensors)
    if parameters not in (0, len(tensors)):
        raise SharedError(
            "shared= mixes features and parameters: pass either the tensors that the heads read, or the trunk"
        )
    place = Place(tensors, is_trunk=bool(parameters))
    if method.reads == "along" and look is None:
        look = "trunk"  # a step moves parameters
    _check_carrier(method, place)
    if look is not None and method.reads not in ("losses", "lookahead"):
        named_in = shared if isinstance(shared, nn.Module) else method.trunk
        found = looked_at(place.tensors, place.is_trunk, named_in, look, losses, walk=refresh)
        place = replace(place, look=found)
    _check_read(method, place)
    return place if refresh or place.look is None else replace(place, look=None, told=False)


def _check_carrier(method: Method, place: Place) -> None:
    """Refuse features or a trunk at which nothing can be balanced."""
    if not place.is_trunk:
        if method.memory == "rows":
            raise SharedError(
                "memory='rows' compares gradients of different batches, which correspond at the trunk's parameters and "
                "not at features: pass the shared module as shared="
            )
        _check_features(place.tensors)
    elif not any(tensor.requires_grad for tensor in place.tensors):
        raise SharedError(
            "every parameter of the trunk given as shared= is frozen: there is no shared gradient to balance"
        )


def _check_read(method: Method, place: Place) -> None:
    """Refuse a place at which a method is not defined."""
    elsewhere = place.look is not None
    if place.at_parameters and "trunk" not in method.where:
        raise SharedError(
            f"{method.name} is defined on features, not on the trunk's parameters: pass the tensor that the task heads "
            "read as shared=" + (", and leave look= away" if elsewhere else "")
        )
    if elsewhere and place.asked_by(method) == "rows":
        raise SharedError(
            f"{method.name} makes its answer of the task gradients themselves, element by element, where shared= says: "
            "leave look= away, and pass that layer as shared="
        )
    if not place.at_parameters and "features" not in method.where:
        raise SharedError(
            f"{method.name} is defined on the trunk's parameters, not on features: pass the shared module as shared="
            + _plain_leaves(place.tensors)
        )
    if elsewhere and method.memory == "rows":
        raise SharedError(
            "memory='rows' keeps the gradients at what shared= points at: leave look= away, and pass the shared "
            "module, or a layer of it, as shared="
        )
    if not elsewhere and place.is_trunk and method.memory == "numbers" and method.looks_for(True) == "rows":
        raise SharedError(
            f"memory='numbers' keeps losses and norms, and {method.name} reads the task gradients themselves at the "
            "trunk: use memory='rows', or pass the tensor that the task heads read as shared="
        )
    if place.at_parameters and any(is_sharded(tensor) for tensor in place.read):
        raise SharedError(
            f"the {'layers given as look= are' if elsewhere else 'trunk given as shared= is'} sharded over ranks "
            "(DTensor, as fully_shard makes them), and the gradients of these parameters exist nowhere in one piece: "
            "pass the tensor that the task heads read as shared=, where look='last' and look='trunk' find them "
            "gathered in the graph"
        )


def _check_features(tensors: tuple[Tensor, ...]) -> None:
    for position, tensor in enumerate(tensors):
        if not tensor.requires_grad:
            raise SharedError(
                f"shared[{position}] has no graph (requires_grad=False): the trunk is frozen or ran under no_grad, or "
                "this is its input. There is no shared gradient to balance: pass what the trunk returned, graph and all"
            )
    if len(tensors) > 1:
        _check_independent(tensors)


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


def _plain_leaves(tensors: Sequence[Tensor]) -> str:
    """For messages: weights that are no parameters count as features, and look like none to who made them."""
    if not any(tensor.is_leaf and tensor.requires_grad for tensor in tensors):
        return ""
    return ". Leaf tensors that are no nn.Parameter count as features: if these are the trunk's weights, make them such"
