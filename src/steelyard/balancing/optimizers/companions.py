"""Several balancers on one optimizer: a step that one of them withholds is none for the others either."""

from __future__ import annotations

import weakref
from typing import Protocol

import torch


class Skips(Protocol):
    """Whoever may be told that the step under way does not count."""

    skipping: bool


_ATTACHED: weakref.WeakKeyDictionary[torch.optim.Optimizer, weakref.WeakSet[Skips]] = weakref.WeakKeyDictionary()


def join(optimizer: torch.optim.Optimizer, one: Skips) -> None:
    """From now on it is told of the steps of this optimizer that others withhold."""
    _ATTACHED.setdefault(optimizer, weakref.WeakSet()).add(one)


def leave(optimizer: torch.optim.Optimizer, one: Skips) -> None:
    """It is told no more."""
    _ATTACHED.get(optimizer, weakref.WeakSet()).discard(one)


def withhold(optimizer: torch.optim.Optimizer) -> None:
    """The step under way has no gradients: for none of them does it count."""
    for each in _ATTACHED[optimizer]:
        each.skipping = True
