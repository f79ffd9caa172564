"""What is no argument, or not of its kind, is refused in own words: for every method where it has a part in it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import steelyard
from cells import every
from steelyard.errors import LossError, MissingInputError, OptionError, SharedError, StateError, SteelyardWarning
from steelyard.method_registry import method_class, method_names, options_of

TASKS = ["a", "b"]


def make(name: str, tasks: Any = TASKS, **options: Any) -> steelyard.Balancer:
    main = {"main": "a"} if "main" in options_of(method_class(name)) else {}
    return steelyard.make(name, tasks, **main, **options)


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.ones(2))], 0.1)


@every("name", method_names())
def test_for_every_method(name: str) -> None:
    with pytest.raises(OptionError, match=r"tasks is a set, whose order differs from run to run: write \['a', 'b'\]"):
        make(name, {"b", "a"})
    with pytest.raises(OptionError, match="every priority is 0, so that nothing would be trained"):
        make(name, priorities={"a": 0, "b": 0.0})
    balancer = make(name)
    with pytest.raises(OptionError, match="takes the gradient scaler, got a float"):
        balancer.attach(optimizer(), 65536.0)
    with pytest.raises(MissingInputError, match=r"observe\(\) was shown nothing"):
        balancer.observe()


@every("name", [each for each in method_names() if not make(each).needs_shared])
def test_counts_that_are_no_mapping(name: str) -> None:
    losses = {task: torch.ones((), requires_grad=True) * 2 for task in TASKS}
    with pytest.raises(LossError, match="counts must map task names to numbers of labels, got Tensor"):
        make(name)(losses, counts=torch.tensor([3, 4]))


@every("name", [each for each in method_names() if list(make(each).buffers())])
def test_a_state_that_was_moved_to_meta_is_gone(name: str) -> None:
    balancer = make(name).to("meta")
    network = nn.Linear(3, 2)
    out = network(torch.ones(4, 3))
    losses = {task: out[:, k].square().mean() for k, task in enumerate(TASKS)}
    with pytest.raises(StateError, match=r"lies on the meta device and has no values: call balancer.to_empty"):
        balancer(losses, shared=network, probes=[losses, losses])


def masks() -> list[tuple[Any, str]]:
    return [
        (torch.ones(4, 3, dtype=torch.bool), r"a mask of shape \[4, 3\] for losses of shape \[3, 4\]"),
        (torch.ones(2, 3, 4, dtype=torch.bool), r"a mask of shape \[2, 3, 4\] for losses of shape \[3, 4\]"),
        (torch.ones(3), r"a mask of shape \[3\] for losses"),
        (torch.arange(12.0).reshape(3, 4) / 12, "several numbers besides 0, which would all count alike"),
        (torch.tensor([0, 1, 2, 2]), "several numbers besides 0"),
        (torch.tensor([1, 1, -100, 1]), "several numbers besides 0"),
        ([True] * 4, "the mask is a list, not a tensor"),
    ]


@pytest.mark.parametrize(("mask", "said"), masks())
def test_masks(mask: Any, said: str) -> None:
    with pytest.raises(LossError, match=said):
        steelyard.masked_mean(torch.ones(3, 4, requires_grad=True), mask)


@pytest.mark.parametrize("mask", [torch.ones(4), torch.ones(3, 1).long(), torch.ones(1, 4).bool(), torch.tensor(True)])
def test_masks_that_broadcast(mask: Tensor) -> None:
    found = steelyard.masked_mean(torch.ones(3, 4, requires_grad=True), mask)
    assert found is not None
    assert found.label_count == 12


def test_features_of_what_is_no_module() -> None:
    with pytest.raises(SharedError, match="takes the module whose output the heads read, got a Tensor"):
        steelyard.features_of(torch.ones(2))  # type: ignore[arg-type]


def training(
    steps: int, mine: Callable[[int], bool], others: Callable[[int], bool], model: Sequence[str] = ()
) -> list[str]:
    """What is said where the attached optimizer steps in some steps and another one in others; `model`: who has it."""
    weight = nn.Parameter(torch.ones(2))
    own, other = (torch.optim.SGD([weight], lr=0.01) if name in model else optimizer() for name in ("own", "other"))
    balancer = make("dwa").attach(own)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(steps):
            balancer({"a": weight.square().sum(), "b": (weight - 2).square().sum()}).backward()
            for each, steps_now in ((own, mine(step)), (other, others(step))):
                if steps_now:
                    each.step()
    return [str(each.message) for each in caught if issubclass(each.category, SteelyardWarning)]


def test_an_optimizer_that_stands_still_while_another_one_steps_is_told_once() -> None:
    (said,) = training(60, lambda step: False, lambda step: True)
    assert "has not stepped in 25 calls, while another optimizer has, so its state stands still" in said


def test_micro_batches_and_several_optimizers_are_no_mistake() -> None:
    assert training(60, lambda step: step % 30 == 29, lambda step: step % 30 == 29) == []  # accumulation
    assert training(60, lambda step: step % 10 == 9, lambda step: True) == []  # a critic's steps in between
    assert training(60, lambda step: False, lambda step: False) == []
    # A critic's step beside each of thirty micro-batches.
    assert training(60, lambda step: step % 30 == 29, lambda step: True, model=["own"]) == []


def test_an_optimizer_whose_place_another_one_has_taken_is_told() -> None:
    (said,) = training(60, lambda step: False, lambda step: True, model=["own", "other"])
    assert "has not stepped in 25 calls, while another optimizer has" in said


def test_a_mask_of_bytes_as_images_have_it_is_a_mask() -> None:
    losses = torch.tensor([1.0, 5.0, 3.0, 9.0])
    assert float(steelyard.masked_mean(losses, torch.tensor([255, 0, 255, 0], dtype=torch.uint8))) == 2.0


def test_no_losses_and_no_mask_are_none() -> None:
    assert steelyard.masked_mean(torch.ones(0), torch.ones(0, dtype=torch.long)) is None


@pytest.mark.parametrize(
    ("shared", "said"),
    [
        (lambda z, trunk: {"z": z}, r"is a dict: pass what it holds, shared=tuple\(features.values\(\)\)"),
        (lambda z, trunk: dict(trunk.named_parameters()), "for parameters pass the module itself, shared=trunk"),
        (
            lambda z, trunk: nn.utils.rnn.pack_sequence([z]),
            "is a PackedSequence: pass the tensor in it, shared=packed.data",
        ),
        (
            lambda z, trunk: torch.nested.nested_tensor([z], layout=torch.jagged),
            r"pass the rows that it holds, shared=z.val",
        ),
    ],
    ids=["dict", "named-parameters", "packed", "nested"],
)
def test_containers_of_features_are_named(shared: Callable[[Tensor, nn.Module], Any], said: str) -> None:
    trunk = nn.Linear(2, 2)
    z = trunk(torch.ones(3, 2))
    with pytest.raises(SharedError, match=said):
        steelyard.make("mgda", ["a", "b"])({"a": z.sum(), "b": z.square().sum()}, shared=shared(z, trunk))


def test_a_stage_stands_in_one_chain() -> None:
    stage = steelyard.EMAScale(0.5)
    steelyard.Chain(stage, steelyard.Equal(["a", "b"]))
    with pytest.raises(OptionError, match="this EMAScale stands in a Chain already"):
        steelyard.Chain(stage, steelyard.Equal(["a", "b"]))
    twice = steelyard.EMAScale(0.5)
    with pytest.raises(OptionError, match="make one for each"):
        steelyard.Chain(twice, twice, steelyard.Equal(["a", "b"]))
