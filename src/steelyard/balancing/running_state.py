"""What changes from call to call besides the declared state, kept apart by what it is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from steelyard.balancing.closure import Closure
from steelyard.balancing.first_steps import FirstSteps
from steelyard.balancing.history import Evaluated, Record
from steelyard.balancing.idle_losses import Idle
from steelyard.balancing.nonfinite_losses import LeftOut


@dataclass
class Counters:
    """What a checkpoint holds beside the declared values.

    Attributes:
        steps: optimizer steps (calls, where no optimizer is attached) since the start.
        period_steps: those since the last end of an epoch.
        awaiting_after: whether the last step's losses after the step are still to be shown.
    """

    steps: int = 0
    period_steps: int = 0
    awaiting_after: bool = False


@dataclass
class Company:
    """How this rank stands with the others of a distributed run.

    Attributes:
        met: whether they have compared what they balance.
        agreed: with how many tasks they have met; 0 before.
        ends: ends of epochs since then.
        sent: whether the backward of the last call's result has begun.
    """

    met: bool = False
    agreed: int = 0
    ends: int = 0
    sent: bool = True

    def send(self) -> None:
        self.sent = True


@dataclass
class Caches:
    """What is found out again where it is lost.

    Attributes:
        device: where the state is.
        workspace: the last step's task gradients, for the next step to write over.
        unnoticed: whether a data-parallel wrapper may take a look for its first backward.
        coarse: whether losses are made in half precision; ``None``: not asked yet.
        repeats: whether recomputed losses are those at hand; ``None``: not asked yet.
        behind: which of the trunk's parameters averages by element are of, by place and shape; ``None``: none yet.
        lent: parameters a little further along the last step, to write over.
    """

    device: torch.device | None = None
    workspace: Tensor | None = None
    unnoticed: bool = True
    coarse: bool | None = None
    repeats: bool | None = None
    behind: tuple[tuple[int, ...], ...] | None = None
    lent: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class RunningState:
    """A balancer on its way; ``record`` is its last call in training, ``evaluated`` one in `eval()` since then."""

    counters: Counters = field(default_factory=Counters)
    company: Company = field(default_factory=Company)
    caches: Caches = field(default_factory=Caches)
    closure: Closure = field(default_factory=Closure)
    watch: FirstSteps = field(default_factory=FirstSteps)
    idle: Idle = field(default_factory=Idle)
    left_out: LeftOut = field(default_factory=LeftOut)
    record: Record | None = None
    evaluated: Evaluated | None = None

    def lasting(self, agreed: int) -> RunningState:
        """Without what belongs to the step under way, and as one who has yet to meet the other ranks.

        Args:
            agreed: with how many tasks these have met before.
        """
        company, caches = Company(agreed=agreed, ends=self.company.ends), Caches(device=self.caches.device)
        closure, watch = Closure(said=self.closure.said), self.watch.lasting()
        idle, left_out = replace(self.idle), replace(self.left_out)
        return RunningState(replace(self.counters), company, caches, closure, watch, idle, left_out)
