"""Multi-task attention network: one trunk, and per task masks over its features at every stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from steelyard.errors import ArchitectureError
from steelyard.models.base_architecture import Architecture, build_heads
from steelyard.models.features import Features, parts, run, sample_inputs, tap, trace
from steelyard.models.trunk_stages import check_cut, cut

if TYPE_CHECKING:
    from steelyard.models.base_architecture import Part
    from steelyard.problems.problem import Problem


class Mask(nn.Module):
    """``p ⊙ sigmoid(h(relu(g(u))))``, two linear maps over channels: for images convolutions of 1 x 1.

    Args:
        read: channels of ``u``.
        channels: of the features that are masked.
        dim: which dimension holds the channels.
    """

    def __init__(self, read: int, channels: int, dim: int) -> None:
        super().__init__()
        self.g, self.h, self.dim = nn.Linear(read, channels), nn.Linear(channels, channels), dim

    def forward(self, features: Tensor, kept: Tensor | None) -> Tensor:
        """Mask the trunk's features, looking at them and at what the task kept of earlier ones."""
        u = features if kept is None else torch.cat([features, kept], dim=self.dim)
        return features * self.h(self.g(u.movedim(self.dim, -1)).relu()).sigmoid().movedim(-1, self.dim)  # type: ignore[no-any-return]


class MTAN(Architecture):
    """Multi-task attention network: tasks mask the features of one trunk at every stage, and pass on what they keep.

    With ``p^j`` the trunk's features after stage j, for task t::

        a_t^j = sigmoid(h_t^j(relu(g_t^j([p^j; f_t^j(â_t^(j-1))]))))     the mask; the first one reads p^1 alone
        â_t^j = a_t^j ⊙ p^j,    outputs_t = head_t(â_t^J)

    The problem's trunk is cut into stages as `steelyard.models.trunk_stages.cut` says: before every weighty child of an
    ``nn.Sequential``, or where the trunk's attribute ``stages`` says. ``g`` and ``h`` are linear over channels: the
    second dimension of images and of what a convolution puts out, the last one of everything else. ``f_t^j``, which
    brings what the task kept to the shape of stage j, is a copy of that stage.

    ``shared``: tasks read the trunk at every stage, and those features feed one another. So ``shared`` is a tuple of
    copies, one per stage, which the tasks read while the trunk goes on with the original: none is computed from
    another, and through them alone losses reach the trunk.

    Options (``mtan(stages=None)``):
        stages: how many; 1 masks the trunk's output only; by default all that the trunk has.

    Parameters beside hard sharing: per task one trunk without its first stage, and ``2 C² + 2 C`` for the first
    mask, ``3 C² + 2 C`` for each later one, at C channels.

    Single task: the problem's plain trunk and head, so that the baseline is that of every architecture.

    Deviations: masks read the features that they mask, where the paper's read those of an earlier layer of the same
    block; ``f`` is a stage of the task's own, where the paper's is a convolution with pooling (which the authors'
    code shares among tasks); no batch normalisation in masks, so that a batch of one row is as good as another; for
    encoders only, a decoder is part of the head and unmasked.

    Source: Liu, Johns, Davison, "End-to-End Multi-Task Learning with Attention", CVPR 2019, arXiv:1803.10704.

    Example:
        >>> from steelyard.models import build
        >>> from steelyard.problems import load_problem
        >>> network = build(load_problem("digits"), ["left", "right"], seed=0, architecture="mtan")
        >>> outputs, shared = network(torch.zeros(4, 121))
        >>> type(network).__name__, outputs["left"].shape
        ('MTAN', torch.Size([4, 10]))
    """

    trunk: nn.ModuleList

    def __init__(
        self,
        stages: Sequence[nn.Module],
        carries: Sequence[Sequence[nn.Module]],
        masks: Sequence[Sequence[nn.Module]],
        heads: Mapping[str, nn.Module],
    ) -> None:
        """The trunk's stages; by task, the ``f`` of all stages but the first, and the masks of all stages."""
        super().__init__(heads)
        self.trunk = nn.ModuleList(stages)
        self.carries = nn.ModuleList([nn.ModuleList(own) for own in carries])
        self.masks = nn.ModuleList([nn.ModuleList(own) for own in masks])

    @classmethod
    def from_problem(cls, problem: Problem, tasks: Sequence[str], part: Part, *, stages: int | None = None) -> MTAN:
        sample = part("trunk", problem.trunk)
        sample_stages = cut("mtan", sample, stages)
        outputs = trace(sample_stages, sample_inputs(problem))
        check_cut("mtan", type(sample).__name__, outputs)
        shapes = [_channels(stage, features) for stage, features in zip(sample_stages, outputs, strict=True)]

        def mask(task: str, stage: int) -> nn.Module:
            channels, dim = shapes[stage]
            read = 2 * channels if stage else channels
            return part(f"mask/{task}/{stage}", lambda: Mask(read, channels, dim))

        return cls(
            cut("mtan", part("trunk", problem.trunk), stages),
            [cut("mtan", part(f"carry/{task}", problem.trunk), stages)[1:] for task in tasks],
            [[mask(task, stage) for stage in range(len(shapes))] for task in tasks],
            build_heads(problem, tasks, part),
        )

    def forward(self, inputs: Features) -> tuple[dict[str, Tensor], Features]:
        features = inputs
        shared: list[Tensor] = []
        for stage in self.trunk:
            features = run(stage, features)
            shared += parts(tap(features))
        outputs = {}
        for task, carries, masks, head in zip(self.tasks, self.carries, self.masks, self.heads, strict=True):
            kept: Tensor | None = None
            carry = [None, *carries.children()]
            for mask, bring, read in zip(masks.children(), carry, shared, strict=True):
                kept = mask(read, None if bring is None else bring(kept))
            outputs[task] = head(kept)
        return outputs, tuple(shared)


def _channels(stage: nn.Module, features: Features) -> tuple[int, int]:
    """How many channels a stage puts out, and in which dimension."""
    if not isinstance(features, Tensor):
        raise ArchitectureError(
            f"mtan: the trunk puts out a {type(features).__name__}, and masks are defined for one tensor: let it "
            "return one, or choose another architecture (steelyard architectures)"
        )
    convolution = nn.modules.conv._ConvNd
    first = features.dim() > 3 or any(isinstance(module, convolution) for module in stage.modules())
    dim = 1 if first and features.dim() > 2 else features.dim() - 1
    return features.shape[dim], dim
