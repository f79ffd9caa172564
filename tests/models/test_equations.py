"""What single architectures promise, held to a plain computation of it."""

import pytest
import torch

from steelyard.models import build
from steelyard.models.architectures.dselect_k import Selector, smooth_step
from steelyard.models.features import run, sample_inputs, stack
from steelyard.problems import Data, Split, load_problem

ROWS = 32


@pytest.fixture(scope="module")
def digits():
    return load_problem("digits")


@pytest.fixture(scope="module")
def inputs(digits):
    return digits.data().train.inputs[:ROWS]


@pytest.mark.parametrize("stages", ["", "stages=1,"])
def test_identity_stitches_are_single_task_networks(digits, inputs, stages):
    network = build(digits, digits.task_names, 3, f"cross-stitch({stages}own=1)")
    outputs, _ = network(inputs)
    for task in digits.task_names:
        alone = build(digits, (task,), 3)(inputs)[0][task]
        torch.testing.assert_close(outputs[task], alone, rtol=1e-6, atol=1e-6)


def test_stitches_start_from_the_single_task_networks_whatever_is_kept(digits, inputs):
    outputs, _ = build(digits, digits.task_names, 3, "cross-stitch(own=0.7)")(inputs)
    alone = build(digits, ("left",), 3)(inputs)[0]["left"]
    torch.testing.assert_close(outputs["left"], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reads", ["input", "features"])
def test_mmoe_is_the_gated_sum_of_its_experts(digits, inputs, reads):
    network = build(digits, digits.task_names, 0, f"mmoe(experts=3,gate={reads})")
    outputs, shared = network(inputs)
    features = [expert(inputs) for expert in network.trunk]
    assert torch.equal(shared, torch.stack(features))
    for task, mixture, head in zip(network.tasks, network.mixtures, network.heads, strict=True):
        read = inputs if reads == "input" else sum(features) / 3
        gate = torch.softmax(read @ mixture.gate.weight.T, dim=1)
        assert torch.allclose(mixture.weights(inputs, shared).sum(1), torch.ones(ROWS))
        mixed = sum(gate[:, e, None] * features[e] for e in range(3))
        torch.testing.assert_close(outputs[task], head(mixed), rtol=1e-5, atol=1e-6)


def test_one_level_of_ple_is_cgc(digits, inputs):
    options = "shared_experts=2,task_experts=2"
    levels = build(digits, digits.task_names, 0, f"ple(levels=1,{options})")
    control = build(digits, digits.task_names, 0, f"cgc({options})")
    for mixture, (one,) in zip(control.mixtures, zip(*levels.task_mixtures, strict=True), strict=True):
        mixture.load_state_dict(one.state_dict())  # gates have other names, hence other seeds
    for task, output in levels(inputs)[0].items():
        torch.testing.assert_close(output, control(inputs)[0][task])


def test_ple_follows_its_equations(digits, inputs):
    network = build(digits, digits.task_names, 0, "ple")
    trunk, gates = network.trunk, network.task_mixtures
    own = [trunk["task_experts"][0][task][0](inputs) for task in (0, 1)]
    common = trunk["shared_experts"][0][0](inputs)
    shared_in = trunk["shared_mixtures"][0](inputs, stack([*own, common]))
    shared_out = trunk["shared_experts"][1][0](shared_in)
    for task, name in enumerate(network.tasks):
        lane = gates[0][task](inputs, stack([own[task], common]))
        out = gates[1][task](lane, stack([network.task_experts[task][0](lane), shared_out]))
        torch.testing.assert_close(network(inputs)[0][name], network.heads[task](out))


def test_mtan_passes_on_masked_features_only(digits, inputs):
    network = build(digits, digits.task_names, 0, "mtan")
    _, (first, second) = network(inputs)
    assert torch.equal(first, network.trunk[0](inputs))
    assert torch.equal(second, network.trunk[1](first))
    for task, head, masks, (carry,) in zip(network.tasks, network.heads, network.masks, network.carries, strict=True):
        kept = first * torch.sigmoid(masks[0].h(masks[0].g(first).relu()))
        read = torch.cat([second, carry(kept)], dim=1)
        kept = second * torch.sigmoid(masks[1].h(masks[1].g(read).relu()))
        torch.testing.assert_close(network(inputs)[0][task], head(kept))
        assert (kept.abs() <= second.abs()).all()


def test_masks_run_over_channels_of_images():
    mask = build(load_images(), ("left", "right"), 0, "mtan").masks[0]
    assert [(part.g.in_features, part.h.out_features, part.dim) for part in mask] == [
        (10, 10, 1),
        (40, 20, 1),
        (100, 50, 1),
    ]


def load_images():
    """Multi-MNIST's network, on two rows that need no file."""
    import copy

    problem = copy.copy(load_problem("multi-mnist"))
    targets = {name: torch.zeros(2, dtype=torch.long) for name in problem.task_names}
    rows = Split(torch.zeros(2, 1, 28, 28, dtype=torch.uint8), targets)
    problem.data = lambda: Data(rows, rows, rows)
    assert sample_inputs(problem).dtype == torch.float32
    return problem


def test_the_smooth_step_is_zero_one_and_smooth_between():
    t = torch.linspace(-1, 1, 401, dtype=torch.float64, requires_grad=True)
    step = smooth_step(t, gamma=1.0)
    (slope,) = torch.autograd.grad(step.sum(), t)
    assert (step[t <= -0.5] == 0).all()
    assert (step[t >= 0.5] == 1).all()
    torch.testing.assert_close(step[200], torch.tensor(0.5, dtype=torch.float64))
    assert (slope >= 0).all()
    assert slope.diff().abs().max() < 0.05  # no kink
    torch.testing.assert_close(slope[200], torch.tensor(1.5, dtype=torch.float64))


@pytest.mark.parametrize(("experts", "k"), [(2, 1), (4, 2), (8, 3)])
def test_selections_add_up_to_one_and_binary_codes_choose_each_expert(experts, k):
    selector = Selector(experts, k, gamma=1.0)
    assert torch.allclose(selector().sum(), torch.tensor(1.0))
    bits = selector.z.shape[1]
    for expert in range(experts):
        code = [1.0 if expert >> bit & 1 else -1.0 for bit in range(bits)]
        selector.z.data[:] = torch.tensor(code)
        assert torch.equal(selector.choices(), torch.eye(experts)[expert].expand(k, experts))


def test_selections_are_hard_at_the_end_of_training(digits):
    network = build(digits, digits.task_names, 0, "dselect-k(entropy=1.0)")
    data = digits.data().train
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    assert all(selector().min() > 0.1 for selector in network.selectors)  # undecided at the start
    for step in range(150):
        rows = torch.arange(step * 64, step * 64 + 64) % len(data.inputs)
        outputs, shared = network(data.inputs[rows])
        loss = sum(digits.task(task).loss(outputs[task], data.targets[task][rows]) for task in outputs)
        optimizer.zero_grad()
        (loss + network.penalty(outputs, shared)).backward()
        optimizer.step()
    for selector in network.selectors:
        choices = selector.choices()
        assert ((choices == 0) | (choices == 1)).all()
        assert (choices.sum(1) == 1).all()
        assert 1 <= (selector() > 0).sum() <= 2
        assert selector.z.grad.eq(0).all()  # beyond the step nothing moves a selection any more
    assert loss.item() < 2


def test_without_entropy_there_is_no_penalty(digits):
    inputs = digits.data().train.inputs[:2]
    networks = [build(digits, digits.task_names, 0, f"dselect-k(entropy={entropy})") for entropy in (0, 0.5)]
    none, penalty = (network.penalty(*network(inputs)) for network in networks)
    assert none is None
    assert penalty.item() == pytest.approx(0.5 * 2 * 2 * torch.tensor(4.0).log().item(), rel=1e-2)


def test_a_trunk_of_two_arguments_is_called_with_both():
    assert run(torch.nn.Bilinear(2, 2, 1), (torch.ones(3, 2), torch.ones(3, 2))).shape == (3, 1)
