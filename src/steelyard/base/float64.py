"""Where float64 is: on every device but those that have none, whose numbers come to the CPU for it.

In two steps: torch's MPS cannot copy its float32 into the CPU's float64 in one.
"""

from __future__ import annotations

import torch
from torch import Tensor

WITHOUT = {"mps"}
"""Kinds of devices that have no float64."""


def has_float64(device: torch.device) -> bool:
    return device.type not in WITHOUT


def float64_device(device: torch.device) -> torch.device:
    """Where float64 of such a device's numbers is: there, or on the CPU."""
    return device if has_float64(device) else torch.device("cpu")


def widest(device: torch.device) -> torch.dtype:
    """The most precise numbers of a device."""
    return torch.float64 if has_float64(device) else torch.float32


def double(tensor: Tensor) -> Tensor:
    """In float64: where the tensor is, or on the CPU."""
    return tensor.double() if has_float64(tensor.device) else tensor.cpu().double()


def at_least(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """In a precision that is no less than this: where the tensor is, or for float64 where that is."""
    precise = torch.promote_types(tensor.dtype, dtype)
    return double(tensor) if precise == torch.float64 else tensor.to(precise)
