"""Where the look is taken, as ``look=`` says it: ``"features"``, ``"last"``, ``"trunk"``, or layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from steelyard.base.method import Look, tensors_of
from steelyard.errors import SharedError, UnknownNameError
from steelyard.gradients.graph import survey
from steelyard.gradients.parameters_behind import last_layers, parameters_behind
from steelyard.gradients.wrappers import edges_of


def looked_at(
    tensors: tuple[Tensor, ...], is_trunk: bool, shared: Any, look: Look, losses: Sequence[Tensor], walk: bool = True
) -> tuple[Tensor, ...] | None:
    """The parameters whose gradients are read; ``None`` where those are read that ``shared=`` points at.

    Args:
        tensors, is_trunk: what ``shared`` stands for.
        shared, look: see `Balancer.forward`.
        losses: those at hand; they show where a trunk ends.
        walk: whether they are found in this step; else there are none.
    """
    if isinstance(look, str) and look in ("features", "trunk") and is_trunk == (look == "trunk"):
        return None
    if isinstance(look, str) and look == "features":
        raise SharedError(
            "look='features' with a trunk as shared=: features change with every batch, so pass them, shared=features, "
            "the tensor that the task heads read"
        )
    if not walk:
        return ()
    found = _by_walk(tensors, is_trunk, look, losses) if look in ("last", "trunk") else _named(look, shared)
    found = tuple(parameter for parameter in found if parameter.requires_grad)
    if not found:
        raise SharedError(
            f"look={look!r}: there is no trainable parameter {'in it' if _is_layers(look) else 'behind shared='}: the "
            "trunk is frozen, or shared= is its input"
        )
    return found


def _by_walk(tensors: tuple[Tensor, ...], is_trunk: bool, look: Look, losses: Sequence[Tensor]) -> tuple[Tensor, ...]:
    if is_trunk:
        return last_layers(survey(losses, tensors).boundary, among=tensors)
    edges = edges_of(tensors)
    return last_layers(edges) if look == "last" else parameters_behind(edges)


def _is_layers(look: Look) -> bool:
    return not isinstance(look, str) or look not in ("last", "trunk")


def _named(look: Look, shared: Any) -> tuple[Tensor, ...]:
    """The parameters of layers, given themselves or by their names in the module given as ``shared=``."""
    parts = look if isinstance(look, Iterable) and not isinstance(look, str | nn.Module | Tensor) else [look]
    found = tensors_of([_module(part, shared) if isinstance(part, str) else part for part in parts])
    for each in found:
        if not isinstance(each, nn.Parameter):
            raise SharedError(
                f"look= holds a {type(each).__name__}: pass 'features', 'last', 'trunk', or layers: modules, their "
                "parameters, or names of modules in what is given as shared="
            )
    return found


def _module(name: str, shared: Any) -> nn.Module:
    if not isinstance(shared, nn.Module):
        raise SharedError(
            f"look={name!r} is no place ('features', 'last', 'trunk'), so it names a module in the trunk, and none was "
            "given as shared=, in the call or at construction: pass the layer itself, look=trunk.layer"
        )
    modules: dict[str, nn.Module] = dict(shared.named_modules())
    if name not in modules:
        raise UnknownNameError("module", name, list(modules), "It stands in look=.")
    return modules[name]
