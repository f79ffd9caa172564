"""A second backward pass of one result is told in own words, or is exact where the graph was retained."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import steelyard
from cells import every
from steelyard.errors import LossError
from steelyard.method_registry import method_class, method_names, options_of

TASKS = ["a", "b"]
TOLD = r"called on this result of a balancer already.*call the balancer again.*give the first retain_graph=True"


Mode = tuple[str, str, str]
"""A method, the place where it reads, and its heads."""


def build(name: str, heads: str = "") -> steelyard.Balancer:
    main = {"main": "a"} if "main" in options_of(method_class(name)) else {}
    return steelyard.make(name, TASKS, **main, **({"heads": heads} if heads else {}))


def modes() -> list[Mode]:
    """Every registered method at every place, but for those that bring further batches: the same code carries these."""
    found = []
    for name in method_names():
        balancer = build(name)
        if balancer.reads in ("cross_gramian", "lookahead"):
            continue
        for place in sorted(balancer.where) if balancer.needs_shared else ["nowhere"]:
            looks = [place, "last"] if place == "features" and balancer.reads in ("norms", "gramian") else [place]
            for heads in ["weighted", "plain"] if balancer.needs_shared and balancer.reads != "rows" else [""]:
                found += [(name, look, heads) for look in looks]
    return found


SOME: list[Mode] = [
    ("uw", "nowhere", ""),
    ("mgda", "features", "plain"),
    ("mgda", "last", "weighted"),
    ("mgda", "trunk", "plain"),
    ("graddrop", "features", ""),
    ("moco", "trunk", ""),
]


class Training:
    def __init__(self) -> None:
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
        self.heads = nn.ModuleDict({task: nn.Linear(4, 1) for task in TASKS})
        self.optimizer = torch.optim.SGD([*self.trunk.parameters(), *self.heads.parameters()], 0.1)
        self.x = torch.randn(5, 3)

    def losses(self) -> tuple[dict[str, Tensor], Tensor]:
        features = self.trunk(self.x)
        return {task: (head(features) - 1).square().mean() for task, head in self.heads.items()}, features

    def result(self, mode: Mode, attached: bool = False) -> Tensor:
        name, place, heads = mode
        balancer = build(name, heads)
        if attached:
            balancer.attach(self.optimizer)
        losses, features = self.losses()
        shared = {"nowhere": None, "trunk": self.trunk}.get(place, features)
        result: Tensor = balancer(losses, shared=shared, look="last" if place == "last" else None)
        return result

    def gradients(self) -> list[Tensor]:
        return [each.grad.clone() for group in self.optimizer.param_groups for each in group["params"]]


def again(training: Training, result: Tensor, retain_graph: bool = False) -> None:
    result.backward(retain_graph=retain_graph)
    result.backward(retain_graph=retain_graph)


def after_the_step(training: Training, result: Tensor) -> None:
    result.backward()
    training.optimizer.step()
    result.backward()


def in_a_sum(training: Training, result: Tensor) -> None:
    result.backward()
    (2 * result + sum(each.square().sum() for each in training.trunk.parameters())).backward()


def by_grad(training: Training, result: Tensor) -> None:
    parameters = list(training.trunk.parameters())
    torch.autograd.grad(result, parameters)
    torch.autograd.grad(result, parameters)


def of_all_after_one_head(training: Training, result: Tensor) -> None:
    torch.autograd.grad(result, list(training.heads["a"].parameters()))
    result.backward()


@every("mode", modes(), ids="-".join)
def test_it_is_told_what_happened_and_what_to_write(mode: Mode) -> None:
    training = Training()
    result = training.result(mode)
    again(training, result, retain_graph=True)
    with pytest.raises(LossError, match=TOLD):
        again(training, result)


@pytest.mark.parametrize("twice", [again, after_the_step, in_a_sum, by_grad, of_all_after_one_head])
@pytest.mark.parametrize("attached", [False, True], ids=["", "attached"])
@every("mode", SOME, ids="-".join)
def test_however_it_comes_about(twice: Callable[..., None], mode: Mode, attached: bool) -> None:
    training = Training()
    with pytest.raises(LossError, match=TOLD):
        twice(training, training.result(mode, attached))


@pytest.mark.parametrize("mode", SOME, ids="-".join)
def test_a_graph_that_was_retained_gives_the_same_again(mode: Mode) -> None:
    training = Training()
    result = training.result(mode)
    result.backward(retain_graph=True)
    once = training.gradients()
    result.backward()
    torch.testing.assert_close(training.gradients(), [2 * each for each in once])


@pytest.mark.parametrize("mode", SOME, ids="-".join)
def test_heads_one_after_the_other_need_no_graph_twice(mode: Mode) -> None:
    """Each pass goes through one loss alone: what the other passes have freed it does not need."""
    training = Training()
    result = training.result(mode)
    for head in training.heads.values():
        assert all(each.isfinite().all() for each in torch.autograd.grad(result, list(head.parameters())))


def test_a_step_that_moves_nothing_may_go_backward_as_often_as_one_likes() -> None:
    training = Training()
    losses = {task: loss * float("nan") for task, loss in training.losses()[0].items()}
    again(training, steelyard.make("uw", TASKS, on_nonfinite="skip_step")(losses))


def test_the_graph_of_a_loss_is_torchs_and_so_are_its_words() -> None:
    """The user's own backward pass through a loss, before ours or after it, meets no node of ours."""
    training = Training()
    losses, _ = training.losses()
    build("uw")(losses).backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        losses["a"].backward()
    hidden = torch.tensor(1.0, requires_grad=True).exp()  # that is carried from batch to batch
    balancer = build("uw")
    first, second = (balancer({n: loss * hidden for n, loss in training.losses()[0].items()}) for _ in range(2))
    first.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        second.backward()


def test_where_gradients_are_read_a_hidden_state_that_was_not_detached_is_named() -> None:
    training, balancer = Training(), build("mgda")
    hidden = training.trunk(training.x)
    for told in (False, True):
        hidden = (hidden + training.trunk(training.x)).tanh()
        losses = {task: (head(hidden) - 1).square().mean() for task, head in training.heads.items()}
        if not told:
            balancer(losses, shared=training.trunk).backward()
            continue
        with pytest.raises(LossError, match=r"the graph of a loss is gone.*a hidden state.* wants \.detach\(\)"):
            balancer(losses, shared=training.trunk)
