"""Tasks with rows of their own: one task to a batch, shared out as asked, each trained on its own rows alone."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import steelyard
from steelyard.errors import PlanError, ProblemError, SharedError, UnknownNameError
from steelyard.problems import Data, Problem, Split, regression
from steelyard.study import plan
from steelyard.study.training.sampling import order_of, shared_out, steps_of, used_rows
from steelyard.study.training.train import train
from steelyard.study.trial import Trial

torch.set_num_threads(1)
SIZES = {"large": 100, "small": 20, "tiny": 3}


def rows_of(name, seed, rows):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 4, generator=generator)
    return Split(x, {name: x[:, len(name) % 4]})


def part(seed, wrap=lambda split, name: split):
    return {name: wrap(rows_of(name, seed, rows), name) for name, rows in SIZES.items()}


def made(*parts, **options):
    parts = parts or tuple(part(seed) for seed in range(3))
    return Problem(
        "apart",
        tasks=[regression(name) for name in SIZES],
        load=lambda: Data(*parts),
        trunk=lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU()),
        head=lambda task: nn.Linear(8, task.outputs),
        batch_size=8,
        shared="trunk",
        **options,
    )


def trial(method="equal", tasks=tuple(SIZES), **options):
    kept = tuple((task, 1.0) for task in sorted(tasks))
    scale = None if method == "single-task" else "sum"
    return Trial("apart", method, tasks, 1, kept, epochs=2, batch_size=8, scale=scale, **options)


def order(sampling, epoch=1, **options):
    problem = made()
    rows = problem.data().train
    used = used_rows({task.name: rows.labelled(task) for task in problem.tasks})
    found = list(order_of(rows, used, 8, 0, epoch, sampling=sampling, **options))
    assert len(found) == steps_of(rows, used, 8, options.get("least", 0))
    return rows, found


def drawn(rows, batches):
    counts = dict.fromkeys(SIZES, 0)
    for batch in batches:
        (whose,) = [
            name for name, here in rows.sections.items() if here.start <= batch.min() and batch.max() < here.stop
        ]
        counts[whose] += 1
    return counts


def test_by_size_every_row_is_drawn_once_an_epoch():
    rows, batches = order("size")
    assert torch.equal(torch.cat(batches).sort().values, torch.arange(sum(SIZES.values())))
    assert drawn(rows, batches) == {"large": 13, "small": 3, "tiny": 1}
    others = order("size", epoch=2)[1]
    assert [len(batch) for batch in batches] != [len(batch) for batch in others]  # the tasks' order is drawn


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        ("even", {"large": 6, "small": 6, "tiny": 5}),
        ("temperature(2)", {"large": 9, "small": 5, "tiny": 3}),
    ],
)
def test_other_samplings_share_out_as_many_batches(sampling, expected):
    rows, batches = order(sampling)
    assert drawn(rows, batches) == expected


def test_more_steps_are_whole_passes():
    rows, batches = order("size", least=18)
    assert drawn(rows, batches) == {"large": 26, "small": 6, "tiny": 2}


def test_shares_are_whole_at_least_one_and_add_up():
    for sampling in ("size", "even", "temperature(3)"):
        for sizes in ([1], [1, 1000], [5, 5, 5], [1, 2, 3, 4, 300]):
            for total in (sum(sizes), 3 * sum(sizes)):
                shares = shared_out(total, sizes, sampling)
                assert sum(shares) == total
                assert min(shares) >= 1


def test_a_single_task_network_is_that_of_its_rows_alone():
    """Its rows are drawn as from a set of their own, but for the order, which is drawn over the rows of all."""
    alone = train(trial("single-task", ("small",)), made())
    assert alone.steps == 2 * 3
    changed = tuple({**part(seed), "large": rows_of("large", 99, 100)} for seed in range(3))
    assert train(trial("single-task", ("small",)), made(*changed)).test == alone.test


def test_a_joint_step_is_the_loss_of_one_task_on_its_own_rows():
    """By hand: the same batches, the plain loss of each, the problem's optimizer."""
    from steelyard.models import build
    from steelyard.study.training.training_rows import Material

    problem = made()
    result = train(dataclasses.replace(trial(), epochs=1), problem)
    network = build(problem, problem.task_names, seed=1)
    optimizer = problem.optimizer(network.parameters())
    data = problem.data().train
    losses = {name: [] for name in SIZES}
    for batch in Material.of(problem, problem.tasks, 1).order(8, 1):
        name = next(name for name, here in data.sections.items() if here.start <= batch.min() < here.stop)
        own, numbers = data.parts[name], batch - data.sections[name].start
        loss = problem.task(name).loss(network(own.inputs[numbers])[0][name], own.targets[name][numbers])
        losses[name].append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    means = {name: [sum(each) / len(each)] for name, each in losses.items()}
    assert result.curves.losses == {name: pytest.approx(mean, rel=1e-5) for name, mean in means.items()}


def test_every_method_that_takes_one_task_per_batch_trains(recwarn):
    for method in ("uw", "dwa", "imtl-l", "pcgrad(memory=rows)"):
        shared = "trunk" if steelyard.make(method, list(SIZES)).needs_shared else None
        assert train(dataclasses.replace(trial(method, shared=shared), epochs=1), made()).steps == 17
    with pytest.raises(SharedError, match="put several tasks into a batch"):
        train(trial("pcgrad", shared="trunk"), made())


class Pairs:
    def __init__(self, split, name):
        self.split, self.name = split, name

    def __len__(self):
        return len(self.split)

    def __getitem__(self, row):
        return self.split.inputs[row], {self.name: self.split.targets[self.name][row]}


def test_each_part_may_be_a_dataset_or_a_loader_with_workers():
    expected = train(trial(), made())
    datasets = tuple(part(seed, Pairs) for seed in range(3))
    with_workers = {**datasets[0], "large": DataLoader(datasets[0]["large"], num_workers=1, batch_size=8)}
    for train_part in (datasets[0], with_workers):
        found = train(trial(), made(train_part, *datasets[1:]))
        assert (found.test, found.curves.losses) == (expected.test, expected.curves.losses)


def test_inputs_may_differ_in_shape():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.short, self.long = nn.Linear(2, 8), nn.Linear(5, 8)

        def forward(self, x):
            return self.short(x) if x.shape[1] == 2 else self.long(x)

    widths = {"large": 2, "small": 5, "tiny": 2}
    parts = [
        {n: Split(torch.randn(SIZES[n], w), {n: torch.randn(SIZES[n])}) for n, w in widths.items()} for _ in range(3)
    ]
    assert train(trial(), dataclasses.replace(made(*parts), trunk=Both)).steps == 34


def planned(monkeypatch, problem, **options):
    problem.reference = "apart"
    monkeypatch.setattr("steelyard.study.planning.make_plan.load_problem", lambda name: problem)
    return plan("apart", ["single-task", "equal"], seeds=1, epochs=1, **options)


def test_a_plan_says_the_steps_of_each_network_and_how_batches_are_drawn(monkeypatch):
    found = planned(monkeypatch, made(), sampling="even")
    assert found.settings[0].steps == {"": 17, "large": 13, "small": 3, "tiny": 1}
    assert "batches of one task each, drawn by even" in found.notes
    assert {trial.sampling for trial in found.trials if len(trial.tasks) == 3} == {"even"}
    assert {trial.sampling for trial in found.trials if len(trial.tasks) == 1} == {"size"}
    assert [task.train_rows for task in found.tasks] == list(SIZES.values())


def test_what_does_not_fit_is_refused_by_name(monkeypatch):
    with pytest.raises(ProblemError, match="no rows of task 'tiny'"):
        made(*({n: p for n, p in part(seed).items() if n != "tiny"} for seed in range(3))).data()
    with pytest.raises(UnknownNameError, match="larg"):
        made(*({**part(seed), "larg": rows_of("larg", 0, 3)} for seed in range(3))).data()
    with pytest.raises(ProblemError, match="sampling='odd'"):
        made(sampling="odd")
    together = Split(torch.randn(20, 4), {name: torch.randn(20) for name in SIZES})
    with pytest.raises(PlanError, match="share their rows"):
        planned(monkeypatch, made(together, together, together), sampling="even")


def test_a_single_task_network_is_evaluated_on_its_own_rows_alone():
    """139 tasks apart would else be 139 passes over all rows."""
    read = []

    class Counted(Pairs):
        def __getitem__(self, row):
            read.append(self.name)
            return super().__getitem__(row)

    problem = made(*(part(seed, Counted) for seed in range(3)))
    problem.data()
    read.clear()
    train(trial("single-task", ("small",)), problem)
    assert set(read) == {"small"}
    assert len(read) == (2 + 2 + 1) * SIZES["small"]  # two epochs, their validation, and the test: the last was best
