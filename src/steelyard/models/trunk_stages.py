"""Cut a trunk into stages, for the architectures that meet their tasks inside it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from steelyard.errors import ArchitectureError, OptionError
from steelyard.models.base_architecture import whole
from steelyard.models.features import Features


class TrunkStage(nn.Module):
    """Some consecutive layers of a trunk; the first takes what the trunk takes."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, *inputs: Tensor, **named: Any) -> Any:
        first, *rest = self.layers
        features = first(*inputs, **named)
        for layer in rest:
            features = layer(features)
        return features


def cut(architecture: str, trunk: nn.Module, stages: int | None, option: str = "stages") -> list[TrunkStage]:
    """The trunk as a chain of stages.

    An ``nn.Sequential`` is cut before each child that has a weight (a parameter of two dimensions or more), so
    that activations, pooling and normalisation stay with the layer before them; a flattening goes with the layer
    after it, so that a stage of images puts out images. Any other trunk says where it may
    be cut by an attribute ``stages``, the modules that it applies one after the other. Fewer stages than that are
    groups of neighbours, as equal as can be. One stage is the whole trunk, which may be of any kind.

    Args:
        architecture, option: for messages.
        trunk: as the problem builds it.
        stages: how many; ``None`` = as many as there are.

    Raises:
        ArchitectureError: the trunk cannot be cut.
        OptionError: there are not so many stages.
    """
    if stages is not None and whole(architecture, option, stages) == 1:
        return [TrunkStage([trunk])]
    units = _units(architecture, trunk, option)
    count = len(units) if stages is None else stages
    if count > len(units):
        raise OptionError(
            f"{architecture}: {option}={count}, but the trunk ({type(trunk).__name__}) has {len(units)} stages: choose "
            f"1 to {len(units)}"
        )
    bounds = [number * len(units) // count for number in range(count + 1)]
    return [TrunkStage([layer for unit in units[start:end] for layer in unit]) for start, end in pairwise(bounds)]


def check_cut(architecture: str, trunk: str, outputs: Sequence[Features], option: str = "stages") -> None:
    """Between stages there must be one tensor."""
    for number, features in enumerate(outputs[:-1], start=1):
        if not isinstance(features, Tensor):
            raise ArchitectureError(
                f"{architecture}: stage {number} of the trunk ({trunk}) puts out a {type(features).__name__}, not a "
                f"tensor: cut it elsewhere, or write {architecture}({option}=1)"
            )


def _units(architecture: str, trunk: nn.Module, option: str) -> list[list[nn.Module]]:
    name = type(trunk).__name__
    declared = getattr(trunk, "stages", None)
    if declared is not None:
        modules = list(declared)
        held = {id(parameter) for module in modules for parameter in module.parameters()}
        missing = [key for key, parameter in trunk.named_parameters() if id(parameter) not in held]
        if missing or not modules:
            raise ArchitectureError(
                f"{architecture}: the stages that the trunk ({name}) declares leave out its parameter "
                f"{missing[0] if missing else '(all)'!r}: list all modules that it applies, in order"
            )
        return [[module] for module in modules]
    if isinstance(trunk, nn.Sequential) and type(trunk).forward is nn.Sequential.forward:
        return _groups(trunk)
    raise ArchitectureError(
        f"{architecture} cuts the trunk into stages, and cannot cut a {name}: let trunk() return an nn.Sequential, or "
        f"give {name} an attribute `stages`, the list of the modules that it applies one after the other; or write "
        f"{architecture}({option}=1) to keep it whole"
    )


def _groups(trunk: nn.Sequential) -> list[list[nn.Module]]:
    groups: list[list[nn.Module]] = [[]]
    behind = 0  # the last group's layers behind the one with a weight; 0 before there is one
    for child in trunk:
        weighty = any(parameter.dim() > 1 for parameter in child.parameters())
        if weighty and behind:
            last = groups[-1]
            kept = next((n for n in range(behind, len(last)) if isinstance(last[n], nn.Flatten)), len(last))
            groups.append(last[kept:])
            del last[kept:]
        groups[-1].append(child)
        behind = len(groups[-1]) if weighty else behind
    return groups
