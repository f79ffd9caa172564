"""Tasks that a policy leaves out of a step because something of theirs is not finite, and what is said of that.

`on_nonfinite="drop_task"` and `"skip_step"` are there so that a run survives a bad batch in silence. Two things are not
to be silent: a finite loss that cannot be told apart from a bad one, and a task that is left out for good.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from steelyard.base.method import Method
from steelyard.errors import warn
from steelyard.gradients.gradients_near_loss import arrives_nearby, cut_from_closed, dense_values

BATCHES = 10
"""Batches in a row from which a task is left out until that is said."""


@dataclass
class LeftOut:
    """What has been left out so far.

    Attributes:
        in_a_row: by task, from how many of its last batches it was left out.
        spoiled_said: whether finite losses that share the fate of a bad one have been told.
        lasting_said: the tasks that were said to be left out for good.
    """

    in_a_row: dict[str, int] = field(default_factory=dict)
    spoiled_said: bool = False
    lasting_said: frozenset[str] = frozenset()

    def spoiled(
        self, method: Method, names: Sequence[str], losses: Sequence[Tensor], numbers: Sequence[float], live: list[int]
    ) -> list[int]:
        """Positions of finite losses whose gradient is not, beside others that are to be dropped; said once.

        Losses that are cut from one tensor have a common backward, in which the gradient of what was dropped is zero,
        and 0 · NaN is NaN in all parameters. Only looked for where a loss is not finite.

        Args:
            live: positions of the losses that have labels.
        """
        if method.on_nonfinite != "drop_task":
            return []
        bad = [k for k in live if not math.isfinite(numbers[k])]
        fine = [k for k in live if math.isfinite(numbers[k])]
        if not bad or not fine:
            return []
        spoiled = _spoiled_with(losses, bad, fine)
        if spoiled and not self.spoiled_said:
            self.spoiled_said = True
            warn_of_spoiled_losses(method, [(names[k], numbers[k]) for k in bad], [names[k] for k in spoiled])
        return spoiled

    def batch(self, method: Method, there: Sequence[str], numbers: Sequence[float] | None, seen: Sequence[str]) -> None:
        """Count one batch.

        Args:
            there: its tasks that have labels.
            numbers: values of their losses, where the policy looks at them.
            seen: the tasks that take part.
        """
        missing = [name for name in there if name not in seen]
        if method.on_nonfinite == "skip_step" and numbers is not None and not seen:
            missing = _not_finite(there, numbers) or missing
        if not missing and not self.in_a_row:
            return
        self._count(there, missing)
        if lasting := self._newly_lasting(missing):
            self.lasting_said |= set(lasting)
            warn_of_lasting(method, lasting, nothing_left=not seen)

    def _count(self, there: Sequence[str], missing: Sequence[str]) -> None:
        """One more in a row for the missing; what took part begins anew, and what was not there is as it was."""
        others = {name: count for name, count in self.in_a_row.items() if name not in there}
        self.in_a_row = others | {name: self.in_a_row.get(name, 0) + 1 for name in missing}

    def _newly_lasting(self, missing: Sequence[str]) -> list[str]:
        return [name for name in missing if self.in_a_row[name] == BATCHES and name not in self.lasting_said]


def _not_finite(names: Sequence[str], numbers: Sequence[float]) -> list[str]:
    return [name for name, number in zip(names, numbers, strict=True) if not math.isfinite(number)]


def _spoiled_with(losses: Sequence[Tensor], bad: Sequence[int], fine: Sequence[int]) -> list[int]:
    """Of the finite losses, those whose gradient is not, or that come out of the same closed function as a bad one."""
    closed = {cut_from_closed(losses[k]) for k in bad} - {None}
    return [k for k in fine if _is_spoiled(losses[k]) or cut_from_closed(losses[k]) in closed]


def _is_spoiled(loss: Tensor) -> bool:
    """Whether its gradient is inf or NaN, as far as that can be seen."""
    with torch.no_grad():
        arrived = arrives_nearby(loss)
    return not all(bool(dense_values(gradient).isfinite().all()) for gradient in arrived or ())


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))


def warn_of_spoiled_losses(method: Method, bad: Sequence[tuple[str, float]], spoiled: Sequence[str]) -> None:
    """Finite losses go with a bad one: most often all are elements of one tensor, ``per_task.mean(0)``."""
    one = len(spoiled) == 1
    warn(
        f"{method.name}: the loss of {', '.join(f'{name!r} is {value}' for name, value in bad)} and is dropped; "
        f"{'that' if one else 'those'} of {_listed(spoiled)} {'is' if one else 'are'} finite with "
        f"{'a gradient that is' if one else 'gradients that are'} not, and must be dropped with it, now and in later "
        "batches like this one. So it is where losses are cut from one tensor (errors.mean(0)[k]): 0 times NaN is NaN. "
        "Compute each task's loss from its own outputs, loss_fn(output[:, k], target[:, k]), or replace missing "
        "targets before the loss (see steelyard.masked_mean)"
    )


def warn_of_lasting(method: Method, lasting: Sequence[str], nothing_left: bool) -> None:
    """What goes on batch after batch is no accident that a policy is there for."""
    one = len(lasting) == 1
    so = "nothing is trained" if nothing_left else f"{'it is' if one else 'they are'} not trained"
    warn(
        f"{method.name}: {_listed(lasting)} {'was' if one else 'were'} left out of each of the last {BATCHES} batches "
        f"that had {'it' if one else 'them'} (on_nonfinite={method.on_nonfinite!r}), because a loss or its gradient "
        f"was not finite, so {so}. Make the balancer with on_nonfinite='raise' to be told at the first one, and with "
        "which value; torch.autograd.set_detect_anomaly(True) names the operation that a NaN gradient comes from"
    )
