"""A process group as an option of a method."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist

from steelyard.errors import OptionError, StateError


class GroupHandle:
    """A process group as an option: a copy of the balancer shares it, a file cannot hold it."""

    __slots__ = ("group",)

    def __init__(self, group: Any) -> None:
        if not dist.is_available() or not isinstance(group, dist.ProcessGroup):
            raise OptionError(
                f"process_group must be a torch.distributed process group that this process belongs to, got {group!r}"
            )
        self.group = group

    def __deepcopy__(self, memo: dict[int, Any]) -> GroupHandle:
        return self

    def __reduce__(self) -> Any:
        raise StateError(
            "a balancer with process_group= cannot be pickled, for the group lives in this process: save "
            "balancer.state_dict() instead"
        )
