"""Who was helped and who was hurt by a step: the progress of every task along what the optimizer really did.

A balancer decides on a direction; momentum, Adam's scaling, clipping and weight decay make a step of it, and that is
what the tasks live with. To first order a step by ``Δ`` takes ``-⟨∇L_k, Δ⟩`` off the loss of task ``k``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from steelyard.balancing.attachment import Attachment
from steelyard.balancing.devices import full_precision
from steelyard.balancing.distributed.ranks import is_initialised, ranks_of
from steelyard.balancing.observe import label_counts
from steelyard.balancing.optimizers.hooks import uncompiled
from steelyard.balancing.optimizers.steps import OTHERS, PATIENCE, is_bypassed, steps_begun
from steelyard.balancing.optimizers.wrapped import base_of, innermost, outermost
from steelyard.balancing.state_dict import Persistent
from steelyard.balancing.task_progress import LedgerSummary, TaskProgress
from steelyard.base.lookahead import Losses
from steelyard.errors import OptionError, StateError, warn
from steelyard.gradients.along import BackwardRecord, record, warn_of_rows
from steelyard.gradients.retained import left_as_it_was, retaining_below
from steelyard.gradients.wrappers import is_sharded, unnoticed


@dataclass
class _Call:
    """One micro-batch of the step under way: its tasks, their labels, and what was kept of their losses."""

    tasks: tuple[str, ...]
    counts: Sequence[float]
    kept: BackwardRecord
    ran: int | None = None
    """Which backward pass its result was sent in, if in any."""


@dataclass
class _OpenStep:
    """A step under way that will be measured.

    Attributes:
        parameters: those that the optimizer will move.
        before: their values at its first micro-batch.
        window: that of the balancer's attachment, which begins a new one where a step is left out.
        scale: of the gradient scaler, which lowers it where it leaves a step out.
    """

    parameters: list[Tensor]
    before: list[Tensor]
    window: object
    scale: float | None
    calls: list[_Call] = field(default_factory=list)


class Ledger:
    """Keeps account of how far each step of the optimizer moved each task: whom did it hurt?

    Before a measured step the parameters are remembered, and after it ``Δ`` is what they really moved by: momentum,
    the scaling of Adam, clipping and weight decay included, at every parameter of the optimizer, those of the heads
    too. ``progress_k = -⟨∇L_k, Δ⟩`` is what that takes off the loss of task ``k`` to first order, on the batch of the
    step; below zero the step *hurt* the task. Micro-batches are averaged by their labels, and so are ranks; a step
    that a gradient scaler skips is not measured.

    Nothing else in the loop changes. The balancer need not be attached.

    Args:
        balancer: whose losses are measured; one ledger per balancer.
        optimizer: the one that steps the network, as it is or in a trainer's wrapper; one around another (Lookahead)
            is measured with what it moves itself.
        every: measure each ``every``-th step, of those before which the balancer was called.
        scaler: the gradient scaler, if one is used; that of `Balancer.attach` where it is not given.

    In a distributed run every rank keeps one, and all have the numbers of the global batch (with ``sync="off"``: each
    those of its own).

    Raises:
        OptionError: ``every`` is no whole number of at least 1; the optimizer is none; its parameters are sharded.
        LossError: the losses depend on none of the optimizer's parameters.
        SharedError: the network has reentrant checkpointing in it.

    Cost: at a measured step 1.3 to 2.2 plain steps, whatever the number of tasks: one backward pass that is recorded,
    and one through the record (`benchmarks/ledger.py`): 2 % of all steps' time at each 100th, 6 to 11 % at each 20th.
    The memory of another forward pass, and two copies of the parameters. Where an operation cannot be differentiated
    twice (fused attention, `torch.compile`), a backward pass and a copy of the parameters per task, which is said once.
    Other steps cost nothing.

    Example:
        >>> w = nn.Parameter(torch.tensor([1.0, 1.0]))
        >>> optimizer = torch.optim.SGD([w], lr=0.1)
        >>> balancer = steelyard.Equal(["a", "b"])
        >>> ledger = steelyard.Ledger(balancer, optimizer, every=1)
        >>> balancer({"a": 3 * w[0], "b": w[1] - w[0]}).backward()  # gradients (3, 0) and (-1, 1): they conflict
        >>> optimizer.step()
        >>> {name: round(value, 6) for name, value in ledger.metrics().items()}
        {'progress/a': 0.6, 'hurt/a': 0.0, 'progress/b': -0.1, 'hurt/b': 1.0}
        >>> print(ledger.summary())
        task  measured    hurt  against  mean progress
        a            1    0.0%     0.0%            0.6
        b            1  100.0%   100.0%           -0.1
    """

    def __init__(
        self, balancer: Persistent, optimizer: torch.optim.Optimizer, every: int = 100, scaler: Any = None
    ) -> None:
        if not isinstance(balancer, Persistent):
            raise OptionError(f"Ledger takes the balancer whose losses it measures, got a {type(balancer).__name__}")
        if not isinstance(every, int) or every < 1:
            raise OptionError(f"every must be a whole number of steps of at least 1, got {every!r}")
        around, optimizer = outermost(optimizer), innermost(optimizer)
        base = base_of(optimizer)
        self.balancer, self.every, self._scaler = balancer, every, scaler
        self.optimizer, self._climbs = base or optimizer, base is not None
        if any(is_sharded(parameter) for parameter in self._parameters()):
            raise OptionError(
                "Ledger cannot measure parameters that are sharded over ranks (DTensor, as fully_shard makes them): a "
                "rank holds neither their gradients nor their changes in one piece"
            )
        self.steps = self._since = 0
        self.entries: dict[str, TaskProgress] = {}
        self._measured: tuple[str, ...] = ()
        self._open: _OpenStep | None = None
        self._by_rows = self._rows_said = self._stepped = self._told = False
        self._calls, self._before = 0, (0, 0)
        self._within: torch.optim.Optimizer | None = None
        if balancer._ledger is not None:
            balancer._ledger.remove()
        balancer._ledger = self
        # What lies around the optimizer may move the parameters once more (Lookahead): its step is the whole one. A
        # sharpness-aware optimizer's own is a frame around two steps, and not called where these are taken by hand.
        watched = [self.optimizer] if around in (self.optimizer, optimizer) else [self.optimizer, around]
        self._handles: list[Any] = [
            handle
            for each in watched
            for handle in (
                each.register_step_pre_hook(uncompiled(self._before_step)),
                each.register_step_post_hook(uncompiled(self._after_step)),
            )
        ]

    def remove(self) -> None:
        """Take it off balancer and optimizer; what it has stays readable."""
        for handle in self._handles:
            handle.remove()
        self.discard()
        if self.balancer._ledger is self:
            self.balancer._ledger = None

    def discard(self) -> None:
        """Forget the step under way (one that is left out by hand)."""
        self._open, self._calls = None, 0

    # --- what the balancer tells it -----------------------------------------------------------------------------------
    def saw(self, losses: Losses, counts: Mapping[str, float] | None, result: Tensor) -> None:
        """The balancer has made ``result`` of some losses."""
        if self._open is not None and self._is_over(self._open):
            self._open = None
        self._expect_a_step()
        if self._since + 1 < self.every:
            return
        last = self.balancer._now.record
        there = {name: losses.get(name) for name in (() if last is None else last.seen.tasks)}
        live = {name: loss for name, loss in there.items() if loss is not None and loss.requires_grad}
        if not live:
            return
        if self._open is not None and not all(map(torch.equal, self._open.parameters, self._open.before)):
            if self._evaluates_elsewhere():
                return
            self._open = None  # somebody has set the parameters by hand
        if self._open is None:
            self._open = self._begin()
        found = list(live.values())
        labels = label_counts(list(live), found, counts, self.balancer.tasks)
        passing = unnoticed(found) if is_initialised() else nullcontext()
        with full_precision(found[0].device.type), passing, left_as_it_was(retaining_below(found)):
            kept = record(found, self._open.parameters, self._by_rows)
        self._say_rows(kept.by_rows, len(found))
        call = _Call(tuple(live), labels, kept)
        self._open.calls.append(call)
        result.register_hook(lambda gradient, opened=self._open: self._sent(opened, call))  # type: ignore[no-untyped-call]

    def _expect_a_step(self) -> None:
        """Count a call, and say once that the optimizer does not step any more, as an attachment to it would."""
        self._calls += 1
        if self._calls == 1:
            self._before = steps_begun(), next(self._held())._version
        if self._told or self._calls not in (OTHERS, PATIENCE) or self._attachment() is not None:
            return
        bypassed = self._calls == OTHERS and is_bypassed(self._before, list(self._held()))
        if bypassed or self._calls == PATIENCE:
            self._told = True
            warn(
                f"the ledger of {self.balancer.name} measures an optimizer ({type(self.optimizer).__name__}) that has "
                f"not stepped in {self._calls:,} calls{', while another optimizer has' if bypassed else ''}, so it "
                "stands still: make one for the optimizer that trains the model now, steelyard.Ledger(balancer, "
                "optimizer), which takes its place and goes on with load_state_dict(ledger.state_dict()), or call "
                "ledger.remove()"
            )

    def _begin(self) -> _OpenStep:
        attachment, parameters = self._attachment(), self._parameters()
        window = None if attachment is None else attachment.window
        return _OpenStep(parameters, [each.detach().clone() for each in parameters], window, self._scale())

    def _parameters(self) -> list[Tensor]:
        return [parameter for parameter in self._held() if parameter.requires_grad]

    def _held(self) -> Iterator[Tensor]:
        return (parameter for group in self.optimizer.param_groups for parameter in group["params"])

    def _attachment(self) -> Attachment | None:
        attachment = self.balancer._attachment
        return attachment if attachment is not None and attachment.stepping is self.optimizer else None

    def _scale(self) -> float | None:
        attachment = self._attachment()
        scaler = self._scaler if self._scaler is not None or attachment is None else attachment.scaler
        return scaler.get_scale() if scaler is not None and scaler.is_enabled() else None

    def _is_over(self, opened: _OpenStep) -> bool:
        """Whether the step that was under way never came: plain optimizers are not even called then."""
        attachment, scale = self._attachment(), self._scale()
        if attachment is not None and opened.window is not None and attachment.window is not opened.window:
            return True
        if scale is not None and opened.scale is not None and scale < opened.scale:
            return True
        # Gradients that arrived and are gone were given up.
        arrived = any(call.ran is not None for call in opened.calls) and not self._evaluates_elsewhere()
        return arrived and all(parameter.grad is None for parameter in opened.parameters)

    def _sent(self, opened: _OpenStep, call: _Call) -> None:
        """The backward of a call begins: calls of earlier ones, whose gradients were cleared since, were given up."""
        now = torch._C._current_graph_task_id()
        left = [each for each in opened.calls if each.ran in (None, now)]
        if call.ran is None and len(left) < len(opened.calls) and self._is_over(opened):
            opened.calls = left
            opened.window = None  # the attachment is about to begin another
        call.ran = now

    def _evaluates_elsewhere(self) -> bool:
        """Whether a step may evaluate losses at other parameters: a line search, a sharpness-aware optimizer."""
        return self._within is not None or self._climbs

    def _say_rows(self, by_rows: bool, tasks: int) -> None:
        if by_rows and not self._rows_said and tasks > 1:
            self._rows_said = True
            warn_of_rows(tasks)

    # --- what the optimizer tells it ----------------------------------------------------------------------------------
    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if self._within is None or optimizer is not self.optimizer:
            self._within = optimizer

    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if optimizer is self.optimizer:
            # Fused optimizers are called on overflow too, and skip inside.
            found_inf = getattr(optimizer, "found_inf", None)
            if isinstance(found_inf, Tensor) and bool(found_inf.item()):
                self.discard()
            else:
                self._stepped = True
        if optimizer is self._within:
            self._within = None
            # What lies around may let it step each n-th time; and a step without a call is of other losses, or of none
            # (torch.distributed.checkpoint prepares an optimizer by one): it is not counted.
            if self._stepped and self._calls:
                self._end_step()
            self._stepped = False

    def _end_step(self) -> None:
        """The parameters have moved, by all that moves them in a step."""
        opened = self._open
        self.discard()
        self.steps += 1
        self._since += 1
        if self._since < self.every:
            return
        products = {} if opened is None else self._products(opened)
        looked = opened is not None and bool(opened.calls)
        ranks = ranks_of(self.balancer.sync, self.balancer.process_group)
        if ranks is not None:
            sums = torch.tensor(
                [[*products.get(task, (0.0, 0.0)), float(looked)] for task in self.balancer.tasks],
                dtype=torch.float64,
            )
            device = self.balancer._now.caches.device or ranks.device
            sums = ranks.sum(sums.to(device)).cpu()
            looked = bool(sums[:, 2].any())
            products = {
                task: (total, count)
                for task, (total, count, _) in zip(self.balancer.tasks, sums.tolist(), strict=True)
                if count > 0
            }
        if looked:
            self._since = 0
        self._measured = tuple(products)
        for task, (total, count) in products.items():
            self.entries.setdefault(task, TaskProgress()).add(-total / count)

    def _products(self, opened: _OpenStep) -> dict[str, tuple[float, float]]:
        """``(Σ n ⟨∇L, Δ⟩, Σ n)`` by task over the micro-batches whose backward ran."""
        with torch.no_grad():
            changes = [_change(before, now) for before, now in zip(opened.before, opened.parameters, strict=True)]
            moved = any(bool(change.any()) for change in changes)
        found: dict[str, tuple[float, float]] = {}
        for call in opened.calls if moved else ():
            products = None if call.ran is None else call.kept.products(changes)
            if products is None:
                self._by_rows = self._by_rows or call.ran is not None  # it cannot be otherwise here
                continue
            for task, count, product in zip(call.tasks, call.counts, products.tolist(), strict=True):
                if count > 0 and abs(product) < float("inf"):
                    total, labels = found.get(task, (0.0, 0.0))
                    found[task] = (total + count * product, labels + count)
        return found

    # --- what it has --------------------------------------------------------------------------------------------------
    def metrics(self) -> dict[str, float]:
        """The last measured step as a flat dict for any logger; empty before the first.

        ``progress/<task>``, what the step took off the task's loss to first order, and ``hurt/<task>``, the share of
        all measured steps that raised it.
        """
        result = {}
        for task in self._measured:
            entry = self.entries[task]
            result[f"progress/{task}"] = entry.last
            result[f"hurt/{task}"] = entry.hurt / entry.steps
        return result

    def summary(self) -> LedgerSummary:
        """The whole run, since the start or the checkpoint that was loaded; prints as a table."""
        tasks = tuple(dict.fromkeys([*self.balancer.tasks, *self.entries]))
        return LedgerSummary.of({task: self.entries.get(task, TaskProgress()) for task in tasks})

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds: numbers by task, and where the count of steps stands."""
        return {
            "steps": self.steps,
            "since": self._since,
            "measured": list(self._measured),
            "entries": {task: asdict(entry) for task, entry in self.entries.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint.

        Raises:
            StateError: it is not a ledger's.
        """
        if missing := {"steps", "since", "measured", "entries"} - set(state):
            raise StateError(
                f"this is no state of a ledger, it lacks {', '.join(sorted(missing))}: give what "
                "ledger.state_dict() returned"
            )
        self.discard()
        self.steps, self._since = int(state["steps"]), int(state["since"])
        self._measured = tuple(state["measured"])
        self.entries = {task: TaskProgress(**entry) for task, entry in state["entries"].items()}


def _change(before: Tensor, now: Tensor) -> Tensor:
    """Exactly what a parameter moved by, in half precision too."""
    precise = torch.promote_types(now.dtype, torch.float32)
    return now.detach().to(precise) - before.to(precise)
