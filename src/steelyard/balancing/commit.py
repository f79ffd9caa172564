"""What a step leaves behind: state is committed, counters move, periods end."""

from __future__ import annotations

from typing import Any

import torch

from steelyard.balancing.micro_batches import Window
from steelyard.balancing.optimizers.steps import steps_begun
from steelyard.balancing.state_dict import Persistent
from steelyard.balancing.weighing import Proposal, propose
from steelyard.errors import PeriodWarning, warn

_PATIENCE = 10_000
"""Steps without the end of an epoch after which an epoch-based method says so."""


def proposed(balancer: Persistent, window: Window) -> Proposal:
    """What follows from all that the micro-batches of a step saw."""
    if window.only is not None:
        return window.only
    with torch.no_grad():
        return propose(balancer, *window.seen(), balancer.refreshing())


def commit(balancer: Persistent, proposal: Proposal) -> None:
    """One step has been taken with a proposal's weights."""
    for module, state, index in proposal.commits:
        module.commit(state, index)
    if proposal.generator_state is not None and balancer.generator is not None:
        balancer.generator.set_state(proposal.generator_state)
    counters = balancer._now.counters
    counters.steps += 1
    counters.awaiting_after = balancer.needs_after
    if balancer._parameters:
        balancer._now.watch.learning(balancer, counters.steps, steps_begun())
    if not periodic_parts(balancer):
        return
    counters.period_steps += 1
    if balancer.period is not None and counters.period_steps >= balancer.period:
        end_period(balancer)
    elif balancer.period is None and counters.period_steps == _PATIENCE:
        warn(
            f"{balancer.name} waits for the end of an epoch and has seen none in {_PATIENCE:,} steps: call "
            "balancer.end_epoch() after each epoch, or give a period in steps where the method has that option",
            PeriodWarning,
        )


def end_period(balancer: Persistent) -> None:
    """An epoch, or a period in steps, has ended for those that wait for it."""
    parts = periodic_parts(balancer)
    with torch.no_grad():
        for part in parts:
            state = part.working_state()
            part.period_ended(state)
            part.commit(state)
        balancer._now.company.ends += bool(parts)
    balancer._now.counters.period_steps = 0


def periodic_parts(balancer: Persistent) -> list[Any]:
    """The method and the stages in front of it, those that wait for the end of a period."""
    return [part for part in (*balancer.loss_stages(), balancer) if part.periodic]
