"""A window of micro-batches is one running mean: what a balancer holds on to does not grow with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
import torch
from torch import Tensor, nn

import steelyard
from cells import every
from steelyard.base.specs import parse_spec
from steelyard.method_registry import method_class, method_names, options_of

SPECS = [
    name
    for name in (*method_names(), "mgda(memory=rows)", "db-mtl(memory=rows)")
    if method_class(parse_spec(name).name).reads not in ("cross_gramian", "lookahead")
]
"""Methods that bring further batches keep what the others keep."""
TASKS = ["a", "b", "c"]


def _options(name: str) -> dict[str, str]:
    return {"main": "a"} if "main" in options_of(method_class(name)) else {}


def tensors_in(held: object, seen: set[int]) -> Iterator[Tensor]:
    """All tensors that an object holds on to, itself or by way of others."""
    if id(held) in seen:
        return
    seen.add(id(held))
    if isinstance(held, Tensor):
        yield held
        return
    inside = list(held.values()) if isinstance(held, Mapping) else []
    inside += list(held) if isinstance(held, list | tuple | set) else []
    inside += [*getattr(held, "__dict__", {}).values()]
    inside += [getattr(held, name) for name in getattr(type(held), "__slots__", ()) if hasattr(held, name)]
    for each in inside:
        yield from tensors_in(each, seen)


def numbers_held(balancer: nn.Module, *known: object) -> int:
    seen = {id(each) for each in known}
    return sum(tensor.numel() for tensor in tensors_in(balancer, seen))


@pytest.mark.parametrize("place", ["features", "trunk"])
@every("spec", SPECS)
def test_twelve_take_what_two_take(spec: str, place: str) -> None:
    kind = method_class(parse_spec(spec).name)
    if place not in kind.where or (place == "features" and "memory=rows" in spec):
        pytest.skip(f"{spec} is not defined at the {place}")
    torch.manual_seed(0)
    trunk, heads = nn.Linear(20, 10), [nn.Linear(10, 1) for _ in TASKS]
    optimizer = torch.optim.SGD(trunk.parameters(), lr=0.1)
    options = {"main": "a"} if "main" in options_of(kind) else {}
    balancer = steelyard.make(spec, TASKS, **options).attach(optimizer)
    held = []
    for step in range(12):
        z = trunk(torch.randn(4, 20))
        losses = {task: head(z).square().mean() for task, head in zip(TASKS, heads, strict=True)}
        balancer(losses, shared=trunk if place == "trunk" else z).backward()
        if step in (1, 11):
            held.append(numbers_held(balancer, optimizer))
    assert 0 < held[1] <= 1.1 * held[0]


@every("spec", [name for name in method_names() if steelyard.make(name, ["a", "b"], **_options(name)).periodic])
def test_an_epoch_that_ends_before_the_last_step_has_ended(spec: str) -> None:
    """What was called and not yet stepped counts in the next one; the means of the ended one are kept."""
    found = []
    for early in (True, False):
        w = nn.Parameter(torch.ones(2, dtype=torch.float64))
        optimizer = torch.optim.SGD([w], lr=0.0)
        balancer = steelyard.make(spec, ["a", "b"], generator=torch.Generator().manual_seed(0), **_options(spec))
        balancer.attach(optimizer)
        for step, scale in enumerate((8.0, 8.0, 2.0, 2.0, 2.0, 1.0)):
            if step in (2, 4) and not early:
                balancer.end_epoch()
            balancer({"a": scale * w[0] ** 2, "b": w[1] ** 2}, shared=[w]).backward()
            if step in (2, 4) and early:
                balancer.end_epoch()
            optimizer.step()
        found.append({name: value.clone() for name, value in balancer.state_dict().items() if torch.is_tensor(value)})
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), name
