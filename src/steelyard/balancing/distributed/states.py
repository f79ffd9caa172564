"""The state of a balancer, made one over the ranks."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from steelyard.balancing.distributed.ranks import Ranks, ranks_of
from steelyard.base.method import Method
from steelyard.base.options import Guards
from steelyard.base.state import Declaration, Stateful
from steelyard.errors import StateError
from steelyard.gradients.shared_option import Place


def meet(ranks: Ranks, balancer: Method, place: Place | None) -> None:
    """Before the first step together: check that the ranks balance the same, and take the first one's state.

    As wrappers do with a model's parameters: a checkpoint that only the first rank has loaded is everybody's, and
    random methods draw the same numbers.

    Raises:
        StateError: method, tasks, options, or the place where gradients are read differ.
    """
    found = ranks.gather(_described(balancer, place))
    (first, expected), *others = found
    for rank, description in others:
        for what, value in expected.items():
            theirs = description.get(what, "something else")
            if theirs != value:
                raise StateError(
                    f"the ranks balance differently: {what} is {value} on rank {first} and {theirs} on rank {rank}. "
                    "Make and call the balancer with the same arguments on all ranks"
                )
    parts = (*balancer.loss_stages(), balancer)
    values = [_values(part) for part in parts]
    kinds = [{name: (tuple(value.shape), value.dtype) for name, value in each.items()} for each in values]
    extra, firsts = ranks.first((balancer.get_extra_state(), kinds))
    for part, mine, kind, first in zip(parts, values, kinds, firsts, strict=True):
        state = part.working_state()
        for name, value in mine.items():
            shape, dtype = first[name]
            taken = value.clone() if kind[name] == first[name] else value.new_empty(shape, dtype=dtype)
            setattr(state, name, ranks.first_tensor(taken) if taken.numel() else taken)
        part.commit(state)
    balancer.set_extra_state(extra)


def _described(balancer: Method, place: Place | None) -> dict[str, str]:
    stages = "+".join(type(stage).__name__ for stage in balancer.loss_stages())
    where = "not needed" if place is None else str(place)
    described = {
        "the method": balancer.name,
        "the list of tasks": ", ".join(balancer.tasks),
        "the row of loss stages": stages or "empty",
    }
    for part in (balancer, *balancer.loss_stages()):
        owner = "" if part is balancer else f"{type(part).__name__} "
        described.update((f"{owner}{name}=", str(value)) for name, value in _options(part))
    return {**described, "shared=": where}


def _options(part: Stateful) -> Iterator[tuple[str, Any]]:
    """The arguments that it keeps under their names; what is no plain value (a generator, a group) is the process's."""
    arguments = {name for cls in type(part).__mro__ for name in inspect.signature(cls).parameters}
    for name, value in vars(part).items():
        if isinstance(value, Guards) or (name in arguments and _is_plain(value)):
            yield name, value


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_is_plain(each) for each in value.values())
    if isinstance(value, tuple | list):
        return all(_is_plain(each) for each in value)
    return value is None or isinstance(value, bool | int | float | str)


def _values(part: Stateful) -> dict[str, Tensor]:
    """The declared values that the balancer keeps itself, on the device where they live."""
    state = part.working_state()
    parameters = dict(part.named_parameters(recurse=False))
    names = [declaration.name for declaration in part.declarations()]
    return {name: getattr(state, name).contiguous() for name in names if name not in parameters}


def synchronise(method: Method) -> None:
    """Make the ranks' states one, each declared value by its own reduction.

    For ranks that trained apart (local steps between synchronisations) or resumed from different checkpoints: those of
    ``process_group=``, or all. ``"mean"``, ``"sum"`` and ``"max"`` combine the ranks, a mean those that have seen the
    task; ``"first"`` takes the first rank's; ``"same"`` declares that ranks never differ, and is checked. Weights in
    Parameters are the outside optimizer's and left to it.

    Raises:
        StateError: no process group is initialised, a value declared ``"same"`` differs, or the ranks' values have
            different sizes. Nothing has changed then, on any rank.

    Cost: one collective per declared value, two for ``"same"``, and one slow one.
    """
    if not dist.is_available() or not dist.is_initialized():
        raise StateError(
            "synchronise() joins the ranks of a process group: call torch.distributed.init_process_group first"
        )
    ranks = ranks_of("exact", method.process_group)
    if ranks is None:
        return
    parts = (*method.loss_stages(), method)
    _check_sizes(ranks, method, parts)
    made = []
    for part in parts:
        state = part.working_state()
        for declaration in part.declarations():
            if declaration.name not in part._parameters:
                value = getattr(state, declaration.name).clone(memory_format=torch.contiguous_format)
                setattr(state, declaration.name, _reduced(ranks, method, declaration, value))
        made.append(state)
    for part, state in zip(parts, made, strict=True):
        part.commit(state)


def _check_sizes(ranks: Ranks, method: Method, parts: Sequence[Stateful]) -> None:
    sizes = {name: tuple(value.shape) for part in parts for name, value in _values(part).items()}
    (first, expected), *others = ranks.gather(sizes)
    for rank, found in others:
        for name in sorted(expected.keys() | found.keys()):
            if found.get(name) != expected.get(name):
                raise StateError(
                    f"{method.name}'s {name!r} has the shape {expected.get(name)} on rank {first} and "
                    f"{found.get(name)} on rank {rank}: make the balancer with the same arguments on all ranks, and "
                    "call synchronise() once each has taken a step"
                )


def _reduced(ranks: Ranks, method: Method, declaration: Declaration, value: Tensor) -> Tensor:
    if declaration.reduce == "first":
        return ranks.first_tensor(value)
    if declaration.reduce == "max":
        dist.all_reduce(value, dist.ReduceOp.MAX, group=ranks.group)
        return value
    if declaration.reduce == "sum":
        return ranks.sum(value)
    if declaration.reduce == "mean":
        if not math.isnan(declaration.default):
            return ranks.sum(value) / ranks.size
        known = ~value.isnan()  # NaN stands for a task that a rank has not seen
        total, count = ranks.sum(torch.stack([value.nan_to_num(0.0), known.to(value)]))
        mean: Tensor = total / count
        return mean
    first = ranks.first_tensor(value.clone())
    differs = value.new_tensor(float(not torch.equal(first.nan_to_num(), value.nan_to_num())))
    if ranks.sum(differs).item():
        raise StateError(
            f"the ranks disagree on {method.name}'s {declaration.name!r}, which is declared the same on all: load one "
            "checkpoint on every rank"
        )
    return value
