"""A network's parameters as a problem's optimizer gets them."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn


class Parameters(list[nn.Parameter]):
    """All parameters of a network, of which those of the trunk and all others can be had apart.

    Attributes:
        trunk: those of the shared network.
        heads: all others.

    Example:
        >>> from steelyard.problems import Parameters
        >>> network = nn.ModuleDict({"trunk": nn.Linear(2, 3), "head": nn.Linear(3, 1)})
        >>> parameters = Parameters(network.parameters(), trunk=network["trunk"])
        >>> optimizer = torch.optim.AdamW([{"params": parameters.trunk, "lr": 1e-4}, {"params": parameters.heads}])
        >>> [len(group["params"]) for group in optimizer.param_groups], len(parameters)
        ([2, 2], 4)
    """

    def __init__(self, parameters: Iterable[nn.Parameter], trunk: nn.Module) -> None:
        super().__init__(parameters)
        shared = set(trunk.parameters())
        self.trunk = [parameter for parameter in self if parameter in shared]
        self.heads = [parameter for parameter in self if parameter not in shared]

    @classmethod
    def of(cls, network: nn.Module) -> Parameters:
        """Those of a network with a ``trunk``."""
        trunk = network.get_submodule("trunk")
        return cls(network.parameters(), trunk)
