"""`features_of`: the tensor that the heads read, from inside a network that does not return it."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import steelyard
from steelyard.errors import SharedError


class Detector(nn.Module):
    """Returns losses by name and keeps its features to itself."""

    def __init__(self, levels: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Linear(5, 4) if levels == 1 else Pyramid()
        self.heads = nn.ModuleDict({"boxes": nn.Linear(4, 2), "classes": nn.Linear(4, 3)})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        z = self.backbone(x)
        z = z if isinstance(z, Tensor) else z["0"] + z["1"]
        return {name: head(z).square().mean() for name, head in self.heads.items()}


class Pyramid(nn.Module):
    """Returns its levels by name, the last one made from the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.ModuleList([nn.Linear(5, 4), nn.Linear(5, 4)])

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        first, second = (level(x) for level in self.levels)
        return {"0": first, "1": second, "pool": second.relu()}


def gradients(detector: Detector, shared) -> list[Tensor]:
    detector.zero_grad()
    balancer = steelyard.make("upgrad", ["boxes", "classes"])
    losses = detector(torch.linspace(-1, 1, 30).reshape(6, 5))
    balancer(losses, shared=shared()).backward()
    return [parameter.grad.clone() for parameter in detector.parameters()]


def test_it_is_the_tensor_that_the_heads_read() -> None:
    detector = Detector()
    features = steelyard.features_of(detector.backbone)
    hidden = gradients(detector, features)
    kept: list[Tensor] = []
    detector.backbone.register_forward_hook(lambda module, inputs, output: kept.append(output))
    assert all(torch.equal(a, b) for a, b in zip(hidden, gradients(detector, kept.pop), strict=True))


def test_several_tensors_are_picked() -> None:
    detector = Detector(levels=2)
    picked = steelyard.features_of(detector.backbone, pick=lambda levels: (levels["0"], levels["1"]))
    assert all(gradient.abs().max() > 0 for gradient in gradients(detector, picked))
    everything = steelyard.features_of(detector.backbone, pick=lambda levels: list(levels.values()))
    with pytest.raises(SharedError, match="computed from another tensor"):
        gradients(detector, everything)


def test_features_are_asked_for_once_per_pass() -> None:
    detector = Detector()
    features = steelyard.features_of(detector.backbone)
    with pytest.raises(SharedError, match="Linear has not run with gradients"):
        features()
    with torch.no_grad():
        detector(torch.ones(2, 5))
    with pytest.raises(SharedError, match="run the model first"):
        features()
    detector(torch.ones(2, 5))
    assert features().shape == (2, 4)
    with pytest.raises(SharedError, match="once per forward pass"):
        features()
    features.remove()
    detector(torch.ones(2, 5))
    with pytest.raises(SharedError):
        features()


class TestPassesThatCount:
    """A pass counts while losses may come through it; two of them have no one tensor that all heads read."""

    def setup_method(self) -> None:
        torch.manual_seed(0)
        self.trunk, self.head = nn.Sequential(nn.Linear(5, 4), nn.Tanh()), nn.Linear(4, 1)
        self.features = steelyard.features_of(self.trunk)
        self.x = torch.ones(2, 5)

    def loss(self) -> Tensor:
        return self.head(self.trunk(self.x)).sum()

    @pytest.mark.parametrize("wrap", [lambda z: z, lambda z: (z, 1), lambda z: {"z": z}, lambda z: [[z]]])
    def test_two_passes_for_one_set_of_losses_are_refused(self, wrap) -> None:
        self.trunk.register_forward_hook(lambda module, inputs, output: wrap(output), prepend=True)
        kept = [self.trunk(self.x), self.trunk(2 * self.x)]
        with pytest.raises(SharedError, match=r"Sequential has run 2 times with gradients.*one batch.*shared=trunk"):
            self.features()
        del kept

    def test_also_where_only_the_losses_are_kept(self) -> None:
        first, second = self.loss(), self.loss()
        with pytest.raises(SharedError, match="has run 2 times"):
            self.features()
        assert (first + second).requires_grad

    def test_a_warm_up_and_passes_without_gradients_do_not_count(self) -> None:
        self.loss()
        with torch.no_grad():
            kept = self.trunk(self.x)
        output = self.trunk(self.x)
        assert self.features() is output
        assert not kept.requires_grad

    def test_passes_of_steps_that_did_not_ask_do_not_count(self) -> None:
        kept = [self.loss() for _ in range(1)]
        kept[0].backward()
        for _ in range(3):
            loss = self.loss()
            loss.backward()
        output = self.trunk(self.x)
        assert self.features() is output

    def test_what_checkpointing_runs_again_does_not_count(self) -> None:
        for _ in range(3):
            # The head is inside the block: run again, it goes on behind the trunk, and does not stop within it.
            loss = checkpoint(lambda x: self.head(self.trunk(x)).square(), self.x, use_reentrant=False).sum()
            assert self.features().shape == (2, 4)
            loss.backward()
        with pytest.raises(SharedError, match="has not run with gradients"):
            self.features()


def test_an_output_that_is_no_tensor_is_refused_by_name() -> None:
    class Encoder(nn.Linear):
        def forward(self, x: Tensor):
            return self.wrap(super().forward(x))

    encoder = Encoder(2, 3)
    features = steelyard.features_of(encoder)
    encoder.wrap = lambda hidden: SimpleNamespace(last_hidden_state=hidden, pooled=hidden.mean())
    encoder(torch.ones(1, 2))
    assert features().shape == (1, 3)
    encoder.wrap = lambda hidden: {"hidden": hidden}
    encoder(torch.ones(1, 2))
    with pytest.raises(SharedError, match=r"Encoder returns a dict, not a tensor: .*pick="):
        features()


def test_a_model_is_copied_between_its_forward_pass_and_the_call() -> None:
    module = torch.nn.Linear(3, 2)
    features = steelyard.features_of(module)
    output = module(torch.ones(4, 3))
    twin = copy.deepcopy(module)  # as averages of weights do
    assert features() is output
    assert torch.equal(twin.weight, module.weight)
