"""Heads inside of what is given as ``shared=``: the whole model, most often.

Their gradients belong to one task each: they count in norms and angles, and no other task has a part in them. The graph
shows it: such a parameter is reached by one loss alone, while others are reached by several.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from steelyard.base.method import Method, tensors_of
from steelyard.errors import warn
from steelyard.gradients.graph import survey

LOOKS = 10
"""First steps that are looked at: a router may send only one task of a batch through a shared expert."""
_GIVEN_UP = 100
"""Steps without having seen every task after which nothing is said."""
_NAMED = 3


@dataclass(frozen=True)
class Sharing:
    """Which losses have reached which parameters so far.

    Attributes:
        looks: steps that were looked at.
        reached: the tasks, by the parameter's id.
        seen: the tasks that were there.
    """

    looks: int = 0
    reached: dict[int, frozenset[str]] = field(default_factory=dict)
    seen: frozenset[str] = frozenset()

    def and_of(self, tasks: Sequence[str], losses: Sequence[Tensor], trunk: Sequence[Tensor]) -> Sharing:
        """One more step: a walk of its graph, about a microsecond a node."""
        with_graph = [(task, loss) for task, loss in zip(tasks, losses, strict=True) if loss.grad_fn is not None]
        found = survey([loss for _, loss in with_graph], trunk)
        reached = dict(self.reached)
        for parameter, leaf in found.leaves.items():
            bits = found.reached_by[leaf]
            here = frozenset(task for position, (task, _) in enumerate(with_graph) if bits >> position & 1)
            reached[id(parameter)] = reached.get(id(parameter), frozenset()) | here
        return replace(self, looks=self.looks + 1, reached=reached, seen=self.seen | set(tasks))


def watch_sharing(
    method: Method,
    sharing: Sharing,
    tasks: Sequence[str],
    losses: Sequence[Tensor],
    trunk: Sequence[Tensor],
    given: Any,
) -> Sharing | None:
    """Look once more, and warn when it is known; ``None`` when there is nothing more to look for."""
    sharing = sharing.and_of(tasks, losses, trunk)
    if sharing.looks < LOOKS or (len(sharing.seen) < len(method.tasks) and sharing.looks < _GIVEN_UP):
        return sharing
    if len(sharing.seen) == len(method.tasks):
        warn_of_heads_inside(method, sharing, given)
    return None


def warn_of_heads_inside(method: Method, sharing: Sharing, given: Any) -> None:
    """Say which parameters belong to one task, if any do while others are shared."""
    own = {each: next(iter(by)) for each, by in sharing.reached.items() if len(by) == 1}
    if not own or len(own) == len(sharing.reached):
        return
    listing = [f"{name} by {own[each]!r}" for each, name in _names(given) if each in own][:_NAMED]
    more = ", …" if len(own) > len(listing) else ""
    which = f" ({', '.join(listing)}{more})" if listing else ""
    warn(
        f"{method.name}: {len(own)} of the {len(sharing.reached)} parameters given as shared= are reached by one loss "
        f"alone{which}: task heads are inside, and what is no other task's counts in norms and angles, and is treated "
        f"as the trunk's. Pass what the tasks share, {_fix(own, given)}. Adapters of single tasks in the middle of a "
        "trunk may stay"
    )


def _names(given: Any) -> Iterator[tuple[int, str]]:
    """Parameters by id, named as in the module that was given, or in one of several."""
    parts = [("", given)] if isinstance(given, nn.Module) else []
    if isinstance(given, list | tuple):
        parts = [(f"[{place}].", part) for place, part in enumerate(given) if isinstance(part, nn.Module)]
    for prefix, part in parts:
        yield from ((id(parameter), prefix + name) for name, parameter in part.named_parameters())


def _fix(own: dict[int, str], given: Any) -> str:
    """The submodules that hold no head, by name."""
    if not isinstance(given, nn.Module):
        return "and leave these out"
    whole = [
        f"model.{name}"
        for name, child in given.named_children()
        if (inside := {id(each) for each in tensors_of(child)}) and not inside & own.keys()
    ]
    if not whole:
        return "a submodule that holds no head"
    return f"shared={whole[0]}" if len(whole) == 1 else f"shared=[{', '.join(whole)}]"
