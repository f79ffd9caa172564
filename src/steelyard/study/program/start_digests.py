"""What a network starts from, in a few bytes each: a study says when two trials of one seed did not start alike."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn


def start_digests(network: nn.Module) -> dict[str, str]:
    """A digest of each parameter, by its name and shape."""
    return {f"{name} {list(value.shape)}": _digest(value) for name, value in network.named_parameters()}


def _digest(value: Tensor) -> str:
    flat = value.detach().cpu().contiguous().reshape(-1)
    content = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
    return hashlib.blake2b(f"{value.dtype}:".encode() + content, digest_size=6).hexdigest()
