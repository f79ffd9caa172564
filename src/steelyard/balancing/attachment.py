"""Propose and commit: forward calls propose, the optimizer's step commits.

Between two steps of the optimizer lies a *window* of one or more micro-batches. Each is weighed by the committed
state and its own observation; when the optimizer has stepped, what the window saw, averaged by label counts, is weighed
and the state moves once. A step that did not happen (a gradient scaler found an inf) leaves no trace, nor does a
micro-batch that was given up (`sent_calls.py`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from steelyard.balancing.along_call import AlongCall, Step, refuse_several
from steelyard.balancing.clipping import ClipWatch
from steelyard.balancing.micro_batches import Window
from steelyard.balancing.optimizers.checkpoint_place import Checkpointed, CheckpointPlace
from steelyard.balancing.optimizers.companions import join, leave, withhold
from steelyard.balancing.optimizers.hooks import AroundCall, uncompiled, with_closure
from steelyard.balancing.optimizers.steps import OTHERS, PATIENCE, evaluates_often, is_bypassed, steps_begun
from steelyard.balancing.optimizers.wrapped import base_of
from steelyard.balancing.sent_calls import SentCalls, WeighedCall
from steelyard.balancing.weighing import Proposal
from steelyard.base.float64 import double
from steelyard.base.lookahead import Losses, Recompute
from steelyard.base.observation import Seen
from steelyard.base.options import Scale
from steelyard.errors import SteelyardWarning, warn
from steelyard.gradients.gradients_near_loss import dense_values


class Attached(Checkpointed, Protocol):
    """What an attachment asks of its balancer."""

    scale: Scale

    @property
    def constant_length(self) -> float | None:
        """Of the gradient that it sends to the shared place, where its formula gives one."""

    @property
    def needs_after(self) -> bool:
        """Whether it must see the losses again after the step."""

    def commit_window(self, window: Window, step: Step | None) -> None:
        """Commit what the micro-batches of one step saw together, and what the step teaches."""

    def look_along_step(self, window: Window, calls: Sequence[AlongCall]) -> Step | None:
        """Look along the gradients that the parameters hold now."""

    def hold_window(self, window: Window) -> None:
        """Hold the weights of what they saw for losses at other parameters."""

    def spoils(self, parameters: Iterator[Tensor]) -> bool:
        """Whether gradients are to be left out because they are not finite."""

    def release(self) -> None:
        """Let the weights move again after a closure."""

    def discard(self) -> None:
        """Forget the step under way."""

    def observe(self, *, after: Losses | None = None) -> None:
        """Take the losses after the step."""


class Attachment:
    """Ties a balancer to the optimizer whose steps commit its state."""

    def __init__(self, balancer: Attached, optimizer: torch.optim.Optimizer, scaler: Any = None) -> None:
        self.balancer, self.optimizer, self.scaler = balancer, optimizer, scaler
        self.window = Window(balancer.tasks)
        self._again: list[tuple[tuple[str, ...], Tensor, Recompute | None]] = []
        self._calls: list[AlongCall] = []
        self._step: Step | None = None
        self._sent = SentCalls(self.parameters, self._count, self._clear)
        self._moves, self._unsent_told = 0, False
        self.skipping = self.empty = False
        self._before, self._told = (0, 0), False
        self.inside_step = self.evaluates_often = False
        self._clip = ClipWatch(balancer.name, len(balancer.tasks), balancer.constant_length)
        self._clip.done = balancer.scale != "paper"
        self._scale_at_start: float | None = None
        # A sharpness-aware optimizer's own step is a frame around two steps, and not even called where a loop takes
        # these by hand: it is its base that steps.
        base = base_of(optimizer)
        self.stepping = optimizer if base is None else base
        join(self.stepping, self)
        self._place = CheckpointPlace(balancer, optimizer, self.stepping)
        self._handles: list[Any] = [
            self.stepping.register_step_pre_hook(uncompiled(self._before_step)),
            self.stepping.register_step_post_hook(uncompiled(self._after_step)),
        ]
        if base is not None:
            self._handles.append(optimizer.register_step_pre_hook(self._before_both_steps))
            self._handles.append(AroundCall(optimizer, "first_step", self._before_first_step, self._after_first_step))

    def rename(self) -> None:
        """The balancer's tasks have changed, and with them its place in the optimizer's checkpoint."""
        self._place.rename()
        self.discard()

    def remove(self) -> None:
        """Take the hooks off the optimizer."""
        leave(self.stepping, self)
        for handle in self._handles:
            handle.remove()
        self._place.remove()

    def parameters(self) -> Iterator[Tensor]:
        """What the optimizer moves."""
        return (parameter for group in self.optimizer.param_groups for parameter in group["params"])

    # --- the window -------------------------------------------------------------------------------------------------
    def before_forward(self, *, again: bool) -> None:
        """Discard a window whose step a gradient scaler skipped: plain optimizers are then not even called.

        With ``again`` the losses are those of the step under way at other parameters, and gradients may be cleared.
        """
        if self.window.calls and not again:
            self._sent.look()
        if self.scaler is None or not self.scaler.is_enabled():
            return
        if self._open() and self._scale_at_start is not None and self.scaler.get_scale() < self._scale_at_start:
            self.discard()
        if not self._open():
            self._scale_at_start = self.scaler.get_scale()

    @property
    def under_way(self) -> bool:
        """Whether a step has begun: a call counts, or may yet be sent backward."""
        return self.window.calls > 0 or self._sent.waiting

    def _open(self) -> bool:
        return self.window.calls > 0 or self.skipping or self.empty

    def add(
        self, result: Tensor, seen: Seen, proposal: Proposal, again: Recompute | None, along: AlongCall | None
    ) -> None:
        """One micro-batch has been weighed; it counts once its result is sent backward."""
        if self._place.resumed:
            self._place.warn_of_lost_state()
        self._sent.add(result, WeighedCall(seen, proposal, again, along, self._moves))
        if self._sent.called == 1:
            self._before = steps_begun(), self._changes()
        if self._sent.called == PATIENCE:
            self._warn_of_no_step("")
        elif self._sent.called == OTHERS and not self._told and self._is_bypassed():
            self._told = True
            self._warn_of_no_step(", while another optimizer has")

    def _count(self, call: WeighedCall) -> None:
        self.window.add(call.seen, call.proposal)
        if call.moves != self._moves:
            self.window.expire()
        if not self._clip.done:
            self._clip.weighed(call.proposal.weights)
        if self.balancer.needs_after:
            self._again.append((call.seen.tasks, call.seen.counts, call.again))
        if call.along is not None:
            if self._calls and call.along.products is not None:
                refuse_several(self.balancer.name)
            self._calls.append(call.along)

    def _changes(self) -> int:
        """How often the first of what the optimizer moves has been written to."""
        return next(iter(self.parameters()))._version

    def _is_bypassed(self) -> bool:
        return is_bypassed(self._before, list(self.parameters()))

    def _warn_of_no_step(self, meanwhile: str) -> None:
        warn(
            f"{self.balancer.name} is attached to an optimizer ({type(self.optimizer).__name__}) that has not "
            f"stepped in {self._sent.called:,} calls{meanwhile}, so its state stands still: attach the optimizer that "
            "trains the model now, or call balancer.discard() for steps that are left out",
            SteelyardWarning,
        )

    def _warn_of_nothing_sent(self) -> None:
        self._unsent_told = True
        warn(
            f"{type(self.optimizer).__name__} has stepped, and no result of {self.balancer.name}, which is attached to "
            "it, was sent backward: a call counts with its backward(), so the state stands still. Call backward() on "
            "what the balancer returns; or, where you read last_weights alone, do not attach it: each call then counts",
            SteelyardWarning,
        )

    def nothing_to_do(self, *, skip_step: bool) -> None:
        """A micro-batch had nothing to balance; with ``skip_step`` its whole window must not step."""
        self.skipping = self.skipping or skip_step
        self.empty = True

    def expire(self) -> None:
        """The state has moved: what calls lead to, of those that wait for the step, is asked of the new one."""
        self._moves += 1
        self.window.expire()

    def discard(self) -> None:
        """Forget the open window, and the calls whose results may yet be sent backward."""
        self._clear()
        self._sent.forget()

    def _clear(self) -> None:
        """Begin a new window."""
        self.window, self._again, self._calls, self._step = Window(self.balancer.tasks), [], [], None
        self.skipping = self.empty = False

    # --- the optimizer's hooks --------------------------------------------------------------------------------------
    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> Any:
        if self.scaler is not None and not any(group.get("lr", 1.0) for group in optimizer.param_groups):
            # torch.distributed.checkpoint prepares an optimizer by a step at rate 0: none of a window that was skipped.
            self.before_forward(again=True)
        self._withhold_gradients()
        if not self._clip.done:
            self._clip.stepping(self.parameters())
        self.evaluates_often = evaluates_often(optimizer)
        guarded = with_closure(args, kwargs, self._guarded)
        if guarded is None:  # else the gradients come with the closure
            self._look_along()
        return guarded

    def _look_along(self) -> None:
        """What the step's own direction does to every task, before it is taken."""
        if self._calls and self._step is None and not self.skipping:
            self._step = self.balancer.look_along_step(self.window, self._calls)
            self._calls = []

    def _before_both_steps(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> Any:
        return with_closure(args, kwargs, self._discarding)

    def _before_first_step(self) -> None:
        """Let a window that is skipped climb nowhere: without any gradient the optimizer would fail."""
        if self._withheld():
            for parameter in self.parameters():
                parameter.grad = torch.zeros_like(parameter)
        self._look_along()

    def _after_first_step(self) -> None:
        """The parameters have climbed: the losses there have the weights of those before, and are not observed."""
        if self.window.calls:
            self.balancer.hold_window(self.window)

    def _withhold_gradients(self) -> None:
        """Leave a skipped window's step without gradients.

        The one place where a balancer touches ``.grad``: zero gradients would still move momentum and weight decay.
        """
        if self._withheld():
            for parameter in self.parameters():
                parameter.grad = None

    def _withheld(self) -> bool:
        """Whether the step under way is left out, for whoever else is attached to its optimizer too."""
        self.skipping = self._is_skipped() or self._spoiled()
        if self.skipping:
            withhold(self.stepping)
        return self.skipping

    def _spoiled(self) -> bool:
        """Whether losses that were finite had gradients that are not; a gradient scaler looks for itself."""
        scaled = self.scaler is not None and self.scaler.is_enabled()
        return bool(self.window.calls) and not scaled and self.balancer.spoils(self.parameters())

    def _is_skipped(self) -> bool:
        return self.skipping or (self.empty and not self.window.calls and not self._others_sent())

    def _others_sent(self) -> bool:
        """Whether there are gradients where this balancer had nothing to send: another's, or of a loss beside it."""
        gradients = [parameter.grad for parameter in self.parameters() if parameter.grad is not None]
        return any(bool(dense_values(each).any()) for each in gradients)

    def _guarded(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """A closure that raises ends the step: its weights must not hold on. One that skips leaves no gradients."""

        closure = self._discarding(closure)

        @functools.wraps(closure)
        def guarded() -> Any:
            self.inside_step = True  # here alone: a step without a closure that fails must not seem to go on
            try:
                value = closure()
            finally:
                self.inside_step = False
            self._withhold_gradients()
            self._look_along()
            return value

        return guarded

    def _discarding(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        @functools.wraps(closure)
        def discarding() -> Any:
            try:
                return closure()
            except BaseException:
                self.balancer.discard()
                raise

        return discarding

    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self.balancer.release()
        called = self._sent.called
        self._sent.begin()
        # Fused optimizers are called on overflow too, and skip inside.
        found_inf = getattr(optimizer, "found_inf", None)
        if self.skipping or (isinstance(found_inf, Tensor) and bool(found_inf.item())):
            self._clear()
            return
        if not self.window.calls:
            if called and not self._unsent_told:
                self._warn_of_nothing_sent()
            return
        window, again, step = self.window, self._again, self._step
        self._clear()
        self._moves += 1
        self.balancer.commit_window(window, step)
        if again and all(recompute is not None for *_, recompute in again):
            self._look_again(again)

    def _look_again(self, window: list[tuple[tuple[str, ...], Tensor, Recompute | None]]) -> None:
        """Recompute the window's losses at the new parameters, averaged like the observations before the step."""
        total: dict[str, Tensor] = {}
        labels: dict[str, Tensor] = {}
        with torch.no_grad():
            for tasks, counts, again in window:
                assert again is not None
                losses: Mapping[str, Tensor | None] = again()
                for name, count in zip(tasks, counts, strict=True):
                    loss = losses.get(name)
                    if loss is not None:
                        total[name] = total.get(name, 0) + count * double(loss.detach())
                        labels[name] = labels.get(name, 0) + count
            if total:
                self.balancer.observe(after={name: total[name] / labels[name] for name in total})
