"""Features of a network that keeps them to itself: remembered where they are made, for ``shared=``."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
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

    Call it after the forward pass, once: its features are handed over and forgotten. A module that runs several times
    for one set of losses needs another place: its parameters, or features of your own. Passes that no loss can come
    through any more do not count: those without gradients, those whose result is gone, and those that a backward pass
    has been through; nor does what activation checkpointing runs again.

    Errors: no module, no forward pass since the last call, several whose graphs are alive, or an output that is no
    tensor: `SharedError`.

    Example::

        features = steelyard.features_of(detector.backbone)
        losses = detector(images, targets)
        loss = balancer(losses, shared=features())

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
        >>> features = steelyard.features_of(model[0])
        >>> out = model(torch.ones(5, 3))
        >>> balancer = steelyard.MGDA(["a", "b"])
        >>> _ = balancer({"a": out[:, 0].mean(), "b": out[:, 1].mean()}, shared=features())
        >>> round(float(balancer.last_weights.sum()), 6)
        1.0
    """
    if not isinstance(module, nn.Module):
        raise SharedError(
            f"features_of() takes the module whose output the heads read, got a {type(module).__name__}: pass "
            "model.backbone, say; a tensor of features is given as shared= itself"
        )
    return RememberedFeatures(module, pick)


class _Pass:
    """Stands in the graph of one forward pass: gone when the graph is, and told when gradients have come through."""

    def __init__(self) -> None:
        self.used = False

    def mark(self, *_: Any) -> None:
        self.used = True


class RememberedFeatures:
    """What `features_of` returns: call it for the features of the last forward pass."""

    def __init__(self, module: nn.Module, pick: Pick | None = None) -> None:
        self._pick = pick
        self._output: Any = None
        self._passes: list[weakref.ref[_Pass]] = []
        self._name = type(module).__name__
        self._handle = module.register_forward_hook(self._remember)

    def __getstate__(self) -> dict[str, Any]:
        # Copies of the module copy its hooks, and a tensor with a graph cannot be copied.
        return {**self.__dict__, "_output": None, "_passes": []}

    def _remember(self, module: nn.Module, inputs: Any, output: Any) -> None:
        # Within a backward pass, checkpointing runs a module once more: for the losses that there were.
        if not torch.is_grad_enabled() or torch._C._current_graph_task_id() != -1:
            return
        self._output = output
        if not torch.compiler.is_compiling():  # what is compiled whole has no graph to read at these features
            self._passes = [each for each in self._passes if _waits(each)]
            self._passes.extend(_note(output))

    def __call__(self) -> Features:
        """The features of the last forward pass."""
        output, self._output = self._output, None
        passes, self._passes = [each for each in self._passes if _waits(each)], []
        if len(passes) > 1:
            raise SharedError(
                f"{self._name} has run {len(passes)} times with gradients since its features were last asked for, and "
                "losses may come through each of the passes: put the inputs into one batch, pass the module itself "
                "(shared=trunk, exact) or the features that you keep yourself; run passes that are not trained "
                "through under torch.no_grad()"
            )
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
        self._output, self._passes = None, []


def _waits(each: weakref.ref[_Pass]) -> bool:
    """Whether losses may yet be differentiated through a pass."""
    found = each()
    return found is not None and not found.used


def _note(output: Any) -> Iterator[weakref.ref[_Pass]]:
    """Leave a mark in the graph of one output, if it has a graph: nothing is held on to."""
    node = next((tensor.grad_fn for tensor in _tensors(output) if tensor.grad_fn is not None), None)
    if node is not None:
        mark = _Pass()
        node.register_hook(mark.mark)  # the graph keeps the mark with its hook
        yield weakref.ref(mark)


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for each in output.values():
            yield from _tensors(each)
    elif isinstance(output, Sequence) and not isinstance(output, str):
        for each in output:
            yield from _tensors(each)
    else:
        yield from _tensors(getattr(output, "last_hidden_state", ()))
