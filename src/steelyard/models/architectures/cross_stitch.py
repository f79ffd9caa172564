"""Cross-stitch networks: a network per task, whose activations are mixed between stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from steelyard.errors import OptionError
from steelyard.models.base_architecture import Architecture, build_heads
from steelyard.models.features import Features, mix, run, sample_inputs, stack, trace
from steelyard.models.trunk_stages import check_cut, cut

if TYPE_CHECKING:
    from steelyard.models.base_architecture import Part
    from steelyard.problems.problem import Problem


class Stitch(nn.Module):
    """``x_t = Σ_s α_ts y_s``: stacked activations [T, N, ...] -> one [N, ...] per task.

    Starts with ``own`` on the diagonal and the rest of each row shared among the other tasks.
    """

    def __init__(self, tasks: int, own: float) -> None:
        super().__init__()
        others = (1 - own) / max(tasks - 1, 1)
        self.alpha = nn.Parameter(torch.full((tasks, tasks), others).fill_diagonal_(own))

    def forward(self, stacked: Features) -> list[Features]:
        return [mix(row, stacked) for row in self.alpha]


class CrossStitch(Architecture):
    """Cross-stitch networks: every task has a trunk, and after each stage learned combinations of all go on.

    ``y_t^j = stage_t^j(x_t^(j-1))``, ``x_t^j = Σ_s α^j_ts y_s^j``, ``outputs_t = head_t(x_t^J)``.

    The problem's trunk is cut into stages as `steelyard.models.trunk_stages.cut` says: before every weighty child of an
    ``nn.Sequential``, or where the trunk's attribute ``stages`` says. All trunks start as the trunk of hard sharing, so
    that at the start every task's network computes what its single-task network does (rows of α add up to one).

    ``shared`` is the trunks' outputs before the last stitch, stacked [T, N, ...]: they come out side by side, none
    from another, and beyond them lie only row t of the last stitch and the head of task t. Earlier stitches and all
    trunks are reached by every task's loss.

    Options (``cross-stitch(stages=None,own=0.9)``):
        stages: how many; each ends in a stitch. 1 stitches whole trunks once; by default all that the trunk has.
        own: the weight of a task's own activations at the start, the diagonal of α.

    Parameters beside hard sharing: ``tasks`` x the trunk, and ``stages x tasks²``.

    Single task: the problem's plain trunk and head, which is also what stitches equal to the identity make of it.

    Deviations: one α per stage and pair of tasks, for all channels; trunks start alike instead of from trained
    single-task networks, and stitches have the learning rate of everything else (the paper's is up to 1000 times
    higher).

    Source: Misra, Shrivastava, Gupta, Hebert, "Cross-stitch Networks for Multi-task Learning", CVPR 2016,
    arXiv:1604.03539.

    Example:
        >>> from steelyard.models import build
        >>> from steelyard.problems import load_problem
        >>> network = build(load_problem("digits"), ["left", "right"], seed=0, architecture="cross-stitch")
        >>> outputs, shared = network(torch.zeros(4, 121))
        >>> type(network).__name__, outputs["left"].shape
        ('CrossStitch', torch.Size([4, 10]))
    """

    def __init__(
        self, trunks: Sequence[Sequence[nn.Module]], stitches: Sequence[nn.Module], heads: Mapping[str, nn.Module]
    ) -> None:
        super().__init__(heads)
        stages = [nn.ModuleList(stage) for stage in zip(*trunks, strict=True)]
        self.trunk = nn.ModuleList([nn.ModuleList(stages), nn.ModuleList(stitches[:-1])])
        self.last_stitch = stitches[-1]

    @classmethod
    def from_problem(
        cls, problem: Problem, tasks: Sequence[str], part: Part, *, stages: int | None = None, own: float = 0.9
    ) -> CrossStitch:
        if isinstance(own, bool) or not isinstance(own, (int, float)) or not 0 <= own <= 1:
            raise OptionError(f"cross-stitch: own={own!r} must be a number between 0 and 1")
        sample = part("trunk", problem.trunk)
        outputs = trace(cut("cross-stitch", sample, stages), sample_inputs(problem))
        check_cut("cross-stitch", type(sample).__name__, outputs)
        trunks = [cut("cross-stitch", part("trunk", problem.trunk), stages) for _ in tasks]
        stitches = [Stitch(len(tasks), own) for _ in outputs]
        return cls(trunks, stitches, build_heads(problem, tasks, part))

    def forward(self, inputs: Features) -> tuple[dict[str, Tensor], Features]:
        lanes: list[Features] = [inputs] * len(self.tasks)
        stages, stitches = self.trunk.children()
        for stage, stitch in zip(stages.children(), [*stitches.children(), None], strict=True):
            shared = stack([run(network, lane) for network, lane in zip(stage.children(), lanes, strict=True)])
            if stitch is not None:
                lanes = stitch(shared)
        lanes = self.last_stitch(shared)
        return {task: head(lane) for task, head, lane in zip(self.tasks, self.heads, lanes, strict=True)}, shared
