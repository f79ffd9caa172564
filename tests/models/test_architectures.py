"""Every architecture: shapes, what is shared and what is private, same starts, training, and the command."""

import dataclasses

import pytest
import torch
from torch import nn

import steelyard
from cells import every
from steelyard.models import Architecture, ArchitectureError, HardSharing, architecture_names, build
from steelyard.models.build_network import architecture_options
from steelyard.models.features import parts
from steelyard.problems import Data, Problem, Split, load_problem, regression

NAMES = [*architecture_names(), "ple(levels=3,shared_experts=2)", "ple(levels=1)", "cross-stitch(stages=1)"]
NAMES += ["mmoe(gate=features)", "cgc(gate=features)", "ple(levels=3,gate=features)", "amtfl(uncertainty=none)"]


def made_up(tasks, trunk=None, inputs=None, head=None):
    """A problem of random rows."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(24, 6, generator=generator) if inputs is None else inputs
    targets = {f"t{number}": torch.randn(24, generator=generator) for number in range(tasks)}
    split = Split(inputs, targets)

    def default():
        layers = (nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 7), nn.Tanh(), nn.Linear(7, 5), nn.Tanh())
        return nn.Sequential(*layers)

    return Problem(
        name="made-up",
        tasks=[regression(name) for name in targets],
        load=lambda: Data(split, split, split),
        trunk=trunk or default,
        head=head or (lambda task: nn.Linear(5, 1)),
    )


def images(tasks):
    """Images through convolutions, in-place activations and a flattening, as users write them."""

    def trunk():
        first = (nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2))
        second = (nn.Conv2d(4, 3, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(3, 5), nn.ReLU(inplace=True))
        return nn.Sequential(*first, *second)

    return made_up(tasks, trunk, torch.randn(24, 1, 8, 8, generator=torch.Generator().manual_seed(1)))


def losses_of(problem, network, rows=24):
    outputs, shared = network(problem.data().train.inputs[:rows])
    targets = problem.data().train.targets
    losses = {name: problem.task(name).loss(output, targets[name][:rows]) for name, output in outputs.items()}
    return network.reweigh(losses, outputs, shared), shared


def added(network, outputs, shared):
    """The architecture's penalty, 0 where it has none."""
    penalty = network.penalty(outputs, shared)
    return 0 if penalty is None else penalty


def gradients(loss, parameters, **options):
    found = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True, **options)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]


@every("tasks", [1, 2, 5])
@pytest.mark.parametrize("name", NAMES)
def test_outputs_have_the_shape_of_the_heads(name, tasks):
    problem = made_up(tasks)
    network = build(problem, problem.task_names, seed=0, architecture=name)
    assert isinstance(network, HardSharing if tasks == 1 else Architecture)
    outputs, _ = network(problem.data().train.inputs)
    assert {task: output.shape for task, output in outputs.items()} == {f"t{t}": (24, 1) for t in range(tasks)}


@every("make", [made_up, images])
@pytest.mark.parametrize("name", NAMES)
def test_losses_reach_the_trunk_through_shared_alone_and_nothing_else_is_common(name, make):
    problem = make(3)
    network = build(problem, problem.task_names, seed=0, architecture=name).double()
    problem.data().train.inputs = problem.data().train.inputs.double()
    losses, shared = losses_of(problem, network)
    shared = (shared,) if isinstance(shared, torch.Tensor) else shared
    trunk = list(network.trunk.parameters())
    assert trunk
    for loss in losses.values():
        at_shared = gradients(loss, shared)
        through = gradients(shared, trunk, grad_outputs=at_shared)
        for direct, by_way in zip(gradients(loss, trunk), through, strict=True):
            torch.testing.assert_close(direct, by_way, rtol=1e-10, atol=1e-14)

    held = {id(parameter) for parameter in trunk}
    private = [parameter for parameter in network.parameters() if id(parameter) not in held]
    per_task = [gradients(loss, private) for loss in losses.values()]
    penalty = network.penalty(network(problem.data().train.inputs)[0], shared[0] if len(shared) == 1 else shared)
    penalised = [torch.zeros_like(p) for p in private] if penalty is None else gradients(penalty, private)
    for by_penalty, *by_task in zip(penalised, *per_task, strict=True):
        touched = sum((gradient != 0).int() for gradient in by_task)
        assert touched.max() <= 1  # each number belongs to one task
        assert touched.any() or by_penalty.any()


@every("present", [("t0", "t1", "t2"), ("t2", "t0"), ("t1",)])
@every(("method", "where"), [("mgda", "features"), ("db-mtl", "features"), ("mgda", "trunk")])
@pytest.mark.parametrize("name", NAMES)
def test_plain_heads_give_the_trunk_the_weighted_sum_and_heads_their_own(name, method, where, present):
    problem = made_up(3)
    network = build(problem, problem.task_names, seed=0, architecture=name)
    losses, shared = losses_of(problem, network)
    losses = {task: losses[task] for task in present}
    trunk = list(network.trunk.parameters())
    expected = [gradients(loss, trunk) for loss in losses.values()]
    heads = gradients(sum(losses.values()), list(network.heads.parameters()))
    balancer = steelyard.make(method, problem.task_names, heads="plain")
    balancer(losses, shared=shared if where == "features" else network.trunk).backward()
    weights = [balancer.last_weights[problem.task_names.index(task)] for task in present]
    for parameter, *by_task in zip(trunk, *expected, strict=True):
        mixed = sum(weight * gradient for weight, gradient in zip(weights, by_task, strict=True)).float()
        got = torch.zeros_like(mixed) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(got, mixed, rtol=1e-4, atol=1e-6)
    for parameter, gradient in zip(network.heads.parameters(), heads, strict=True):
        if method == "mgda" and parameter.grad is not None:  # db-mtl takes logarithms, in the heads too
            torch.testing.assert_close(parameter.grad, gradient)


@pytest.mark.parametrize("name", NAMES)
def test_db_mtl_averages_rows_at_the_trunk(name):
    problem = made_up(2)
    network = build(problem, problem.task_names, seed=0, architecture=name)
    balancer = steelyard.make("db-mtl", problem.task_names)
    for _ in range(2):
        balancer(losses_of(problem, network)[0], shared=network.trunk).backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.trunk.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_it_trains_on_digits(name):
    problem = load_problem("digits")
    if "levels=3" in name:
        pytest.skip("the trunk of digits has two stages")
    network = build(problem, problem.task_names, seed=0, architecture=name)
    optimizer = problem.optimizer(network.parameters())
    first = None
    for step in range(60):
        rows = torch.arange(step * 128, (step + 1) * 128) % 3968
        outputs, shared = network(problem.data().train.inputs[rows])
        targets = problem.data().train.targets
        losses = {task: problem.task(task).loss(outputs[task], targets[task][rows]) for task in outputs}
        loss = sum(losses.values())
        first = loss.item() if first is None else first
        optimizer.zero_grad()
        (sum(network.reweigh(losses, outputs, shared).values()) + added(network, outputs, shared)).backward()
        optimizer.step()
    assert loss.item() < 0.9 * first
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_start_and_state_dicts_travel(name):
    problem = made_up(2)
    inputs = problem.data().train.inputs
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    network = build(problem, problem.task_names, seed=1, architecture=name)
    assert torch.equal(torch.rand(2), expected)
    again = build(problem, problem.task_names, seed=1, architecture=name)
    other = build(problem, problem.task_names, seed=2, architecture=name)
    outputs = network(inputs)[0]
    assert all(torch.equal(output, again(inputs)[0][task]) for task, output in outputs.items())
    assert all(not torch.equal(output, other(inputs)[0][task]) for task, output in outputs.items())
    other.load_state_dict(network.state_dict())
    assert all(torch.equal(output, other(inputs)[0][task]) for task, output in outputs.items())
    assert network.training


@pytest.mark.parametrize("name", architecture_names())
def test_the_single_task_network_is_the_plain_trunk_and_head(name):
    problem = made_up(2)
    plain = build(problem, ("t1",), seed=4)
    single = build(problem, ("t1",), seed=4, architecture=name)
    both = build(problem, problem.task_names, seed=4, architecture=name)
    assert type(single) is HardSharing
    assert all(torch.equal(value, single.state_dict()[key]) for key, value in plain.state_dict().items())
    for head, parameter in zip(single.heads.parameters(), both.heads[1].parameters(), strict=True):
        assert torch.equal(head, parameter)
    # One of the copies of the trunk starts as the single task's does.
    start = [parameter for parameter in single.trunk.parameters() if parameter.dim() > 1]
    held = list(both.trunk.parameters())
    assert all(any(torch.equal(parameter, other) for other in held) for parameter in start)


@pytest.mark.parametrize("name", architecture_names())
def test_a_trunk_of_several_arguments_and_integers(name):
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.codes, self.rest = nn.Embedding(4, 6), nn.Linear(6, 5)

        def forward(self, numbers, codes):
            return self.rest((numbers + self.codes(codes)).relu())

    inputs = (torch.randn(24, 6), torch.randint(4, (24,)))
    problem = made_up(2, Table, inputs)
    if name in ("ple", "cross-stitch", "mtan"):
        with pytest.raises(ArchitectureError, match=r"cannot cut a Table.*nn.Sequential.*`stages`.*=1\)"):
            build(problem, problem.task_names, seed=0, architecture=name)
        name += "(levels=1)" if name == "ple" else "(stages=1)"
    outputs, _ = build(problem, problem.task_names, seed=0, architecture=name)(inputs)
    assert outputs["t1"].shape == (24, 1)
    if name == "mmoe":
        with pytest.raises(ArchitectureError, match=r"torch.int64.*write mmoe\(gate=features\)"):
            build(problem, problem.task_names, seed=0, architecture="mmoe(gate=input)")


@pytest.mark.parametrize("name", [n for n in architecture_names() if n != "mtan"])
def test_a_trunk_that_puts_out_several_tensors(name):
    class Fork(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(6, 3), nn.Linear(6, 2)

        def forward(self, inputs):
            return self.left(inputs).tanh(), self.right(inputs).tanh()

    class Head(nn.Linear):
        def forward(self, features):
            return super().forward(torch.cat(features, dim=1))

    problem = made_up(2, Fork, head=lambda task: Head(5, 1))
    whole = {"ple": "ple(levels=1)", "cross-stitch": "cross-stitch(stages=1)"}.get(name, name)
    network = build(problem, problem.task_names, seed=0, architecture=whole)
    losses, shared = losses_of(problem, network)
    assert len(shared) == 2
    balancer = steelyard.make("mgda", problem.task_names)
    (balancer(losses, shared=shared) + added(network, network(problem.data().train.inputs)[0], shared)).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mmoee", "Did you mean 'mmoe'"),
        ("mmoe(expert=3)", "unknown option of mmoe 'expert'. Did you mean 'experts'"),
        ("hard-sharing(experts=2)", "unknown option of hard-sharing 'experts'"),
        ("log+mmoe", "loss stages"),
        ("mmoe(experts=0)", "experts=0 must be a whole number of at least 1"),
        ("mmoe(gate=inputs)", "Did you mean 'input'"),
        ("cross-stitch(own=2)", "own=2 must be a number between 0 and 1"),
        ("mtan(stages=4)", "stages=4, but the trunk .Sequential. has 3 stages: choose 1 to 3"),
        ("ple(levels=9)", "levels=9, but"),
        ("dselect-k(experts=3)", "experts=3 must be a power of two"),
        ("dselect-k(k=5)", "k=5 is more than the 4 experts"),
        ("dselect-k(gamma=0)", "gamma=0 must be a finite number above 0"),
        ("amtfl(uncertainty=log)", "Did you mean 'log1p'"),
        ("amtfl(alpha=-1)", "alpha must be at least 0"),
        ("amtfl(passes=1)", "passes=1 must be a whole number of at least 2"),
        ("amtfl(passes=3)", "neither trunk nor heads of 'made-up' have a dropout layer"),
        ("dselect-k(entropy=-1)", "entropy=-1 must be a finite number of at least 0"),
    ],
)
def test_wrong_names_and_options_say_what_to_write(text, message):
    problem = made_up(2)
    with pytest.raises(steelyard.errors.SteelyardError, match=message):
        build(problem, problem.task_names, seed=0, architecture=text)


def test_options_are_listed_with_their_defaults():
    assert architecture_options("mmoe") == {"experts": 4, "gate": None}
    assert architecture_options("hard-sharing") == {}


class _Tokens(nn.Module):
    """A trunk of named inputs, as a tokenizer gives them."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = _Read(), nn.Linear(8, 8), nn.Linear(8, 5)
        self.stages = [self.first, self.second, self.third]

    def forward(self, ids, mask):
        return self.third(self.second(self.first(ids=ids, mask=mask)))


class _Read(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(9, 8)

    def forward(self, ids, mask):
        return (self.words(ids) * mask[..., None]).sum(1)


@pytest.mark.parametrize("kind", [torch.long, torch.float32])
@every("name", [*NAMES, "mtan(stages=1)"])
def test_inputs_by_name(name, kind):
    generator = torch.Generator().manual_seed(0)
    ids, mask = torch.randint(9, (24, 6), generator=generator), torch.ones(24, 6, dtype=kind)
    rows = [({"ids": row, "mask": own}, {"t0": 0.5, "t1": 1.0}) for row, own in zip(ids, mask, strict=True)]
    problem = made_up(2, _Tokens)
    problem = dataclasses.replace(problem, load=lambda: Data(rows, rows, rows))
    network = build(problem, problem.task_names, seed=0, architecture=name)
    outputs, shared = network({"ids": ids, "mask": mask})
    assert {task: tuple(output.shape) for task, output in outputs.items()} == {"t0": (24, 1), "t1": (24, 1)}
    assert all(isinstance(each, torch.Tensor) for each in parts(shared))
