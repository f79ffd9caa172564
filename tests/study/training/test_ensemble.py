"""Single-task networks trained at once are those trained one by one: same epochs, same numbers but for rounding."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from steelyard.problems import Data, JointMetric, Problem, Split, Task, accuracy, binary, regression
from steelyard.study.storage.trial_checkpoint import checkpoint_of, load_checkpoint
from steelyard.study.training import ensemble, evaluate
from steelyard.study.training.ensemble import FEWEST, MOST, groups, train_together
from steelyard.study.training.kept_outputs import unpack
from steelyard.study.training.train import train
from steelyard.study.trial import Failed, Trial

torch.set_num_threads(1)
TASKS = 10


def made(rows=90, dtype=torch.float64, kind=regression, layers=(nn.Tanh,), **options):
    """Many tasks on the same rows, each with gaps of its own: their networks take from 2 to 6 steps an epoch."""
    generator = torch.Generator().manual_seed(0)
    splits = []
    for _ in range(3):
        x = torch.randn(rows, 5, generator=generator, dtype=dtype)
        targets = {}
        for number in range(TASKS):
            y = (x @ torch.randn(5, generator=generator, dtype=dtype)).sin()
            y = (y > 0).to(dtype) if kind is binary else y
            gaps = torch.rand(rows, generator=generator) < 0.06 * number
            targets[f"t{number}"] = y.masked_fill(gaps, math.nan)
        splits.append(Split(x, targets))
    defaults = {
        "tasks": [kind(f"t{number}") for number in range(TASKS)],
        "load": lambda: Data(*splits),
        "trunk": lambda: nn.Sequential(nn.Linear(5, 8), *(layer() for layer in layers)).to(dtype),
        "head": lambda task: nn.Linear(8, task.outputs).to(dtype),
        "batch_size": 16,
    }
    return Problem("made", **{**defaults, **options})


def trials(problem, epochs=5, **options):
    given = {"seed": 3, "epochs": epochs, "batch_size": problem.batch_size, **options}
    fractions = given.pop("fractions", dict.fromkeys(problem.task_names, 1.0))
    return [
        Trial("made", "single-task", (name,), fractions=((name, fractions[name]),), **given)
        for name in problem.task_names
    ]


def near(first, second, tolerance):
    """Everything but times and memory: whole numbers equal, others within a relative tolerance."""
    one, two = (
        {
            k: v
            for k, v in dataclasses.asdict(r).items()
            if k not in ("seconds", "steps_per_second", "peak_memory", "processor_seconds", "other_data")
        }
        for r in (first, second)
    )
    numbers = []
    for values in (one, two):
        flat, waiting = [], [values]
        while waiting:
            each = waiting.pop()
            if isinstance(each, dict):
                waiting += each.values()
            elif isinstance(each, list):
                waiting += each
            else:
                flat.append(each)
        numbers.append(flat)
    assert numbers[0] == pytest.approx(numbers[1], rel=tolerance, abs=tolerance)
    for name in ("chosen_epoch", "steps", "other_data"):
        assert getattr(first, name) == getattr(second, name)
    return True


OPTIMIZERS = {
    "adam": lambda p: torch.optim.Adam(p, lr=1e-2),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, amsgrad=True),
    "momentum": lambda p: torch.optim.SGD(p, lr=1e-1, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-1, initial_accumulator_value=0.1),
    "nadam": lambda p: torch.optim.NAdam(p, lr=1e-2),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-2, centered=True),
}


def decayed(parameters):
    """Weights in one group, biases in another."""
    held = list(parameters)
    groups = [{"params": [p for p in held if p.dim() > 1], "weight_decay": 0.1}, {"params": held[1::2]}]
    return torch.optim.AdamW(groups, lr=1e-2)


# One with momentum, the one that most take, and groups; each further kind by `make slow`.
QUICK = ("momentum", "adamw")


@pytest.mark.parametrize(
    "optimizer",
    [
        *(
            pytest.param(make, id=name, marks=[] if name in QUICK else pytest.mark.slow("all networks train twice"))
            for name, make in OPTIMIZERS.items()
        ),
        pytest.param(decayed, id="groups"),
    ],
)
def test_in_float64_results_are_those_of_separate_training(optimizer):
    problem = made(optimizer=optimizer)
    planned = trials(problem)
    found = dict(train_together(planned, problem))
    together = [trial for trial, result in found.items() if result is not None]
    assert len(together) >= TASKS - 3  # a number of steps that no other task has is left for alone
    assert len({found[trial].steps for trial in together}) > 1
    for trial in together:
        assert near(found[trial], train(trial, problem), 1e-10)


@pytest.mark.parametrize("kind", [regression, binary])
def test_in_float32_results_are_those_of_separate_training_but_for_rounding(kind):
    problem = made(dtype=torch.float32, kind=kind, layers=(nn.ReLU,))
    for trial, result in train_together(trials(problem, epochs=3), problem):
        if result is not None:
            alone = train(trial, problem)
            assert result.curves.losses[trial.tasks[0]] == pytest.approx(alone.curves.losses[trial.tasks[0]], rel=1e-4)


def test_epochs_of_several_passes_are_those_of_separate_training():
    problem = made()
    planned = trials(problem, epochs=3, epoch_steps=9)
    found = {trial: result for trial, result in train_together(planned, problem) if result is not None}
    assert len(found) > 4
    for trial, result in found.items():
        assert result.steps >= 3 * 9
        assert near(result, train(trial, problem), 1e-10)


def test_trainings_with_patience_end_one_by_one():
    first = trials(made())[0]
    many = [dataclasses.replace(first, tasks=(f"t{number}",)) for number in range(FEWEST)]
    assert [len(group) for group in groups(many, workers=1)] == [FEWEST]
    patient = [dataclasses.replace(trial, patience=1) for trial in many]
    assert [len(group) for group in groups(patient, workers=1)] == [1] * FEWEST


def test_fractions_and_learning_rates_are_kept():
    problem = made()
    planned = trials(problem, fractions={name: 0.3 + 0.05 * k for k, name in enumerate(problem.task_names)})
    planned = [dataclasses.replace(trial, learning_rate=0.03) for trial in planned]
    found = {trial: result for trial, result in train_together(planned, problem) if result is not None}
    assert len(found) > 4
    for trial, result in found.items():
        assert near(result, train(trial, problem), 1e-10)


def test_the_schedule_is_followed_and_outputs_are_kept():
    joint = (JointMetric("none", lambda outputs, targets: 0.0, higher_is_better=True),)
    problem = made(schedule=lambda done: 1 - done, joint=joint)
    found = {trial: result for trial, result in train_together(trials(problem), problem) if result is not None}
    assert len(found) > 4
    for trial, result in found.items():
        alone, (name,) = train(trial, problem), trial.tasks
        torch.testing.assert_close(unpack(result.outputs[name]), unpack(alone.outputs[name]))
        same = [dataclasses.replace(each, outputs={}) for each in (result, alone)]
        assert near(*same, 1e-10)
        constant = train(trial, dataclasses.replace(problem, schedule=lambda done: 1.0))
        assert constant.curves.losses != alone.curves.losses


def test_the_last_epoch_is_taken_where_the_problem_wants_it():
    problem = made(choose="last")
    found = {trial: result for trial, result in train_together(trials(problem), problem) if result is not None}
    assert len(found) > 4
    for trial, result in found.items():
        assert result.chosen_epoch == trial.epochs
        assert near(result, train(trial, problem), 1e-10)


def test_what_draws_a_curve_alone_is_measured_so_often_and_changes_nothing(monkeypatch):
    """Together and alone: results differ by the points of the curve, which stand for the epochs behind them."""
    problem = made(choose="last")
    each = {trial: result for trial, result in train_together(trials(problem), problem) if result is not None}
    monkeypatch.setattr(evaluate, "POINTS", 2)
    found = {trial: result for trial, result in train_together(trials(problem), problem) if result is not None}
    assert len(found) > 4
    for trial, result in found.items():
        assert near(result, train(trial, problem), 1e-10)
        measured = sorted(evaluate.asked(trial, True))
        assert 1 < len(measured) < trial.epochs == measured[-1], "else this shows nothing"
        held = [max(epoch for epoch in measured if epoch <= now) - 1 for now in range(1, trial.epochs + 1)]
        curves = each[trial].curves
        for kind in ("validation", "halves"):
            of = getattr(curves, kind)
            assert getattr(result.curves, kind) == {task: [values[k] for k in held] for task, values in of.items()}
        assert (result.test, result.last) == (each[trial].test, each[trial].last)
        assert result.curves.losses == curves.losses


def test_one_dropout_layer_draws_what_it_draws_alone():
    problem = made(layers=(nn.Tanh, lambda: nn.Dropout(0.4)))
    found = {trial: result for trial, result in train_together(trials(problem), problem) if result is not None}
    assert len(found) > 4
    for trial, result in found.items():
        assert near(result, train(trial, problem), 1e-10)


def contrast(outputs, targets):
    return (outputs[:, 0] - targets).square().mean() + outputs.std(correction=0)


REFUSED = {
    "batch norm": {"layers": (nn.Tanh, lambda: nn.BatchNorm1d(8))},
    "batch statistics": {"layers": (nn.Tanh, lambda: nn.BatchNorm1d(8, track_running_stats=False))},
    "two dropouts": {"layers": (lambda: nn.Dropout(0.2), nn.Tanh, lambda: nn.Dropout(0.2))},
    "optimizer": {"optimizer": lambda p: torch.optim.Adafactor(p, lr=1e-2)},
    "centred": {"prepare": lambda x: x - x.mean(0)},
    "noise": {"prepare": lambda x: x + torch.randn_like(x)},
    "contrast": {"tasks": [Task(f"t{k}", contrast, regression("x").metrics) for k in range(TASKS)]},
    "own losses": {
        "tasks": [Task(f"t{k}", lambda o, y: F.mse_loss(o[:, 0], y), regression("x").metrics) for k in range(TASKS)]
    },
    "convolution": {"trunk": lambda: nn.Sequential(nn.Unflatten(1, (1, 5)), nn.Conv1d(1, 2, 2), nn.Flatten()).double()},
    "control flow": {"trunk": lambda: Sorting().double()},
    "no batching": {"trunk": lambda: Bag()},
}


@pytest.mark.parametrize("options", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_stacked_is_left_for_alone(options):
    problem = made(**options)
    assert [result for _, result in train_together(trials(problem), problem)] == [None] * TASKS


class Sorting(nn.Linear):
    def __init__(self):
        super().__init__(5, 8)

    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else super().forward(-x)


class Bag(nn.EmbeddingBag):
    def __init__(self):
        super().__init__(4, 8, dtype=torch.float64)

    def forward(self, x):
        return super().forward((x > 0).long(), per_sample_weights=None)


def test_a_network_that_differs_in_what_is_no_parameter_is_noticed():
    class Scaled(nn.Linear):
        def forward(self, x):
            return self.factor * super().forward(x)

    def head(task):
        made = Scaled(8, 1).double()
        made.factor = int(task.name[1:]) + 1.0
        return made

    problem = made(head=head)
    assert [result for _, result in train_together(trials(problem), problem)] == [None] * TASKS


def test_an_error_of_one_task_ends_its_trial_alone():
    problem = made()
    problem.data().validation.targets["t1"].mul_(1e200)
    found = dict(train_together(trials(problem), problem))
    failed = {trial.tasks[0]: result for trial, result in found.items() if isinstance(result, Failed)}
    assert list(failed) == ["t1"]
    assert "R² of task 't1' on validation data is" in failed["t1"].error
    assert "TrainingError" in failed["t1"].traceback
    for trial, result in found.items():
        if trial.tasks[0] in ("t2", "t3") and result is not None:
            assert near(result, train(trial, problem), 1e-10)


def test_a_test_metric_without_a_value_ends_its_trial_alone():
    problem = made()
    problem.data().test.targets["t1"].mul_(1e200)
    found = dict(train_together(trials(problem), problem))
    failed = {trial.tasks[0]: result for trial, result in found.items() if isinstance(result, Failed)}
    assert list(failed) == ["t1"]
    assert "R² of task 't1' on test data is" in failed["t1"].error


@pytest.mark.parametrize("resumes", ["together", "alone"])
@pytest.mark.parametrize("stops", ["together", "alone"])
def test_checkpoints_serve_both(tmp_path, stops, resumes):
    """Stopped after epoch 2 of 5, by either way of training, and resumed by either."""
    problem = made(layers=(nn.Tanh, lambda: nn.Dropout(0.4)), schedule=lambda done: 1 - done)
    planned = trials(problem)
    whole = {trial: result for trial, result in train_together(planned, problem) if result is not None}
    planned = list(whole)
    paths = {trial: tmp_path / f"{trial.key}.pt" for trial in planned}

    class Stop(BaseException):
        pass

    if stops == "together":
        for steps in {result.steps for result in whole.values()}:
            members = [trial for trial in planned if whole[trial].steps == steps]

            def stop(trial, epoch):
                if epoch == 2:
                    raise Stop

            with pytest.raises(Stop):
                list(train_together(members, problem, tmp_path, stop, checkpoint_seconds=0))
    else:
        for trial in planned:

            def stop_alone(epoch):
                if epoch == 2:
                    raise Stop

            with pytest.raises(Stop):
                train(trial, problem, paths[trial], stop_alone, checkpoint_seconds=0)
    assert all(path.is_file() for path in paths.values())

    epochs = []
    if resumes == "together":
        resumed = dict(train_together(planned, problem, tmp_path, lambda trial, epoch: epochs.append(epoch)))
    else:
        resumed = {trial: train(trial, problem, paths[trial], epochs.append) for trial in planned}
    assert min(epochs) == 2
    for trial, result in resumed.items():
        assert near(result, whole[trial], 1e-10)


def test_groups_differ_in_the_task_alone_and_give_every_worker_some():
    first = trials(made())[0]
    many = [dataclasses.replace(first, tasks=(f"t{number}",)) for number in range(4 * MOST + 1)]
    two = [dataclasses.replace(trial, seed=seed) for seed in (0, 1) for trial in many[:FEWEST]]
    joint = dataclasses.replace(first, method="equal", tasks=("t0", "t1"))
    assert [len(group) for group in groups([*two, joint], workers=1)] == [FEWEST, FEWEST, 1]
    assert {trial.seed for trial in groups(two, workers=1)[0]} == {0}
    few = many[: FEWEST - 1]
    assert groups(few, workers=2) == [(trial,) for trial in few]
    sizes = [len(group) for group in groups(many, workers=2)]
    assert sum(sizes) == len(many)
    assert max(sizes) <= MOST
    assert max(sizes) - min(sizes) <= 1
    assert len(groups(many[: 2 * FEWEST], workers=2)) == 2


def test_a_loss_that_weighs_a_rare_class_is_seen_where_the_first_rows_have_none_of_it():
    """A file that lists the negatives first: over rows of one class alone a weighted mean is a mean."""
    generator = torch.Generator().manual_seed(0)
    names, weight = [f"t{number}" for number in range(FEWEST)], torch.tensor([1.0, 20.0])
    slopes = torch.randn(6, FEWEST, generator=generator)
    parts = []
    for _ in range(3):
        x = torch.randn(200, 6, generator=generator)
        y = ((x @ slopes + torch.randn(200, FEWEST, generator=generator)) > 4).long()
        order = y.sum(1).argsort(stable=True)
        parts.append(Split(x[order], {name: y[order, number] for number, name in enumerate(names)}))
    assert all(bool((parts[0].targets[name][:24] == 0).all()) for name in names)

    def weighted(outputs, targets):
        return F.cross_entropy(outputs, targets, weight=weight)

    problem = Problem(
        "rare",
        [Task(name, weighted, accuracy, outputs=2) for name in names],
        lambda: Data(*parts),
        trunk=lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU()),
        head=lambda task: nn.Linear(8, task.outputs),
        batch_size=32,
        epochs=1,
    )
    asked = trials(problem, epochs=1)
    assert [len(group) for group in groups(asked, 1)] == [FEWEST]
    assert all(result is None for _, result in train_together(asked, problem)), "each alone"


def test_what_is_stopped_while_test_data_are_read_goes_on_alone(tmp_path, monkeypatch):
    problem = made()
    asked = trials(problem, epochs=2)

    class Killed(BaseException):
        pass

    def results(running, on_trained):
        raise Killed

    with monkeypatch.context() as stopped:
        stopped.setattr(ensemble._Running, "results", results)
        with pytest.raises(Killed):
            list(train_together(asked, problem, tmp_path, checkpoint_seconds=0.0))
    begun = [each for each in asked if load_checkpoint(checkpoint_of(tmp_path, each), each) is not None]
    assert begun
    for each in begun:
        found, whole = train(each, problem, checkpoint_of(tmp_path, each)), train(each, problem)
        assert found.test[each.tasks[0]] == pytest.approx(whole.test[each.tasks[0]], rel=1e-6)
