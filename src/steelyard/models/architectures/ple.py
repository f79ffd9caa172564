"""Progressive layered extraction: customized gate control in several levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from torch import Tensor, nn

from steelyard.models.architectures.cgc import build_trunks
from steelyard.models.base_architecture import Architecture, build_heads, whole
from steelyard.models.features import Features, join, parts, pick, run, sample_inputs, stack, tap, trace
from steelyard.models.mixture import Mixture, gate_place, gate_width
from steelyard.models.trunk_stages import check_cut, cut

if TYPE_CHECKING:
    from steelyard.models.base_architecture import Part
    from steelyard.problems.problem import Problem


class PLE(Architecture):
    """Progressive layered extraction: levels of task and shared experts, mixed by gates between levels.

    With ``E_t^l`` the outputs of task t's experts at level l and ``E_s^l`` those of the shared ones::

        x_t^l = Σ softmax(W_t^l x_t^(l-1)) · [E_t^l, E_s^l]               what task t's experts read at level l + 1
        x_s^l = Σ softmax(W_s^l x_s^(l-1)) · [E_1^l, …, E_T^l, E_s^l]     what the shared experts read there
        outputs_t = head_t(x_t^L),   x^0 = the input

    Every expert is a copy of the problem's trunk, cut into ``levels`` stages (`steelyard.models.trunk_stages.cut`): its
    stage l is the expert of level l. One level is CGC.

    ``shared``: below the last level everything but the tasks' gates at level L - 1 is reached by every loss, because
    shared experts read all experts one level lower. Each loss comes down by two ways: through the shared experts of
    the last level, and through its own lane, which reads all it needs at the last level but one. So ``shared`` is
    the outputs of all experts at level L - 1 *as the tasks' gates read them* (a copy, from which the shared experts do
    not go on), what those gates take as their own input where that is no raw input, and the outputs of the last
    level's shared experts: none computed from another.

    Options (``ple(levels=2,shared_experts=1,task_experts=1,gate=None)``):
        levels: stages into which the trunk is cut.
        shared_experts: how many experts all tasks share, at each level.
        task_experts: how many each task has to itself, at each level.
        gate: what the gates read: the flattened ``input`` of their level, as in the paper, or ``features``, the mean
            of what they mix; by default the former, unless the network's inputs are no floating-point numbers.

    Parameters beside hard sharing: ``shared_experts + tasks x task_experts`` x the trunk, and the gates.

    Single task: the problem's plain trunk and head, so that the baseline is that of every architecture.

    Deviations: the paper's experts are layers of one width; here they are stages of the trunk, of any kind.

    Source: Tang, Liu, Zhao, Gong, "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning (MTL) Model for
    Personalized Recommendations", RecSys 2020.

    Example:
        >>> from steelyard.models import build
        >>> from steelyard.problems import load_problem
        >>> network = build(load_problem("digits"), ["left", "right"], seed=0, architecture="ple(levels=2)")
        >>> outputs, shared = network(torch.zeros(4, 121))
        >>> type(network).__name__, outputs["left"].shape
        ('PLE', torch.Size([4, 10]))
    """

    trunk: nn.ModuleDict

    def __init__(
        self,
        shared_experts: Sequence[Sequence[nn.Module]],
        task_experts: Sequence[Sequence[Sequence[nn.Module]]],
        shared_mixtures: Sequence[nn.Module],
        task_mixtures: Sequence[Sequence[nn.Module]],
        heads: Mapping[str, nn.Module],
        gates_read: str,
    ) -> None:
        """Experts by ``[level][expert]`` and ``[level][task][expert]``, gates by ``[level]`` and ``[level][task]``."""
        super().__init__(heads)
        self.gates_read = gates_read
        lower = max(len(shared_experts) - 2, 0)  # levels whose task gates every loss reaches
        # By level. What one task's loss alone reaches stands outside the trunk.
        self.trunk = nn.ModuleDict(
            {
                "shared_experts": _lists(shared_experts),
                "task_experts": nn.ModuleList([_lists(level) for level in task_experts[:-1]]),
                "shared_mixtures": nn.ModuleList(shared_mixtures),
                "task_mixtures": _lists(task_mixtures[:lower]),
            }
        )
        self.task_experts = _lists(task_experts[-1])
        self.task_mixtures = _lists(task_mixtures[lower:])

    @classmethod
    def from_problem(
        cls,
        problem: Problem,
        tasks: Sequence[str],
        part: Part,
        *,
        levels: int = 2,
        shared_experts: int = 1,
        task_experts: int = 1,
        gate: str | None = None,
    ) -> PLE:
        whole("ple", "levels", levels)
        whole("ple", "shared_experts", shared_experts)
        whole("ple", "task_experts", task_experts)
        inputs = sample_inputs(problem)
        reads = gate_place("ple", gate, inputs)
        sample = part("trunk", problem.trunk)
        reached = [inputs, *trace(cut("ple", sample, levels, "levels"), inputs)]
        check_cut("ple", type(sample).__name__, reached[1:], "levels")
        widths = [gate_width(reads, before, after) for before, after in pairwise(reached)]

        trunks, own_trunks = build_trunks(problem, tasks, part, shared_experts, task_experts)
        common = [cut("ple", trunk, levels, "levels") for trunk in trunks]
        own = [[cut("ple", trunk, levels, "levels") for trunk in of_task] for of_task in own_trunks]
        mixed, all_mixed = shared_experts + task_experts, shared_experts + len(tasks) * task_experts

        def mixture(name: str, level: int, count: int) -> nn.Module:
            return part(f"gate/{name}/{level}", lambda: Mixture(widths[level], count, reads))

        return cls(
            [[expert[level] for expert in common] for level in range(levels)],
            [[[expert[level] for expert in of_task] for of_task in own] for level in range(levels)],
            [mixture("shared", level, all_mixed) for level in range(levels - 1)],
            [[mixture(f"task/{task}", level, mixed) for task in tasks] for level in range(levels)],
            build_heads(problem, tasks, part),
            reads,
        )

    def forward(self, inputs: Features) -> tuple[dict[str, Tensor], Features]:
        common: Features = inputs
        lanes: list[Features] = [inputs] * len(self.tasks)
        taps: list[Tensor] = []
        *lower, last = self.trunk["shared_experts"].children()
        *gates, last_gates = [*self.trunk["task_mixtures"].children(), *self.task_mixtures]
        levels = zip(
            lower,
            self.trunk["task_experts"].children(),
            self.trunk["shared_mixtures"].children(),
            gates,
            strict=True,
        )
        for level, (shared_experts, task_experts, shared_mixture, mixtures) in enumerate(levels):
            own = _run_lanes(task_experts, lanes)
            stacked = stack([*own, *(run(expert, common) for expert in shared_experts.children())])
            common = shared_mixture(common, stacked)
            if level == len(lower) - 1:  # from here on, lanes are private
                stacked = tap(stacked)
                taps += parts(stacked)
                if level > 0 and self.gates_read == "input":
                    lanes = [tap(lane) for lane in lanes]
                    taps += [tensor for lane in lanes for tensor in parts(lane)]
            each = len(own) // len(self.tasks)
            count = len(parts(stacked)[0])
            lanes = [
                mixture(lane, pick(stacked, [*range(task * each, task * each + each), *range(len(own), count)]))
                for task, (mixture, lane) in enumerate(zip(mixtures.children(), lanes, strict=True))
            ]
        shared = stack([run(expert, common) for expert in last.children()])
        outputs = {}
        for task, lane, experts, mixture, head in zip(
            self.tasks, lanes, self.task_experts, last_gates.children(), self.heads, strict=True
        ):
            own_features = stack([run(expert, lane) for expert in experts.children()])
            outputs[task] = head(mixture(lane, join(own_features, shared)))
        return outputs, (*taps, *parts(shared)) if taps else shared


def _run_lanes(experts: nn.Module, lanes: Sequence[Features]) -> list[Features]:
    """Every task's experts on what the task has so far, task by task."""
    return [run(expert, lane) for own, lane in zip(experts.children(), lanes, strict=True) for expert in own.children()]


def _lists(modules: Sequence[Sequence[nn.Module]]) -> nn.ModuleList:
    return nn.ModuleList([nn.ModuleList(each) for each in modules])
