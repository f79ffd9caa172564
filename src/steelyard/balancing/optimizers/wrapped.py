"""What is attached: the optimizer whose steps happen, inside the wrappers of trainers, and its gradient scaler."""

from __future__ import annotations

from typing import Any

import torch

from steelyard.errors import OptionError


def innermost(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer inside the wrappers of Accelerate, Fabric and Lightning: its hooks see every step that happens.

    The wrappers imitate the class of what they wrap without its hooks, or do not call them.
    """
    while (inner := _wrapped(optimizer)) is not None:
        optimizer = inner
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise OptionError(
            f"attach() takes the optimizer that steps the shared parameters, got a {type(optimizer).__name__}: pass a "
            "torch.optim.Optimizer, as it is or in a trainer's wrapper"
        )
    if not _fires_hooks(optimizer):
        raise OptionError(
            f"attach() got a {type(optimizer).__name__} whose steps nobody is told of: its __init__ does not call "
            "super().__init__(params, defaults), where torch.optim.Optimizer prepares the hooks of a step. Attach the "
            "optimizer that it wraps, or let its __init__ call that of torch.optim.Optimizer"
        )
    return optimizer


def outermost(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The first optimizer on the way to the `innermost` whose steps call hooks: what it adds is a part of its step."""
    around: torch.optim.Optimizer | None = optimizer
    while around is not None and not (isinstance(around, torch.optim.Optimizer) and _fires_hooks(around)):
        around = _wrapped(around)
    return innermost(optimizer) if around is None else around


def checked_scaler(scaler: Any) -> Any:
    """A gradient scaler, torch's or a trainer's, or ``None``."""
    if scaler is not None and not all(callable(getattr(scaler, name, None)) for name in ("is_enabled", "get_scale")):
        raise OptionError(
            f"attach(scaler=) takes the gradient scaler, got a {type(scaler).__name__}: pass the torch.amp.GradScaler "
            "that scales the loss, or leave it away"
        )
    return scaler


def _fires_hooks(optimizer: torch.optim.Optimizer) -> bool:
    """Whether its steps call hooks: what torch.optim.Optimizer.__init__ sees to, which wrappers often do not call."""
    hooks = optimizer.__dict__.get("_optimizer_step_post_hooks")
    return hooks is not None and getattr(type(optimizer).step, "hooked", False) is True


def _wrapped(optimizer: object) -> torch.optim.Optimizer | None:
    """The optimizer inside a wrapper whose own steps fire no hooks, or that forwards them under ``optimizer``."""
    inner = getattr(optimizer, "optimizer", None)
    if isinstance(inner, torch.optim.Optimizer):
        return inner
    if not callable(getattr(optimizer, "step", None)):
        return None
    if isinstance(optimizer, torch.optim.Optimizer) and _fires_hooks(optimizer):
        return None
    held = [each for each in vars(optimizer).values() if isinstance(each, torch.optim.Optimizer)]
    return held[0] if len(held) == 1 else None


def base_of(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer | None:
    """The optimizer inside a sharpness-aware one (``first_step`` up the hill, losses again, ``second_step``)."""
    base = getattr(optimizer, "base_optimizer", None)
    two_steps = callable(getattr(optimizer, "first_step", None)) and callable(getattr(optimizer, "second_step", None))
    return base if two_steps and isinstance(base, torch.optim.Optimizer) else None
