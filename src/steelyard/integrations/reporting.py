"""What the callbacks that report to a study have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from steelyard.errors import ProgramError

Names = Mapping[str, str | Mapping[str, str]]
"""Of each task the name of its metric among what a trainer gives, or such names by metric."""


class Reporting(Protocol):
    """What `steelyard.trial` gives, as far as it is needed here."""

    tasks: tuple[str, ...]

    @property
    def should_stop(self) -> bool:
        """No further epoch is wanted."""

    def start(self, network: Any) -> None:
        """Show what the network starts from."""

    def report(self, epoch: int, validation: Any, test: Any, network: Any = None) -> bool:
        """Say what an epoch has brought."""


def values_of(trial: Reporting, given: Mapping[str, Any], names: Names, hint: Callable[[str], str]) -> dict[str, Any]:
    """The values under these names, of the tasks that are trained.

    Raises:
        ProgramError: nothing is given under one of them; `hint` says of it what to do.
    """

    def value(name: str) -> Any:
        if name not in given:
            raise ProgramError(f"{hint(name)}; there are {', '.join(sorted(given)) or 'none'}")
        return given[name]

    return {
        task: value(name) if isinstance(name, str) else {metric: value(each) for metric, each in name.items()}
        for task, name in names.items()
        if task in trial.tasks
    }
