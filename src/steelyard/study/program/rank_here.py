"""Which of the processes that train one network this is: the first one alone writes and prints."""

from __future__ import annotations

import os

import torch


def rank_here() -> int:
    """Of this process among those that train together; 0 alone."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank()
    for variable in ("RANK", "LOCAL_RANK"):
        if os.environ.get(variable, "").isdecimal():
            return int(os.environ[variable])
    return 0
