"""Where a trunk is cut, and what is said when it cannot be."""

import pytest
import torch
from torch import nn

from steelyard.errors import OptionError
from steelyard.models import ArchitectureError
from steelyard.models.trunk_stages import check_cut, cut


def convolutional():
    first = (nn.Dropout(0.0), nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2))
    second = (nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU()), nn.Flatten())
    return nn.Sequential(*first, *second, nn.Linear(3, 4), nn.LayerNorm(4))


class Declared(nn.Module):
    def __init__(self, whole=True):
        super().__init__()
        self.first, self.second = nn.Bilinear(3, 3, 4), nn.Linear(4, 2)
        self.stages = [self.first, self.second] if whole else [self.first]

    def forward(self, left, right):
        return self.second(self.first(left, right))


@pytest.mark.parametrize(("stages", "layers"), [(None, [5, 1, 3]), (3, [5, 1, 3]), (2, [5, 4]), (1, [1])])
def test_a_sequence_is_cut_before_weights_and_normalisation_stays(stages, layers):
    trunk = convolutional().eval()
    parts = cut("mtan", trunk, stages)
    assert [len(part.layers) for part in parts] == layers
    inputs = torch.randn(2, 1, 8, 8)
    features = inputs
    for part in parts:
        features = part(features)
    assert torch.equal(features, trunk(inputs))
    held = [id(parameter) for part in parts for parameter in part.parameters()]
    assert held == [id(parameter) for parameter in trunk.parameters()]


@pytest.mark.parametrize(
    ("layers", "cuts"),
    [
        ((nn.Flatten(), nn.Linear(9, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU()), [3, 2]),
        ((nn.Conv2d(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 3)), [2, 3, 1]),
        ((nn.Linear(3, 2), nn.Flatten(), nn.ReLU(), nn.Linear(6, 4), nn.Linear(4, 4), nn.Linear(4, 3)), [1, 3, 1, 1]),
    ],
)
def test_a_flattening_goes_with_the_first_layer_behind_it_alone(layers, cuts):
    trunk, inputs = nn.Sequential(*layers), torch.randn(2, 1, 3, 3)
    parts = cut("mtan", trunk, None)
    assert [len(part.layers) for part in parts] == cuts
    features = inputs
    for part in parts:
        features = part(features)
    assert torch.equal(features, trunk(inputs))


def test_declared_stages_are_used_and_must_be_complete():
    trunk = Declared()
    first, second = cut("ple", trunk, None)
    inputs = torch.randn(5, 3), torch.randn(5, 3)
    assert torch.equal(second(first(*inputs)), trunk(*inputs))
    with pytest.raises(ArchitectureError, match=r"Declared.*leave out its parameter 'second.weight'"):
        cut("ple", Declared(whole=False), None)


def test_what_cannot_be_cut_names_the_class_and_the_fix():
    class Residual(nn.Sequential):
        def forward(self, inputs):
            return inputs + super().forward(inputs)

    with pytest.raises(ArchitectureError, match=r"cannot cut a Residual.*`stages`.*write ple\(levels=1\)"):
        cut("ple", Residual(nn.Linear(2, 2), nn.Linear(2, 2)), 2, "levels")
    with pytest.raises(OptionError, match=r"stages=4, but the trunk \(Sequential\) has 3 stages: choose 1 to 3"):
        cut("mtan", convolutional(), 4)
    with pytest.raises(ArchitectureError, match=r"stage 1 of the trunk \(LSTM\) puts out a tuple"):
        check_cut("mtan", "LSTM", [(torch.ones(1),), torch.ones(1)])
