"""Where a device multiplies float32 numbers of fewer digits: TF32 on NVIDIA's, as torch is set."""

from __future__ import annotations

from typing import Any

import torch

TF32_EPS = 2.0**-10
"""Between neighbours of 1."""


def matmul_is_short(device: torch.device) -> bool:
    """Whether matrices in float32 are multiplied with fewer digits (``torch.set_float32_matmul_precision("high")``)."""
    return device.type == "cuda" and _is_short(torch.backends.cuda.matmul, torch.backends.cuda.matmul)


def convolution_is_short(device: torch.device) -> bool:
    """Whether convolutions in float32 are, as torch has it unless told otherwise."""
    cudnn: Any = torch.backends.cudnn
    return device.type == "cuda" and _is_short(getattr(cudnn, "conv", None), cudnn)


def _is_short(settings: Any, before: Any) -> bool:
    # Since torch 2.9 precisions have names, and the switch of before cannot be asked where they were set by these.
    precision = getattr(settings, "fp32_precision", None)
    return bool(before.allow_tf32) if precision is None else precision not in ("none", "ieee")
