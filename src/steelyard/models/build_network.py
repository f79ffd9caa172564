"""Build a problem's network in any registered architecture, every part from its own seed."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from steelyard.base.specs import Spec, parse_spec
from steelyard.errors import OptionError, UnknownNameError
from steelyard.models.architectures import ARCHITECTURES, HARD_SHARING

if TYPE_CHECKING:
    from steelyard.problems.problem import Problem

Part = TypeVar("Part", bound=nn.Module)


def build(problem: Problem, tasks: Sequence[str], seed: int, architecture: str = HARD_SHARING) -> nn.Module:
    """The network of these tasks, on the CPU; ``network(inputs) -> (outputs by task, shared features)``.

    Every part starts from a seed of (seed, name): the single-task network of a task starts with the same
    trunk and the same head as the network of all tasks. The caller's random state is left alone.

    One task has nothing to share: in every architecture its network is the problem's plain trunk and head.

    Args:
        problem: brings trunk and heads; for some architectures also two rows of data, to learn shapes from.
        tasks: names.
        seed: of the start.
        architecture: ``"mmoe"``, ``"mmoe(experts=8)"``: one of `architecture_names`, with options as a method has them.

    Raises:
        UnknownNameError: nobody registered this architecture or option; names the nearest.
        OptionError: an option's value is refused.
        ArchitectureError: the architecture cannot be built over this trunk.

    Example:
        >>> from steelyard.models import build
        >>> from steelyard.problems import load_problem
        >>> network = build(load_problem("digits"), ["left", "right"], seed=0, architecture="mmoe(experts=2)")
        >>> outputs, shared = network(torch.zeros(4, 121))
        >>> outputs["left"].shape
        torch.Size([4, 10])
    """
    spec = architecture_spec(architecture)
    kind = architecture_class(spec.name if len(tasks) > 1 else HARD_SHARING)
    options = spec.options if len(tasks) > 1 else {}
    network: nn.Module = kind.from_problem(problem, tuple(tasks), partial(seeded_part, seed), **options)
    return network


def architecture_names() -> list[str]:
    """The built-in architectures and those that other packages register as ``steelyard.architectures``.

    Example:
        >>> from steelyard.models import architecture_names
        >>> "cross-stitch" in architecture_names()
        True
    """
    return sorted({*ARCHITECTURES, *(entry.name for entry in entry_points(group="steelyard.architectures"))})


def architecture_spec(text: str) -> Spec:
    """Read ``name`` or ``name(option=value,…)``; ``str()`` of what is returned is the canonical form.

    Raises:
        UnknownNameError, OptionError: as `build`.
    """
    spec = parse_spec(text)
    if spec.stages:
        raise OptionError(f"architecture {text!r}: loss stages go before a method, not before an architecture")
    known = architecture_options(spec.name)
    for option in spec.options:
        if option not in known:
            raise UnknownNameError(f"option of {spec.name}", option, known)
    return spec


def architecture_options(name: str) -> dict[str, object]:
    """The options of an architecture, and their defaults."""
    parameters = inspect.signature(architecture_class(name).from_problem).parameters.values()
    return {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}


def architecture_class(name: str) -> Any:
    """The class behind a registered name."""
    if name in ARCHITECTURES:
        module, _, attribute = ARCHITECTURES[name].partition(":")
        return getattr(import_module(module), attribute)
    for entry in entry_points(group="steelyard.architectures", name=name):
        return entry.load()
    raise UnknownNameError("architecture", name, architecture_names(), "`steelyard architectures` describes them.")


def seeded_part(seed: int, name: str, builder: Callable[[], Part]) -> Part:
    """A part of a network, started from a seed of (seed, name); the caller's random state is left alone."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    # Only the CPU generator: torch.manual_seed would also reseed accelerators, which nothing here restores.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int.from_bytes(digest[:7], "big"))
        return builder()
