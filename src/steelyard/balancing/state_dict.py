"""What outlives a step: checkpoints, copies and pickles of a balancer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Protocol

import torch
from torch import Tensor

from steelyard.balancing.attachment import Attachment
from steelyard.balancing.running_state import Company, Counters, RunningState
from steelyard.base.lookahead import Losses
from steelyard.base.method import Method
from steelyard.errors import StateError


class Listener(Protocol):
    """Who is told of every call in training."""

    def saw(self, losses: Losses, counts: Mapping[str, float] | None, result: Tensor) -> None:
        """What was given, and what was made of it."""

    def discard(self) -> None:
        """The step under way is left out."""

    def remove(self) -> None:
        """Another one takes the place."""


class Persistent(Method):
    """A method with progress, which checkpoints, copies and pickles carry along with its declared state."""

    _attachment: Attachment | None = None
    _ledger: Listener | None = None
    _now: RunningState
    known: frozenset[str]
    """Its tasks, to look names up in."""

    def reset(self) -> None:
        """Return to the state of a fresh instance (the generator keeps its own)."""
        super().reset()
        before: RunningState | None = self.__dict__.get("_now")
        # One plain object, since attributes of a module are slow to set. The other ranks need not have been reset.
        self._now = RunningState(company=Company(agreed=0 if before is None else before.company.agreed))
        if self._attachment is not None:
            self._attachment.discard()  # what an old state proposed must not be committed to the new one

    def discard(self) -> None:
        """Forget what was observed since the last optimizer step (a step that was skipped by hand)."""
        self._now.closure.pending = self._now.closure.held = self._now.closure.pending_step = None
        if self._attachment is not None:
            self._attachment.discard()
        if self._ledger is not None:
            self._ledger.discard()

    def refreshing(self) -> bool:
        """Whether the method weighs anew in this step; ``every`` lets it hold its weights in between."""
        return self._now.counters.steps % self.every == 0

    # --- checkpoints --------------------------------------------------------------------------------------------------
    def get_extra_state(self) -> dict[str, Any]:
        """What a checkpoint holds besides the declared values: whose state it is, the counters, the generator."""
        return {
            "method": self.name,
            "tasks": list(self.tasks),
            **asdict(self._now.counters),
            "generator": self.generator.get_state() if self.draws and self.generator is not None else None,
        }

    def set_extra_state(self, state: Any) -> None:
        """Restore the counters and the generator; refuses the state of another method or of other tasks."""
        if state["method"] != self.name:
            raise StateError(
                f"the checkpoint holds the state of {state['method']!r}, but this balancer is {self.name!r}"
            )
        if tuple(state["tasks"]) != self.tasks:
            raise StateError(
                f"the checkpoint balances {', '.join(state['tasks'])}, but this balancer has {', '.join(self.tasks)}"
                + self._about_order(state["tasks"])
            )
        self._now.counters = Counters(state["steps"], state["period_steps"], state["awaiting_after"])
        if state["generator"] is not None and self.generator is not None:
            self.generator.set_state(state["generator"].cpu())

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        # Whose state it is comes first: a wrong method or task list is named before any tensor is touched.
        if (extra := state_dict.get(f"{prefix}_extra_state")) is not None:
            self.set_extra_state(self._in_this_order(state_dict, prefix, extra))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self.discard()
        self._now.record = self._now.evaluated = None

    def _about_order(self, tasks: list[str]) -> str:
        if not self._parameters or sorted(tasks) != sorted(self.tasks):
            return ": make it with the tasks of the checkpoint, and call set_tasks([...]) after loading"
        return (
            f": their order must be the checkpoint's where {', '.join(self._parameters)} is a Parameter that an "
            "outside optimizer holds (learn='external'), which keeps numbers by place"
        )

    def _in_this_order(self, state_dict: dict[str, Any], prefix: str, extra: dict[str, Any]) -> dict[str, Any]:
        """All state is by task: that of the same tasks in another order is taken in the order of this balancer.

        Not where an outside optimizer holds a Parameter over the tasks: what it keeps of each would stay in the old
        order. What a random method draws from here on goes to the tasks in the new order.
        """
        tasks = tuple(extra["tasks"])
        fits = extra["method"] == self.name and sorted(tasks) == sorted(self.tasks)
        if tasks == self.tasks or not fits or self._parameters:
            return extra
        order = [tasks.index(task) for task in self.tasks]
        self.reordered(state_dict, prefix, order)
        for number, stage in enumerate(self.loss_stages()):
            stage.reordered(state_dict, f"{prefix}stages.{number}.", order)
        state_dict[f"{prefix}_extra_state"] = extra = {**extra, "tasks": list(self.tasks)}
        return extra

    # --- copies and pickles -------------------------------------------------------------------------------------------
    def __getstate__(self) -> dict[str, Any]:
        # A copy or a pickle must not drag optimizer and trunk along: a copy is not attached, and nobody listens.
        state = dict(self.__dict__)
        state["_attachment"] = state["_ledger"] = state["_trunk"] = None
        if self._look is not None and not isinstance(self._look[0], str):
            state["_look"] = ("layers that a copy does not hold",)  # refused by that name in a call that says no other
        state["_now"] = self._now.lasting(agreed=0)
        state["generator"] = None if self.generator is None else self.generator.get_state()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        saved = state.pop("generator")
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.generator = None if saved is None else torch.Generator()
        if self.generator is not None:
            self.generator.set_state(saved)
