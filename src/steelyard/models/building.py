"""Build a problem's network in any registered architecture, every part from its own seed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from steelyard.errors import UnknownNameError

if TYPE_CHECKING:
    from steelyard.problems.problem import Problem

# part(name, builder) -> the built module, started from a seed of (seed, name)
Part = Callable[[str, Callable[[], nn.Module]], nn.Module]

# An architecture: a class with `from_problem(problem, tasks, part)`; forward returns (outputs, features).
ARCHITECTURES = {
    "hard-sharing": "steelyard.models.hard_sharing:HardSharing",
}


def build(problem: Problem, tasks: Sequence[str], seed: int, architecture: str = "hard-sharing") -> nn.Module:
    """The network of these tasks, on the CPU; ``network(inputs) -> (outputs by task, features)``.

    Trunk and heads start from seeds of (seed, name): the single-task network of a task starts with the same
    trunk and the same head as the network of all tasks. The caller's random state is left alone.
    """
    kind = _architecture(architecture)
    network: nn.Module = kind.from_problem(problem, tuple(tasks), partial(_seeded, seed))
    return network


def architecture_names() -> list[str]:
    """The built-in architectures and those that other packages register as ``steelyard.architectures``."""
    return sorted({*ARCHITECTURES, *(entry.name for entry in entry_points(group="steelyard.architectures"))})


def _architecture(name: str) -> Any:
    if name in ARCHITECTURES:
        module, _, attribute = ARCHITECTURES[name].partition(":")
        return getattr(import_module(module), attribute)
    for entry in entry_points(group="steelyard.architectures", name=name):
        return entry.load()
    raise UnknownNameError("architecture", name, architecture_names())


def _seeded(seed: int, name: str, builder: Callable[[], nn.Module]) -> nn.Module:
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    # Only the CPU generator: torch.manual_seed would also reseed accelerators, which nothing here restores.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int.from_bytes(digest[:7], "big"))
        return builder()
