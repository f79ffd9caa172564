"""A balancer's state in the checkpoint of the optimizer that it is attached to, beside those of other balancers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from steelyard.errors import StateError, SteelyardWarning, warn

_KEY = "steelyard"


class Checkpointed(Protocol):
    """A balancer, as far as its checkpoint goes."""

    tasks: tuple[str, ...]

    @property
    def name(self) -> str:
        """Registry name."""

    @property
    def keeps_state(self) -> bool:
        """Whether it weighs by what it has seen before."""

    @property
    def steps(self) -> int:
        """Optimizer steps since the start."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Restore it."""


def _place(method: str, tasks: Sequence[str], number: int) -> str:
    """Of a balancer in the checkpoint of an optimizer that may have several alike."""
    return f"{method}: {', '.join(tasks)}" + (f" ({number})" if number > 1 else "")


Kind = tuple[str, tuple[str, ...]]
"""A method and its tasks, in any order: what balancers have in common whose states could be taken for each other's."""


def _kind_of(state: Mapping[str, Any]) -> Kind:
    """Of the balancer that a checkpoint's state is of."""
    extra = state.get("_extra_state", {"method": "", "tasks": []})
    return extra["method"], tuple(sorted(extra["tasks"]))


def _was_resumed(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer goes on from a checkpoint: it counts more steps than its parameters were ever changed."""
    for parameter, state in optimizer.state.items():
        # Momentum is not counted: more than making and loading a parameter takes, and less than a warm-up.
        steps = state.get("step", 0 if state.get("momentum_buffer") is None else 16)
        if isinstance(parameter, Tensor) and float(steps) > parameter._version:
            return True
    return False


class CheckpointPlace:
    """Saves and loads a balancer's state with its optimizer's, each under a name of its own.

    Args:
        balancer: whose state it is.
        optimizer: whose checkpoints hold it.
        stepping: the optimizer whose steps count, of a sharpness-aware one the inner.

    Attributes:
        name: under which a checkpoint holds it.
        resumed: whether the optimizer goes on from a checkpoint that nobody has loaded the balancer's state from.
    """

    def __init__(
        self, balancer: Checkpointed, optimizer: torch.optim.Optimizer, stepping: torch.optim.Optimizer
    ) -> None:
        self._balancer = balancer
        self.resumed = balancer.keeps_state and _was_resumed(stepping)
        # Several balancers may share an optimizer.
        self._places: dict[str, Kind] = optimizer.__dict__.setdefault("_steelyard_places", {})
        self._take()
        self._handles = [
            optimizer.register_state_dict_post_hook(self._save),
            optimizer.register_load_state_dict_pre_hook(self._load),
        ]

    def _take(self) -> None:
        number = 1
        while (name := _place(self._balancer.name, self._balancer.tasks, number)) in self._places:
            number += 1
        self.name, self._number = name, number
        self._places[name] = self._kind

    def rename(self) -> None:
        """The balancer's tasks have changed, and with them its place."""
        self._places.pop(self.name, None)
        self._take()

    @property
    def _kind(self) -> Kind:
        """What could be taken for it."""
        return self._balancer.name, tuple(sorted(self._balancer.tasks))

    def remove(self) -> None:
        """Take the hooks off the optimizer."""
        for handle in self._handles:
            handle.remove()
        self._places.pop(self.name, None)

    def warn_of_lost_state(self) -> None:
        """Say once that the state was not in what the optimizer goes on from."""
        self.resumed = False
        if self._balancer.steps == 0:
            warn(
                f"{self._balancer.name} was attached to an optimizer that goes on from a checkpoint, and starts "
                "afresh: torch drops the balancer's state in that checkpoint where nobody waits for it. Call "
                "attach(optimizer) first and optimizer.load_state_dict(...) after it, or load balancer.state_dict() "
                "too. Where the balancer is new, this is as it should be",
                SteelyardWarning,
            )

    def _save(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        state.setdefault(_KEY, {})[self.name] = self._balancer.state_dict()

    def _held_in(self, held: Mapping[str, Any]) -> str | None:
        """Where the balancer's state is in a checkpoint: under its tasks, or under the same in another order.

        Raises:
            StateError: the checkpoint has more balancers of this method and these tasks than are attached.
        """
        alike = [place for place, state in held.items() if _kind_of(state) == self._kind]
        attached = list(self._places.values()).count(self._kind)
        if len(alike) > attached:
            last = alike[-1]
            raise StateError(
                f"the optimizer's checkpoint holds the states of {len(alike)} balancers of {self._balancer.name} with "
                f"these tasks ({'; '.join(f'{place!r}' for place in alike)}), and {attached} attached here: attach "
                "as many, in the same order; or, where one of them took the place of another, keep the state that is "
                f"meant, checkpoint[{_KEY!r}] = {{{self.name!r}: checkpoint[{_KEY!r}][{last!r}]}}"
            )
        if self.name in held:
            return self.name
        for place in alike:
            extra = held[place]["_extra_state"]
            if place == _place(extra["method"], extra["tasks"], self._number):
                return place
        return None

    def _load(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        held = state.get(_KEY, {})
        self.resumed = False
        place = self._held_in(held)
        if place is not None:
            self._balancer.load_state_dict(held[place])
        elif held:
            raise StateError(
                f"the optimizer's checkpoint holds the balancer state of {'; '.join(held)}, and this balancer is "
                f"{self.name}: make the balancer of the checkpoint, or attach this one after loading"
            )
        elif self._balancer.steps == 0:
            warn(
                "the optimizer's checkpoint holds no balancer state (saved before the balancer was attached, or by a "
                "tool that drops foreign entries): load balancer.state_dict() too, or the balancer starts afresh",
                SteelyardWarning,
            )
