"""Whether the ranks still train the same network.

Wrappers that average gradients can be gone round without a word: a forward through ``ddp.module``, a reducer that
never fires. Replicas then drift apart, and the balance over all of them is that of no network.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from torch import Tensor

from steelyard.errors import ReplicaWarning, warn
from steelyard.gradients.wrappers import is_sharded

_PARAMETERS, _ELEMENTS = 8, 16


def fingerprint(parameters: Iterable[Tensor]) -> int:
    """16 bits of some numbers in some parameters, never 0; 0 where parameters are sharded. Waits for the device."""
    every = [parameter.detach() for parameter in parameters if parameter.requires_grad]
    if not every or any(is_sharded(parameter) for parameter in every):
        return 0
    some = every[:: max(1, len(every) // _PARAMETERS)]
    check = 0
    for parameter in some:
        check = zlib.crc32(repr(parameter.reshape(-1)[:_ELEMENTS].tolist()).encode(), check)
    return 1 + check % 0xFFFF


def warn_of_drift() -> None:
    """The ranks' parameters differ."""
    warn(
        "the ranks' parameters differ, so their gradients are not being averaged: wrap the model (in "
        "DistributedDataParallel, say) and call the wrapped model itself, model(x), never model.module(x). Where ranks "
        "are meant to train apart, make the balancer with sync='off'",
        ReplicaWarning,
    )
