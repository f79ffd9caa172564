"""Asymmetric multi-task feature learning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from steelyard.base.options import one_of
from steelyard.errors import ArchitectureError, OptionError
from steelyard.models.base_architecture import Architecture, build_heads, whole
from steelyard.models.features import Features, each, flat, run, sample_inputs, stack, trace
from steelyard.models.transfer import Activation, AsymmetricTransfer, Norms, Start, Uncertainty

if TYPE_CHECKING:
    from steelyard.models.base_architecture import Part
    from steelyard.problems.problem import Problem

Counts = Literal["labels", "positives"]


class AMTFL(Architecture):
    """Asymmetric multi-task feature learning: hard sharing, whose features the tasks' outputs can rebuild.

    `AsymmetricTransfer` over the problem's trunk and heads; its docstring has the equations. Each task's loss carries
    the price of what the task transfers (before the balancer, whichever it is), and the reconstruction, ``‖S‖₁`` and
    ``½‖θ_shared‖²`` are added after it. Recorded training losses are the tasks' own.

    ``shared`` is the trunk's output; with ``passes`` the outputs of all passes, stacked [P, N, ...].

    Options (``amtfl(alpha=0.1,gamma=0.01,mu=1e-4,decay=1e-4,uncertainty=none,passes=0,…)``):
        alpha: the price of transfer, ``α``. 0 leaves the asymmetry out.
        gamma, mu, decay: the weights of reconstruction, sparse heads and small trunk, ``γ``, ``μ``, ``λ``.
        uncertainty: ``none``: the loss is the price, AMTFL as published; ``data``, ``log1p``, ``detached``: with
            a learnt uncertainty, in three forms; ``tugda``: as its authors' later code has it.
        passes: 0, or how often (2 or more) each training batch goes through the network's dropout; predictions are then
            the mean over passes, and their variance ``U_t``, averaged over rows, makes the task's loss dearer by ``1 +
            U_t + α Σ|A_t|``. One pass in evaluation. The features that are rebuilt are the mean over passes.
        counts: what ``N_t`` counts: the training ``labels`` of a task, or only its ``positives`` (labels of 1), as
            the authors do where each task is one class against the rest.
        activation: ``relu``, or ``none`` where features may be negative.
        norms: of the trunk's penalty, ``squared``, or ``plain`` as in TUGDA.
        speed: of the learnt uncertainty, against the network's parameters: 1 steps like them, which in a short
            training or at a small rate leaves it where it starts.
        start: of what rebuilds the features, ``normal``, or ``linear`` as in TUGDA.

    Methods above: the losses that they see hold the price, so that a method whose weights undo a loss's scale (``log``,
    ``db-mtl``, ``uw``) undoes that of the price too: rows then cost the same for all tasks. Methods that need positive
    losses want ``none`` or ``log1p``, and a study says so before it starts. Validation losses are shown to methods as
    they are.

    Parameters beside hard sharing: ``outputs x features``. Cost: that of hard sharing, x ``passes``.

    Single task: the problem's plain trunk and head, so that the baseline is that of every architecture.

    Deviations: those of `AsymmetricTransfer`. TUGDA is ``amtfl(uncertainty=tugda,alpha=1,norms=plain,passes=50,
    start=linear)``; it rebuilds the features of the last pass and predicts with dropout too. Here ``passes`` goes with
    any of the forms. Outputs must be one vector per row: not defined for dense prediction.

    Source: Lee, Yang, Hwang, "Deep Asymmetric Multi-task Feature Learning", ICML 2018, arXiv:1708.00260; Peres da
    Silva, Suphavilai, Nagarajan, "Task Uncertainty Loss Reduce Negative Transfer in Asymmetric Multi-task Feature
    Learning", AAAI 2021 (student abstract), arXiv:2012.09575, and "TUGDA: task uncertainty guided domain adaptation for
    robust generalization of cancer drug response prediction from in vitro to in vivo settings", Bioinformatics 37,
    2021.

    Example:
        >>> from steelyard.models import build
        >>> from steelyard.problems import load_problem
        >>> network = build(load_problem("digits"), ["left", "right"], seed=0, architecture="amtfl")
        >>> outputs, shared = network(torch.zeros(4, 121))
        >>> type(network).__name__, outputs["left"].shape
        ('AMTFL', torch.Size([4, 10]))
    """

    trunk: nn.Module

    def __init__(
        self,
        trunk: nn.Module,
        heads: Mapping[str, nn.Module],
        transfer: AsymmetricTransfer,
        passes: int = 0,
        counts: Counts = "labels",
    ) -> None:
        super().__init__(heads)
        self.trunk, self.transfer, self.passes, self.counts = trunk, transfer, passes, counts
        if transfer.uncertainty in ("data", "detached", "tugda"):
            self.for_positive_losses = "amtfl(uncertainty=none), AMTFL as published, or amtfl(uncertainty=log1p)"

    @classmethod
    def from_problem(
        cls,
        problem: Problem,
        tasks: Sequence[str],
        part: Part,
        *,
        alpha: float = 0.1,
        gamma: float = 0.01,
        mu: float = 1e-4,
        decay: float = 1e-4,
        uncertainty: Uncertainty = "none",
        passes: int = 0,
        counts: Counts = "labels",
        activation: Activation = "relu",
        norms: Norms = "squared",
        speed: float = 1.0,
        start: Start = "normal",
    ) -> AMTFL:
        if passes != 0:
            whole("amtfl", "passes", passes, least=2)
        one_of("counts", counts, Counts)
        trunk, heads = part("trunk", problem.trunk), build_heads(problem, tasks, part)
        dropout = [m for m in _modules(trunk, *heads.values()) if isinstance(m, nn.modules.dropout._DropoutNd)]
        if passes and not any(module.p > 0 for module in dropout):
            raise ArchitectureError(
                f"amtfl(passes={passes}) reads the variance under dropout, and neither trunk nor heads of "
                f"{problem.name!r} have a dropout layer: add one, or leave passes out"
            )
        (features,) = trace([part("trunk", problem.trunk)], sample_inputs(problem))
        sizes = {}
        for task, head in build_heads(problem, tasks, part).items():
            with torch.no_grad():
                output = head.eval()(features)
            if output.dim() > 2:
                raise ArchitectureError(
                    f"amtfl: task {task!r} puts out {list(output.shape[1:])} numbers per row, and transfer is defined "
                    "for one vector: choose another architecture (steelyard architectures)"
                )
            sizes[task] = output[0].numel()

        def transfer() -> AsymmetricTransfer:
            return AsymmetricTransfer(
                sizes,
                flat(features).shape[1],
                alpha=alpha,
                gamma=gamma,
                mu=mu,
                decay=decay,
                uncertainty=uncertainty,
                activation=activation,
                norms=norms,
                speed=speed,
                start=start,
            )

        built = part("transfer", transfer)
        assert isinstance(built, AsymmetricTransfer)
        return cls(trunk, heads, built, passes, counts)

    def before_training(self, labels: Mapping[str, Tensor]) -> None:
        self.transfer.count({task: self._number(task, found) for task, found in labels.items()})

    def _number(self, task: str, labels: Tensor) -> int:
        if self.counts == "labels":
            return len(labels)
        if bool(((labels != 0) & (labels != 1)).any()):
            raise OptionError(
                f"amtfl(counts=positives): the labels of {task!r} are not all 0 or 1: write counts=labels"
            )
        return int(labels.sum())

    def forward(self, inputs: Features) -> tuple[dict[str, Tensor], Features]:
        if not (self.passes and self.training):
            features = run(self.trunk, inputs)
            return {task: head(features) for task, head in self._heads()}, features
        shared = stack([run(self.trunk, inputs) for _ in range(self.passes)])
        apart = self._apart(shared)
        return {task: _each_pass(head, apart).mean(0) for task, head in self._heads()}, shared

    def reweigh(
        self, losses: Mapping[str, Tensor], outputs: Mapping[str, Tensor], shared: Features
    ) -> Mapping[str, Tensor]:
        if not (self.passes and self.training):
            return self.transfer.reweigh(losses)
        # Heads run once more: what they drop is drawn anew, an estimate as good as that of the first run.
        apart = self._apart(shared)
        spread = {task: _each_pass(head, apart).var(0).mean() for task, head in self._heads() if task in losses}
        return self.transfer.reweigh(losses, spread)

    def penalty(self, outputs: Mapping[str, Tensor], shared: Features) -> Tensor:
        features = each(lambda tensor: tensor.mean(0), shared) if self.passes and self.training else shared
        return self.transfer.penalty(features, outputs, self.heads, self.trunk)

    def _heads(self) -> list[tuple[str, nn.Module]]:
        return list(zip(self.tasks, self.heads, strict=True))

    def _apart(self, shared: Features) -> list[Features]:
        """Features of every pass, for all heads: taken out singly, each would have a gradient of the size of all."""
        if isinstance(shared, Tensor):
            return list(shared.unbind(0))
        return [each(lambda tensor, n=n: tensor[n], shared) for n in range(self.passes)]


def _each_pass(head: nn.Module, apart: Sequence[Features]) -> Tensor:
    """Outputs of every pass [P, N, ...]."""
    return torch.stack([head(features) for features in apart])


def _modules(*networks: nn.Module) -> list[nn.Module]:
    return [module for network in networks for module in network.modules()]
