"""Features of a network that keeps them to itself: remembered where they are made, for ``shared=``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from steelyard.errors import SharedError

Features = Tensor | tuple[Tensor, ...]
Pick = Callable[[Any], Tensor | Sequence[Tensor]]


def features_of(module: nn.Module, pick: Pick | None = None) -> RememberedFeatures:
    """Remember what a submodule returns, so that it can be given as ``shared=``.

    For networks that return losses or predictions and no features (detectors, models behind a trainer), and for
    features that a wrapper copies on the way out (Accelerate's conversion to float32, DDP with
    ``find_unused_parameters``): only the tensor that the heads themselves read carries their gradients.

    Args:
        module: the submodule whose output the heads read; under DDP, of the module inside the wrapper.
        pick: from the module's output to the tensor, or tuple of tensors, that the heads read. Not needed where the
            output is one tensor, or an object with a tensor ``last_hidden_state``.

    Call it after the forward pass, once: the features of the *last* pass with gradients are handed over and forgotten.
    A module that runs several times for one set of losses needs another place: its parameters, or features of your own.

    Errors: no forward pass since the last call, or an output that is no tensor: `SharedError`.

    Example::

        features = steelyard.features_of(detector.backbone)
        losses = detector(images, targets)
        loss = balancer(losses, shared=features())
    """
    return RememberedFeatures(module, pick)


class RememberedFeatures:
    """What `features_of` returns: call it for the features of the last forward pass."""

    def __init__(self, module: nn.Module, pick: Pick | None = None) -> None:
        self._pick = pick
        self._output: Any = None
        self._name = type(module).__name__
        self._handle = module.register_forward_hook(self._remember)

    def __getstate__(self) -> dict[str, Any]:
        # Copies of the module copy its hooks, and a tensor with a graph cannot be copied.
        return {**self.__dict__, "_output": None}

    def _remember(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if torch.is_grad_enabled():
            self._output = output

    def __call__(self) -> Features:
        """The features of the last forward pass."""
        output, self._output = self._output, None
        if output is None:
            raise SharedError(
                f"{self._name} has not run with gradients since its features were last asked for: run the model "
                "first, and ask once per forward pass"
            )
        picked = self._pick(output) if self._pick is not None else getattr(output, "last_hidden_state", output)
        if isinstance(picked, Tensor):
            return picked
        if self._pick is not None and isinstance(picked, Sequence):
            return tuple(picked)
        what = "pick= returned" if self._pick is not None else f"{self._name} returns"
        raise SharedError(
            f"{what} a {type(picked).__name__}, not a tensor: say which of it the heads read, for instance "
            "features_of(module, pick=lambda output: output[0])"
        )

    def remove(self) -> None:
        """Take the hook off the module."""
        self._handle.remove()
        self._output = None
