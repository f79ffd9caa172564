"""An optimizer that divides element by element, in two: what it divides by, as options, and plain SGD."""

from __future__ import annotations

from typing import Any

import torch

from steelyard.errors import OptionError


def form_of(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """``form``, ``beta1``, ``beta2`` and ``epsilon`` of torch's Adam, AdamW, RMSprop or Adagrad, as far as it has them.

    Raises:
        OptionError: it is another one, does more than that, or does not do it alike everywhere.
    """
    kind = type(optimizer).__name__
    found = [_form(kind, group) for group in optimizer.param_groups]
    if any(each is None or each != found[0] for each in found) or found[0] is None:
        raise OptionError(
            f"this {kind} cannot be split into what it divides by and plain SGD. That goes for torch.optim.Adam, "
            "AdamW, RMSprop and Adagrad, with the same numbers in all groups and without amsgrad, maximize, centered, "
            "momentum=, lr_decay and initial_accumulator_value; weight_decay is AdamW's alone"
        )
    return found[0]


def _form(kind: str, group: dict[str, Any]) -> dict[str, Any] | None:
    more = ("amsgrad", "maximize", "centered", "momentum", "lr_decay", "initial_accumulator_value")
    if any(group.get(option) for option in more) or (kind != "AdamW" and group["weight_decay"]):
        return None
    if kind in ("Adam", "AdamW"):
        beta1, beta2 = group["betas"]
        return {"form": "adam", "beta1": float(beta1), "beta2": float(beta2), "epsilon": group["eps"]}
    if kind == "RMSprop":
        return {"form": "rmsprop", "beta2": group["alpha"], "epsilon": group["eps"]}
    return {"form": "adagrad", "epsilon": group["eps"]} if kind == "Adagrad" else None


def plain_sgd(optimizer: torch.optim.Optimizer) -> torch.optim.SGD:
    """Of the same parameters in the same groups, with their learning rates and weight decays."""
    groups = [{name: group[name] for name in ("params", "lr", "weight_decay")} for group in optimizer.param_groups]
    return torch.optim.SGD(groups, lr=groups[0]["lr"])
