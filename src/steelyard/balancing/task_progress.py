"""What a ledger has of each task, step by step and over a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass
class TaskProgress:
    """What was measured of one task.

    Attributes:
        steps: steps that were measured.
        hurt: those of them that raised the task's loss, to first order.
        progress: sum over them of what they took off the loss.
        risen: sum of what the hurting ones put on it.
        last: what the last one took off.
    """

    steps: int = 0
    hurt: int = 0
    progress: float = 0.0
    risen: float = 0.0
    last: float = float("nan")

    def add(self, progress: float) -> None:
        """One more step."""
        self.steps += 1
        self.hurt += progress < 0
        self.progress += progress
        self.risen += max(0.0, -progress)
        self.last = progress


@dataclass(frozen=True)
class LedgerSummary:
    """Progress of a run, one entry per task.

    Attributes:
        steps: steps that were measured with the task in them.
        hurt: share of them that raised the task's loss to first order; NaN without any.
        progress: mean of what they took off the loss.
        against: what the hurting ones put on the loss, as a share of all that steps took off and put on.
    """

    tasks: tuple[str, ...]
    steps: tuple[int, ...]
    hurt: tuple[float, ...]
    progress: tuple[float, ...]
    against: tuple[float, ...]

    @classmethod
    def of(cls, entries: Mapping[str, TaskProgress]) -> LedgerSummary:
        """From what was measured, by task."""
        rows = entries.values()
        return cls(
            tuple(entries),
            tuple(row.steps for row in rows),
            tuple(_ratio(row.hurt, row.steps) for row in rows),
            tuple(_ratio(row.progress, row.steps) for row in rows),
            tuple(_ratio(row.risen, row.progress + 2 * row.risen) for row in rows),
        )

    def to_dict(self) -> dict[str, dict[str, float]]:
        """``{task: {"steps": …, "hurt": …, "progress": …, "against": …}}``."""
        rows = zip(self.tasks, self.steps, self.hurt, self.progress, self.against, strict=True)
        return {
            task: {"steps": steps, "hurt": hurt, "progress": progress, "against": against}
            for task, steps, hurt, progress, against in rows
        }

    def __str__(self) -> str:
        width = max(len("task"), *map(len, self.tasks))
        lines = [f"{'task':<{width}}  {'measured':>8}  {'hurt':>6}  {'against':>7}  {'mean progress':>13}"]
        for task, row in self.to_dict().items():
            lines.append(
                f"{task:<{width}}  {row['steps']:>8}  {row['hurt']:>6.1%}  {row['against']:>7.1%}  "
                f"{row['progress']:>13.3g}"
            )
        return "\n".join(lines)


def _ratio(part: float, whole: float) -> float:
    """NaN of nothing."""
    return part / whole if whole > 0 else float("nan")
