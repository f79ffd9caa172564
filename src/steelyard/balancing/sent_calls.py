"""Which calls belong to a step: those whose result was sent backward, and whose gradients are still there.

A loop gives a batch up in three ways, and none of them tells the balancer: it goes on before ``backward()``, it goes on
after it and clears the gradients with the next batch's, or a gradient scaler that nobody named skips the step. What
such a batch saw is no part of the step that is taken.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from steelyard.balancing.along_call import AlongCall
from steelyard.balancing.weighing import Proposal
from steelyard.base.lookahead import Recompute
from steelyard.base.observation import Seen
from steelyard.gradients.balanced_backward import on_backward


@dataclass(frozen=True, eq=False)
class WeighedCall:
    """One micro-batch that has been weighed.

    Attributes:
        seen, proposal: what was seen, and what it led to.
        again: recomputes its losses.
        along: what a look along the step needs of it.
        moves: how often the state had moved before it.
    """

    seen: Seen
    proposal: Proposal
    again: Recompute | None
    along: AlongCall | None
    moves: int


class SentCalls:
    """Hands a call on when the backward pass of its result begins, and sees whether gradients were given up.

    Args:
        parameters: those whose gradients tell.
        count: takes a call into the step under way.
        give_up: forgets the step under way.
    """

    def __init__(
        self,
        parameters: Callable[[], Iterable[Tensor]],
        count: Callable[[WeighedCall], None],
        give_up: Callable[[], None],
    ) -> None:
        self._parameters, self._count, self._give_up = parameters, count, give_up
        # Held by the graphs of their results alone: a graph that is gone is never sent backward.
        self._waiting: weakref.WeakSet[WeighedCall] = weakref.WeakSet()
        self.called = 0
        self._arrived = False
        self._running: int | None = None  # the backward pass that has begun and not ended

    def add(self, result: Tensor, call: WeighedCall) -> None:
        """A call has made `result`."""
        self.called += 1
        self._waiting.add(call)
        on_backward(result, functools.partial(self._sent, call))

    @property
    def waiting(self) -> bool:
        """Whether a call may yet be sent backward."""
        return len(self._waiting) > 0

    def begin(self) -> None:
        """A step is over: what was called before it and is sent later belongs to the next one."""
        self.called, self._arrived, self._running = 0, False, None

    def forget(self) -> None:
        """A step was given up: what was called before, and may yet be sent, belongs to none."""
        self._waiting.clear()
        self.begin()

    def look(self) -> None:
        """See whether gradients have arrived, and whether those that had are gone again without a step.

        Of a backward pass that failed half-way, some may have: none is there once they have been cleared.
        """
        there = self._any_gradient()
        failed = self._running not in (None, torch._C._current_graph_task_id())
        if (self._arrived or failed) and not there:
            self._give_up()  # but not what was called, and may yet be sent
        self._arrived = there
        if failed:
            self._running = None

    def _sent(self, call: WeighedCall) -> None:
        if call not in self._waiting:
            return  # sent once more, or discarded
        self._waiting.discard(call)
        self.look()
        self._count(call)
        if self._running is None:
            self._running = torch._C._current_graph_task_id()
            # At the end, since a loop may clear them before the balancer is called again.
            torch.autograd.Variable._execution_engine.queue_callback(self._ended)

    def _ended(self) -> None:
        self._running = None
        self._arrived = self._arrived or self._any_gradient()

    def _any_gradient(self) -> bool:
        return any(parameter.grad is not None for parameter in self._parameters())
