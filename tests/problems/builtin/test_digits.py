"""The digits problem: real images, disjoint pools, learnable."""

import torch

from steelyard.problems import load_problem
from steelyard.problems.builtin.digits import OFFSET, POOLS, load


def test_a_digit_of_one_pool_never_appears_in_another_split():
    # The top rows of the canvas hold the left digit alone, so distinct ones identify the digit images.
    data = load()
    seen = {}
    for name, split in data.splits().items():
        canvas = split.inputs.view(-1, 8 + OFFSET, 8 + OFFSET)
        seen[name] = {tuple(row.tolist()) for row in canvas[:, :OFFSET].flatten(1)}
        assert len(split) == POOLS[name][1]
        assert len(seen[name]) > 0.9 * POOLS[name][0]
    assert not seen["train"] & seen["test"]
    assert not seen["train"] & seen["validation"]
    assert not seen["validation"] & seen["test"]


def test_loading_twice_gives_the_same_data_whatever_the_random_state():
    first = load()
    torch.manual_seed(99)
    second = load()
    assert torch.equal(first.train.inputs, second.train.inputs)
    assert torch.equal(first.test.targets["right"], second.test.targets["right"])


def test_both_digits_can_be_learnt_but_not_perfectly():
    problem = load_problem("digits")
    data = problem.data()
    from steelyard.models import build

    network = build(problem, problem.task_names, seed=0)
    optimizer = problem.optimizer(network.parameters())
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        for rows in torch.randperm(len(data.train), generator=generator).split(problem.batch_size):
            outputs, _ = network(data.train.inputs[rows])
            losses = [task.loss(outputs[task.name], data.train.targets[task.name][rows]) for task in problem.tasks]
            optimizer.zero_grad()
            sum(losses).backward()
            optimizer.step()
    outputs, _ = network(data.test.inputs)
    for task in problem.tasks:
        accuracy = task.metrics[0].function(outputs[task.name].detach(), data.test.targets[task.name])
        assert 0.75 < accuracy < 0.97, f"{task.name}: {accuracy}"
