"""What outlives a step: checkpoints, copies and pickles of a balancer."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from steelyard.balancing.closure import Hold
from steelyard.balancing.heads_inside import Sharing
from steelyard.balancing.history import Record
from steelyard.balancing.weighing import Proposal
from steelyard.balancing.window import Attachment
from steelyard.base.method import Method
from steelyard.errors import StateError


@dataclass
class Progress:
    """What changes from call to call besides the declared state.

    Attributes:
        steps: optimizer steps (calls, where no optimizer is attached) since the start.
        period_steps: those since the last end of an epoch.
        awaiting_after: whether the last step's losses after the step are still to be shown.
        device: where the state is.
        record: the last call.
        holding: inside `Balancer.frozen`.
        held: inside `Balancer.frozen`, or a closure of the attached optimizer, the function that goes on after the
            first evaluation.
        closure: of the last evaluation within a step of an optimizer that is not attached, the step's number and the
            weights.
        closure_said: whether it has been said that these move.
        eval_said: whether it has been said that a call in `eval()` mode balances nothing.
        pending: inside `Balancer.frozen`, what its end commits.
        angle_looks: steps in which the angles were checked.
        reach_looks: steps in which it was checked that every task has a gradient.
        unreached: the tasks that had none in all of them.
        sharing: in the first steps, which losses reach which parameters of the trunk; ``None`` once that is known.
        alone: the tasks of the first batches and their weights, as long as each held one alone; ``None`` once one
            held several.
        idle: the tasks whose loss was zero in the last call and moved nothing.
        idle_said: those that were warned of.
        workspace: the last step's task gradients, for the next step to write over.
        unnoticed: whether a data-parallel wrapper may take a look for its first backward.
        agreed: with how many tasks the ranks have met; 0 before.
        ends: ends of epochs since then.
        met: whether the ranks of a distributed run have compared what they balance.
    """

    steps: int = 0
    period_steps: int = 0
    awaiting_after: bool = False
    device: torch.device | None = None
    record: Record | None = None
    holding: bool = False
    held: Hold | None = None
    closure: tuple[int, Tensor] | None = None
    closure_said: bool = False
    eval_said: bool = False
    pending: Proposal | None = None
    angle_looks: int = 0
    reach_looks: int = 0
    unreached: frozenset[str] = frozenset()
    sharing: Sharing | None = field(default_factory=Sharing)
    alone: tuple[tuple[str, float], ...] | None = ()
    idle: frozenset[str] = frozenset()
    idle_said: frozenset[str] = frozenset()
    workspace: Tensor | None = None
    met: bool = False
    agreed: int = 0
    ends: int = 0
    unnoticed: bool = True

    def lasting(self) -> Progress:
        """Without what belongs to the step under way."""
        return replace(
            self,
            record=None,
            pending=None,
            held=None,
            closure=None,
            holding=False,
            workspace=None,
            met=False,
            unnoticed=True,
            sharing=None if self.sharing is None else Sharing(),  # a copy has parameters of its own
        )


class Persistent(Method):
    """A method with progress, which checkpoints, copies and pickles carry along with its declared state."""

    _attachment: Attachment | None = None
    _now: Progress

    def reset(self) -> None:
        """Return to the state of a fresh instance (the generator keeps its own)."""
        super().reset()
        before: Progress | None = self.__dict__.get("_now")
        # One plain object, since attributes of a module are slow to set. The other ranks need not have been reset.
        self._now = Progress(agreed=0 if before is None else before.agreed)
        if self._attachment is not None:
            self._attachment.discard()  # what an old state proposed must not be committed to the new one

    def discard(self) -> None:
        """Forget what was observed since the last optimizer step (a step that was skipped by hand)."""
        self._now.pending = self._now.held = None
        if self._attachment is not None:
            self._attachment.discard()

    # --- checkpoints --------------------------------------------------------------------------------------------------
    def get_extra_state(self) -> dict[str, Any]:
        """What a checkpoint holds besides the declared values: whose state it is, the counters, the generator."""
        return {
            "method": self.name,
            "tasks": list(self.tasks),
            "steps": self._now.steps,
            "period_steps": self._now.period_steps,
            "awaiting_after": self._now.awaiting_after,
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
        self._now.steps, self._now.period_steps = state["steps"], state["period_steps"]
        self._now.awaiting_after = state["awaiting_after"]
        if state["generator"] is not None and self.generator is not None:
            self.generator.set_state(state["generator"].cpu())

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        # Whose state it is comes first: a wrong method or task list is named before any tensor is touched.
        if (extra := state_dict.get(f"{prefix}_extra_state")) is not None:
            self.set_extra_state(self._in_this_order(state_dict, prefix, extra))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self.discard()
        self._now.record = None

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
        # A copy or a pickle must not drag optimizer and trunk along: a copy is not attached.
        state = dict(self.__dict__)
        state["_attachment"] = state["_trunk"] = None
        state["_now"] = replace(self._now.lasting(), agreed=0)
        state["generator"] = None if self.generator is None else self.generator.get_state()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        saved = state.pop("generator")
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.generator = None if saved is None else torch.Generator()
        if self.generator is not None:
            self.generator.set_state(saved)
