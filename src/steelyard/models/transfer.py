"""Asymmetric transfer: tasks give to the shared features through their outputs, and unreliable ones give little."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steelyard.base.options import at_least, checked_tasks, one_of
from steelyard.errors import LossError, OptionError, UnknownNameError
from steelyard.models.features import Features, flat

Uncertainty = Literal["none", "data", "log1p", "detached", "tugda"]
Norms = Literal["squared", "plain"]
Activation = Literal["relu", "none"]
Start = Literal["normal", "linear"]
FLOOR = 1e-3  # of a loss, at a task of average size: what keeps the price of a row above zero


class AsymmetricTransfer(nn.Module):
    """Rebuild the shared features from all tasks' outputs, through rows whose price grows with the task's loss.

    With features ``h [B, H]``, all outputs side by side ``o [B, O]`` and a matrix ``A [O, H]``, of which the block of
    rows ``A_t`` belongs to task t, training minimises::

        Σ_t (ℓ_t + f_t) + (α Σ|A_t| + U_t) · (price_t + f_t)    f_t = .001 / n_t,  n_t = √(N_t / mean N)
          + γ · mean over rows of ‖h - ĥ‖²                       ĥ = ReLU(o A + c)
          + μ · Σ_t ‖S_t‖₁ + λ · ½‖θ‖²                           S_t: a head's last weight, θ: all of the trunk

    What a task hands to the features through ``A_t`` costs in proportion to its loss, so that tasks which are learnt
    badly contribute little to them, and still learn from the others. The first line is `reweigh`, one loss per task,
    which any balancer may then weigh; the others are `penalty`, added to what the balancer returns::

        transfer = AsymmetricTransfer({"age": 1, "digit": 10}, features=64)       # its parameters go to the optimizer
        features = trunk(x)
        outputs = {"age": age_head(features), "digit": digit_head(features)}
        loss = balancer(transfer.reweigh(losses), shared=features)
        loss = loss + transfer.penalty(features, outputs, heads=[age_head, digit_head], trunk=trunk)

    ``ℓ_t`` and ``price_t`` by ``uncertainty``, with ``s_t = log σ_t²`` learnt:

    ============  ===============================  ======================  =============================================
    uncertainty   ``ℓ_t``                          ``price_t``
    ============  ===============================  ======================  =============================================
    ``none``      ``L_t``                          ``L_t``                 the loss itself, as in AMTFL
    ``data``      ``e^{-s} L_t + s``               ``e^{-s} L_t``          with ``s`` settled the same for all tasks
    ``log1p``     ``e^{-s} L_t + log(1 + e^s)``    the same as ``ℓ_t``     grows with the loss, as its root where small
    ``detached``  ``e^{-s} L_t + s``               ``e^s``, detached       the noise; does not hold ``s`` down
    ``tugda``     ``e^{-s} L_t + s``               the same as ``ℓ_t``     without ``f_t``; may be negative (see below)
    ============  ===============================  ======================  =============================================

    The default is AMTFL as published. Of three others only ``log1p`` did better in our study (``steelyard reproduce
    amtfl``): on MNIST-Imbalanced in the authors' 1,000 epochs, five seeds, by 7.1 points of Δm (4.6 to 9.6), where
    ``data`` and ``detached`` came out below ``none``; all three at ``speed=100``. At 1 the steps of ``s`` are
    the optimizer's, of which 1,100 at 1e-4 and as many at 1e-5 take it to about 0.13, that of all tasks alike.

    ``tugda`` is what the authors of the uncertainty wrote in their later code, where ``U_t`` multiplies the same: at
    small losses its price is negative, and a large ``A`` is rewarded. No other price ever is. Only with ``none`` and
    ``log1p`` does every reweighed loss stay above zero, as methods that take logarithms need it.

    Args:
        outputs: how many numbers each task puts out per row, by task name.
        features: how many numbers the features have per row, flattened.
        counts: ``N_t``, training labels of each task; equal by default. Also `count`.
        alpha, gamma, mu, decay: ``α``, ``γ``, ``μ`` and ``λ``.
        uncertainty: see the table.
        speed: ``s`` is so many times its parameter, and so takes steps that many times an optimizer's like Adam.
        norms: of the trunk's penalty: ``"squared"``, as above; ``"plain"``: ``λ Σ‖W‖₂`` of its weights, without
            offsets, as TUGDA has it.
        activation: ``"relu"``, as where features come out of a ReLU; ``"none"`` where they may be negative.
        start: of ``A`` and ``c``: ``"normal"``: N(0, 0.01²) and zero; ``"linear"``: both from U(±1/√O), as an
            ``nn.Linear`` starts, and so does TUGDA: of many outputs ``α Σ|A_t|`` is then tens of times as large.

    Errors: a negative loss raises `LossError`: it would reward a large ``A``. Unknown tasks, options out of range and
    shapes that do not fit are named.

    Cost: one product ``[B, O] x [O, H]``, and ``O·H`` parameters.

    Source: Lee, Yang, Hwang, "Deep Asymmetric Multi-task Feature Learning", ICML 2018, arXiv 1708.00260; with
    uncertainty: Peres da Silva, Suphavilai, Nagarajan, "Task Uncertainty Loss Reduce Negative Transfer in Asymmetric
    Multi-task Feature Learning" (AAAI 2021, student abstract), arXiv 2012.09575; ``tugda`` and ``U_t`` as in the public
    code of their TUGDA (2021), which leaves ``α`` at 1 and takes the mean of ``(h - ĥ)²`` over features as well.
    Deviations: the other forms with ``s`` are reconstructed from the abstract, whose own price may be negative. Heads
    may be any networks and put out several numbers, which then transfer each by a row of its own. The authors start
    heads like ``A``, from N(0, 0.01²); here they start as they are.

    Example:
        >>> heads = nn.ModuleDict({"a": nn.Linear(4, 1), "b": nn.Linear(4, 1)})
        >>> transfer = steelyard.AsymmetricTransfer({"a": 1, "b": 1}, 4)
        >>> z = torch.ones(3, 4)
        >>> sorted(name for name, _ in transfer.named_parameters())
        ['offset', 'rows']
    """

    def __init__(
        self,
        outputs: Mapping[str, int],
        features: int,
        *,
        counts: Mapping[str, int] | None = None,
        alpha: float = 0.1,
        gamma: float = 0.01,
        mu: float = 1e-4,
        decay: float = 1e-4,
        uncertainty: Uncertainty = "none",
        activation: Activation = "relu",
        norms: Norms = "squared",
        speed: float = 1.0,
        start: Start = "normal",
    ) -> None:
        super().__init__()
        at_least("speed", speed, 0.0, strictly=True)
        self.speed = speed
        self.tasks = checked_tasks(tuple(outputs))
        for name, number in {"features": features, **outputs}.items():
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise OptionError(f"AsymmetricTransfer: {name}={number!r} must be a whole number of at least 1")
        for name, weight in {"alpha": alpha, "gamma": gamma, "mu": mu, "decay": decay}.items():
            at_least(name, weight, 0.0)
        one_of("uncertainty", uncertainty, Uncertainty)
        one_of("activation", activation, Activation)
        if uncertainty == "none" and speed != 1.0:
            raise OptionError(
                f"AsymmetricTransfer: speed={speed:g} is of a learnt uncertainty, and uncertainty='none' has none: "
                "leave it away, or take uncertainty='log1p' or another form"
            )
        one_of("norms", norms, Norms)
        one_of("start", start, Start)
        self.sizes = [outputs[task] for task in self.tasks]
        self.alpha, self.gamma, self.mu, self.decay = alpha, gamma, mu, decay
        self.uncertainty, self.activation, self.norms = uncertainty, activation, norms
        self.rows = nn.Parameter(torch.empty(sum(self.sizes), features).normal_(std=0.01))
        self.offset = nn.Parameter(torch.zeros(features))
        if start == "linear":
            reach = sum(self.sizes) ** -0.5
            for parameter in (self.rows, self.offset):
                nn.init.uniform_(parameter, -reach, reach)
        if uncertainty != "none":
            self.log_variance = nn.Parameter(torch.zeros(len(self.tasks)))
        owner = torch.arange(len(self.tasks)).repeat_interleave(torch.tensor(self.sizes))
        self.register_buffer("owner", owner, persistent=False)
        self.register_buffer("floor", torch.full((len(self.tasks),), FLOOR))
        if counts is not None:
            self.count(counts)

    def count(self, counts: Mapping[str, int]) -> None:
        """Take ``N_t``, how many training labels each task has."""
        for task in counts:
            self._known(task)
        missing = [task for task in self.tasks if not counts.get(task, 0) > 0]
        if missing:
            raise OptionError(f"AsymmetricTransfer: counts has no positive number for {missing[0]!r}")
        numbers = torch.tensor([counts[task] for task in self.tasks], dtype=torch.float64)
        self.get_buffer("floor").copy_(FLOOR / (numbers / numbers.mean()).sqrt())

    def transferred(self) -> Tensor:
        """``Σ|A_t|`` [T]: how much each task gives."""
        totals = self.rows.new_zeros(len(self.tasks))
        return totals.index_add(0, self.get_buffer("owner"), self.rows.abs().sum(1))

    def reweigh(
        self, losses: Mapping[str, Tensor | None], spread: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """The loss of each task with the price of what it transfers: ``m_t L_t + b_t``, absent tasks left out.

        Args:
            losses: scalars with a graph, at least 0.
            spread: ``U_t``, the variance of the task's outputs under dropout, which makes its loss dearer.
        """
        present = {task: loss for task, loss in losses.items() if loss is not None}
        for task in present:
            self._known(task)
        self._refuse_negative(present)
        multipliers, additions = (values.unbind() for values in self._line(spread or {}))
        reweighed = {}
        for task, loss in present.items():
            place = self.tasks.index(task)
            result = multipliers[place].to(loss) * loss + additions[place].to(loss)
            if hasattr(loss, "label_count"):  # see `masked_mean`
                result.label_count = loss.label_count  # type: ignore[attr-defined]
            reweighed[task] = result
        return reweighed

    def _line(self, spread: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """``m`` and ``b`` [T]. Losses are not stacked here, so that looking at one task's gradient walks one head."""
        floor = self.get_buffer("floor")
        extra = self.alpha * self.transferred()
        if spread:
            extra = extra + torch.stack([spread[t] if t in spread else extra.new_zeros(()) for t in self.tasks])
        if self.uncertainty == "none":
            return 1 + extra, (1 + extra) * floor
        s = self.speed * self.log_variance
        precision = (-s).exp()
        if self.uncertainty == "data":
            return (1 + extra) * precision, s + (1 + extra) * floor
        if self.uncertainty == "tugda":
            return (1 + extra) * precision, (1 + extra) * s
        if self.uncertainty == "log1p":
            return (1 + extra) * precision, (1 + extra) * (F.softplus(s) + floor)
        return precision, s + floor + extra * (s.detach().exp() + floor)

    def rebuild(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """``ĥ = ReLU(o A + c)`` [B, H], from the outputs of all tasks."""
        for task in outputs:
            self._known(task)
        columns = []
        for task, size in zip(self.tasks, self.sizes, strict=True):
            if task not in outputs:
                raise OptionError(f"AsymmetricTransfer: the outputs of {task!r} are missing, and all are needed")
            output = outputs[task]
            if output.dim() == 1 and size == 1:
                output = output[:, None]
            if output.dim() != 2 or output.shape[1] != size:
                shape = list(output.shape)
                raise OptionError(f"AsymmetricTransfer: outputs of {task!r} have the shape {shape}, not [rows, {size}]")
            columns.append(output)
        rebuilt = torch.cat(columns, dim=1) @ self.rows + self.offset
        return rebuilt.relu() if self.activation == "relu" else rebuilt

    def penalty(
        self,
        features: Features,
        outputs: Mapping[str, Tensor],
        heads: Iterable[nn.Module] = (),
        trunk: nn.Module | None = None,
    ) -> Tensor:
        """``γ mean‖h - ĥ‖² + μ Σ‖S_t‖₁ + λ ½‖θ‖²``, to be added to the balanced loss.

        Args:
            features: what the heads read, [B, ...] or a tuple of such.
            outputs: of all tasks, for all rows, with or without a label.
            heads: whose last weights are to be sparse.
            trunk: whose parameters are to be small.
        """
        h = flat(features)
        if h.shape[1] != self.rows.shape[1]:
            shape = list(h.shape)
            raise OptionError(
                f"AsymmetricTransfer: features have the shape {shape}, flattened, not [rows, {self.rows.shape[1]}]"
            )
        total = self.gamma * (h - self.rebuild(outputs)).square().sum(1).mean()
        if self.mu > 0:
            for head in heads:
                total = total + self.mu * last_weight(head).abs().sum()
        if trunk is not None and self.decay > 0:
            for parameter in trunk.parameters():
                if self.norms == "squared":
                    total = total + 0.5 * self.decay * parameter.square().sum()
                elif parameter.dim() > 1:
                    total = total + self.decay * parameter.norm()
        return total

    def extra_repr(self) -> str:
        return f"tasks={len(self.tasks)}, outputs={self.rows.shape[0]}, features={self.rows.shape[1]}"

    def _known(self, task: str) -> None:
        if task not in self.tasks:
            raise UnknownNameError("task", str(task), self.tasks, "Tasks are named when AsymmetricTransfer is made.")

    def _refuse_negative(self, losses: Mapping[str, Tensor]) -> None:
        if losses and bool((torch.stack([loss.detach() for loss in losses.values()]) < 0).any()):
            task = next(task for task, loss in losses.items() if loss.detach() < 0)
            raise LossError(
                f"the loss of {task!r} is {losses[task].item():g}, and a negative loss would reward a large transfer: "
                "shift it above zero, or leave asymmetric transfer out"
            )


def last_weight(head: nn.Module) -> Tensor:
    """The weight of a head's last layer: its last parameter of two dimensions or more."""
    weights = [parameter for parameter in head.parameters() if parameter.dim() > 1]
    if not weights:
        raise OptionError(f"a head ({type(head).__name__}) has no weight that could be sparse: set mu=0")
    return weights[-1]
