"""One trial: the plain loop it stands for, what it learns from, and that a stop leaves no trace."""

import dataclasses
import itertools
import math
import random
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import steelyard
from steelyard.errors import SteelyardWarning, StoreError, TrainingError
from steelyard.models import build
from steelyard.problems import Data, Metric, Problem, Split, Task, accuracy, classification, load_problem, regression
from steelyard.study.training import evaluate, training_rows
from steelyard.study.training.batch import recompute, task_losses
from steelyard.study.training.hardware import ON_CPU
from steelyard.study.training.sampling import batches, kept_labels
from steelyard.study.training.train import train
from steelyard.study.trial import Trial

torch.set_num_threads(1)


def made(rows=200, **options):
    """Two tasks on random data: one of classes, one a regression with every third label missing."""
    generator = torch.Generator().manual_seed(0)
    splits = []
    for _ in range(3):
        x = torch.randn(rows, 6, generator=generator)
        y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
        z = x[:, 2] * x[:, 3]
        z[::3] = math.nan
        splits.append(Split(x, {"kind": y, "size": z}))
    defaults = {
        "tasks": (classification("kind", 3), regression("size")),
        "load": lambda: Data(*splits),
        "trunk": lambda: nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2)),
        "head": lambda task: nn.Linear(16, task.outputs),
        "batch_size": 32,
    }
    return Problem("made", **{**defaults, **options})


def trial(method="equal", tasks=("kind", "size"), fractions=1.0, **options):
    kept = dict.fromkeys(tasks, fractions) if isinstance(fractions, float) else fractions
    defaults = {"seed": 1, "epochs": 4, "batch_size": 32, "scale": None if method == "single-task" else "sum"}
    return Trial("made", method, tasks, fractions=tuple(sorted(kept.items())), **{**defaults, **options})


def same(first, second):
    """Everything but times and memory, to the last bit."""
    timeless = {"processor_seconds": 0.0, "seconds": 0.0, "steps_per_second": 0.0, "peak_memory": 0.0}
    return repr(dataclasses.replace(first, **timeless)) == repr(dataclasses.replace(second, **timeless)) and repr(
        first.curves
    ) == repr(second.curves)


@pytest.mark.parametrize(("method", "few"), [("equal", True), ("coba", False)])
def test_where_the_last_epoch_is_taken_validation_draws_a_curve_of_few_points(monkeypatch, tmp_path, method, few):
    """All else is as it was, after a stop too; a method that learns from validation data is shown them every time."""
    problem, asked = made(choose="last"), trial(method, epochs=6)
    full = train(asked, problem)
    monkeypatch.setattr(evaluate, "POINTS", 2)

    def stop(epoch):
        if epoch == 4:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(asked, problem, tmp_path / "checkpoint", stop, checkpoint_seconds=0)
    found = train(asked, problem, tmp_path / "checkpoint", checkpoint_seconds=0)
    for curve in found.curves.validation.values():
        assert len(curve) == 6
        moved = sum(now != before for before, now in itertools.pairwise(curve))
        assert (moved <= 2) == few
    bare = [
        dataclasses.replace(r, curves=dataclasses.replace(r.curves, validation={}, halves={})) for r in (full, found)
    ]
    assert same(*bare)


def test_a_trial_counts_the_work_of_the_processor_and_not_the_time_it_waits():
    slept = []
    problem = made(prepare=lambda x: slept.append(time.sleep(0.02)) or x)
    found = train(trial(epochs=2), problem)
    assert 0.0 < found.processor_seconds < found.seconds
    assert found.work == found.processor_seconds
    assert found.seconds >= 0.02 * found.steps
    assert dataclasses.replace(found, processor_seconds=0.0).work == found.seconds  # as earlier versions stored it


def test_the_main_metric_is_taken_without_each_twentieth_of_the_test_rows():
    """Of the chosen network; a task with fewer labels than parts, or a metric that needs all rows, has none of it."""
    problem = made()
    found = train(trial(epochs=3), problem)
    assert {task: len(parts) for task, parts in found.left_out.items()} == {"kind": 20, "size": 20}
    for task, parts in found.left_out.items():
        assert np.mean(parts) == pytest.approx(found.test[task][0], rel=0.05)
        assert len(set(parts)) > 5
    assert train(trial(epochs=3), made(rows=25)).left_out.keys() == {"kind"}  # of "size" 16 rows have a label


def test_training_ends_when_patience_does():
    """As a training of so many epochs would, with the network that validation chose."""
    ends = []
    for seed in range(2):
        asked = {"seed": seed, "learning_rate": 0.05}
        whole = train(trial(epochs=12, **asked), made())
        ended = train(trial(epochs=12, patience=2, **asked), made())
        epochs = len(ended.curves.losses["kind"])
        ends.append(epochs)
        for kind in ("losses", "weights", "validation"):
            for task, curve in getattr(whole.curves, kind).items():
                assert getattr(ended.curves, kind)[task] == curve[:epochs]
        assert same(ended, train(trial(epochs=epochs, **asked), made()))  # with a constant rate
        assert epochs == 12 or epochs - ended.chosen_epoch == 2
        assert train(trial(epochs=12, patience=12, **asked), made()).chosen_epoch == whole.chosen_epoch
    assert min(ends) < 12


def test_a_problem_may_want_its_last_epoch():
    """The same training, judged where it ends."""
    best, last = (train(trial(epochs=12, learning_rate=0.05), made(choose=each)) for each in ("best", "last"))
    assert best.chosen_epoch < last.chosen_epoch == 12
    assert last.test == last.last == best.last != best.test
    assert last.curves == best.curves


def test_patience_counts_on_after_a_stop(tmp_path):
    asked = trial(seed=1, epochs=40, patience=2, learning_rate=0.05)
    whole = train(asked, made())
    epochs = len(whole.curves.losses["kind"])
    assert 3 < epochs < 40
    for stop_after in (whole.chosen_epoch, epochs - 1, epochs):

        def stop(epoch, at=stop_after):
            if epoch == at:
                raise KeyboardInterrupt

        path = tmp_path / f"{stop_after}.pt"
        with pytest.raises(KeyboardInterrupt):
            train(asked, made(), path, stop, checkpoint_seconds=0)
        assert same(train(asked, made(), path), whole)


def test_a_schedule_multiplies_the_rate_of_each_epoch_also_after_a_stop(tmp_path):
    rates = []

    class Recording(torch.optim.SGD):
        def step(self, closure=None):
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    problem = made(schedule=lambda done: 1 - done, optimizer=lambda parameters: Recording(parameters, lr=0.2))
    whole = train(trial(epochs=4), problem)
    assert list(dict.fromkeys(rates)) == pytest.approx([0.2, 0.15, 0.1, 0.05])
    rates.clear()
    train(trial(epochs=2, learning_rate=0.1), problem)
    assert list(dict.fromkeys(rates)) == pytest.approx([0.1, 0.05])

    def stop(epoch):
        if epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(trial(epochs=4), problem, tmp_path / "checkpoint.pt", stop, checkpoint_seconds=0)
    assert same(train(trial(epochs=4), problem, tmp_path / "checkpoint.pt"), whole)


def test_a_trial_is_trained_on_its_seeds_fold():
    load, calls = made().load, []
    problem = made(folds=3, load=lambda fold: calls.append(fold) or load())
    train(trial(seed=5, epochs=1), problem)
    assert calls == [2]


def test_every_seed_has_its_own_division_and_single_tasks_share_it_with_joint_networks():
    load, calls = made().load, []
    problem = made(load=lambda seed=7: calls.append(seed) or load())
    for planned in (trial(seed=5), trial("single-task", ("kind",), seed=5), trial(seed=6)):
        train(dataclasses.replace(planned, epochs=1, resplit=True), problem)
    assert calls == [5, 6]
    train(trial(seed=5, epochs=1), problem)
    assert calls == [5, 6, 7]  # of its own accord, where nobody asked for more


def test_a_single_task_trial_is_the_plain_loop():
    digits = load_problem("digits")
    planned = Trial("digits", "single-task", ("left",), 5, (("left", 1.0),), epochs=2, batch_size=128)
    found = train(planned, digits)

    data, task = digits.data(), digits.task("left")
    network = build(digits, ["left"], seed=5)
    optimizer = digits.optimizer(network.parameters())
    everything = torch.ones(len(data.train), dtype=torch.bool)
    curve = []
    for epoch in (1, 2):
        losses = []
        for rows in batches(everything, 128, seed=5, epoch=epoch):
            loss = F.cross_entropy(network(data.train.inputs[rows])[0]["left"], data.train.targets["left"][rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        curve.append(sum(losses) / len(losses))
    with torch.no_grad():
        outputs = network(data.test.inputs)[0]["left"]
    assert found.last == {"left": [task.metrics[0].function(outputs, data.test.targets["left"])]}
    assert found.curves.losses["left"] == pytest.approx(curve, rel=1e-12)
    assert found.steps == 2 * len(losses)


def test_equal_on_one_task_is_single_task():
    """The balancer adds nothing of its own: same start, same batches, same dropout, same bits."""
    problem = made()
    alone, summed = (train(trial(method, ("kind",)), problem) for method in ("single-task", "equal"))
    assert same(alone, summed)


@pytest.mark.parametrize("rate", [None, 0.02])
def test_adatask_on_one_task_is_single_task_with_adam(rate):
    """SGD takes its steps in place of the problem's Adam, with its rate, of the head's parameters too."""
    own, other = (
        train(trial(method, ("kind",), shared=shared, learning_rate=rate), made()).curves.losses["kind"]
        for method, shared in (("adatask", "trunk"), ("single-task", None))
    )
    assert own == pytest.approx(other, rel=1e-3)
    assert own[-1] < own[0]


def test_adatask_beside_a_problems_sgd_keeps_it():
    by_adam = made(optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.01))
    by_sgd = made(optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.01))
    assert same(train(trial("adatask", shared="trunk"), by_adam), train(trial("adatask", shared="trunk"), by_sgd))


RESUMED = ["equal", "dwa", "uw", "ema", "famo", "db-mtl", "random", "hydalearn(main=kind)", "auto-lambda"]


@pytest.mark.parametrize("method", RESUMED)
def test_stopped_and_resumed_is_the_same_to_the_last_bit(tmp_path, method):
    problem, planned = made(), trial(method)
    whole = train(planned, problem)
    for stop in (1, 3):

        def stop_after(epoch, stop=stop):
            if epoch == stop:
                raise KeyboardInterrupt

        path = tmp_path / "c" / f"{stop}.pt"
        with pytest.raises(KeyboardInterrupt):
            train(planned, problem, path, stop_after, checkpoint_seconds=0)
        epochs = []
        resumed = train(planned, problem, path, epochs.append, checkpoint_seconds=0)
        assert epochs == list(range(stop, 5))  # the checkpoint's epoch, then those still to do
        assert same(whole, resumed)
        assert len(resumed.curves.losses["size"]) == 4


@pytest.mark.parametrize("last", [2, 4])
def test_augmentation_may_draw_from_any_library(tmp_path, last):
    def noisy(inputs):
        return inputs + random.random() + np.random.rand() + torch.rand(())

    problem, path = made(prepare=noisy), tmp_path / "t.pt"

    def stop(epoch):
        if epoch == last:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(trial(), problem, path, stop, checkpoint_seconds=0)
    assert same(train(trial(), problem, path), train(trial(), problem))


def test_resuming_keeps_the_best_network_of_before(tmp_path):
    """Validation is best at epoch 1 of 3; the stop comes after 2."""
    values = iter([*[0.9] * 3, *[0.5] * 6])  # validation and its halves, epoch by epoch
    falling = Metric("falling", lambda outputs, targets: next(values), higher_is_better=True, ideal=1.0)
    where = Metric("where", lambda outputs, targets: float(outputs.sum()), higher_is_better=True)
    task = Task("kind", F.cross_entropy, (falling, where), outputs=3)
    problem, path = made(tasks=(task,)), tmp_path / "t.pt"
    planned = trial("single-task", ("kind",), epochs=3)

    def stop(epoch):
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(planned, problem, path, stop, checkpoint_seconds=0)
    values = iter([*[0.5] * 3, 0.1, 0.1])  # then test twice
    resumed = train(planned, problem, path)
    assert resumed.chosen_epoch == 1
    values = iter([*[0.9] * 3, 0.1, 0.1])
    first = train(trial("single-task", ("kind",), epochs=1), problem)
    assert resumed.test["kind"][1] == first.test["kind"][1]
    assert resumed.last["kind"][1] != first.last["kind"][1]


def test_a_broken_or_foreign_checkpoint_is_named_and_not_used(tmp_path):
    problem, path = made(), tmp_path / "t.pt"
    train(trial(), problem, path, checkpoint_seconds=0)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.warns(SteelyardWarning, match="is damaged"):
        cut = train(trial(), problem, path, checkpoint_seconds=0)
    with pytest.warns(SteelyardWarning, match="of another trial"):
        other = train(trial(seed=2), problem, path, checkpoint_seconds=0)
    assert same(cut, train(trial(), problem))
    assert same(other, train(trial(seed=2), problem))


def test_a_full_disk_is_named_and_leaves_the_last_checkpoint(tmp_path):
    resource = pytest.importorskip("resource")
    problem, path, sizes = made(), tmp_path / "t.pt", resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_disk(epoch):  # the next write of more than a few bytes fails, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, sizes[1]))

    try:
        with pytest.raises(StoreError, match=r"cannot write the checkpoint .*Free some space"):
            train(trial(), problem, path, fill_disk, checkpoint_seconds=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, sizes)
    assert [file.name for file in tmp_path.iterdir()] == ["t.pt"]
    assert same(train(trial(), problem, path), train(trial(), problem))


def test_only_kept_labels_are_learnt_from():
    """Labels outside a task's fraction can be anything; rows outside all fractions are not even seen."""
    problem = made(batch_size=8)
    planned = trial(fractions={"kind": 0.2, "size": 0.1}, batch_size=8)
    first = train(planned, problem)
    assert first.steps == 4 * 5  # 40 of 200 rows, 8 at a time: the regression's rows are among them

    spoilt = made(batch_size=8)
    train_split = spoilt.data().train
    for task in spoilt.tasks:
        hidden = ~kept_labels(task, train_split, dict(planned.fractions)[task.name], seed=1)
        train_split.targets[task.name][hidden] = 1
    # `size` has other labels available now, so pin its gaps: only rows that had a label may change.
    spoilt.data().train.targets["size"][::3] = math.nan
    assert same(first, train(planned, spoilt))


def test_a_task_may_be_absent_from_batches_and_from_a_whole_epoch():
    problem = made(rows=64)
    few = trial(fractions={"kind": 1.0, "size": 0.02}, batch_size=8, epochs=2)  # one label of `size`
    found = train(few, problem)
    assert all(math.isfinite(loss) for loss in found.curves.losses["size"])
    assert found.curves.weights["size"] == [1.0, 1.0]  # the mean over the steps that had it


FURTHER = [row.name for row in steelyard.methods() if row.reads == "cross_gramian" or row.cls.needs_held_out]


@pytest.mark.filterwarnings("ignore:hydalearn compares every task with the main one")
@pytest.mark.parametrize("method", [*FURTHER, "hydalearn(judged=held-out,main=kind)"])
def test_further_batches_have_the_tasks_of_the_one_at_hand(method, monkeypatch):
    """Of a task with few labels most independent batches would have none; see `completed`."""
    lacking = []

    def completed(drawn, labels, batch, seed):
        labels = list(labels)
        found = real(drawn, labels, batch, seed)
        there = [mask for mask in labels if mask[batch].any()]
        lacking.append(any(not mask[drawn].any() for mask in there))
        assert all(mask[found].any() for mask in there)
        return found

    real = training_rows.completed
    monkeypatch.setattr(training_rows, "completed", completed)
    few = {"kind": 0.02, "size": 1.0}
    train(trial(method, fractions=few, batch_size=16, epochs=3, shared="trunk"), made())
    assert any(lacking), "the test would see nothing"


@pytest.mark.filterwarnings("ignore:the loss of 'size' is exactly 0")
@pytest.mark.filterwarnings("ignore:hydalearn compares every task with the main one")
@pytest.mark.parametrize("method", [*FURTHER, "hydalearn(judged=held-out,main=kind)"])
def test_a_further_batch_that_a_task_fits_to_the_last_bit_is_no_batch_without_its_labels(method):
    """As a task of few rows does that are learnt by heart: its loss is exactly 0, and so is its gradient."""
    zeros = []

    def loss(output, wanted):
        found = F.relu(wanted.abs().max() - 1.0) * output.squeeze(1).square().mean()
        zeros.append(found.item() == 0)
        return found

    size = dataclasses.replace(regression("size"), loss=loss)
    problem = made(tasks=(classification("kind", 3), size))
    found = train(trial(method, batch_size=16, epochs=3, shared="trunk"), problem)
    assert 0 < sum(zeros) < len(zeros), "the test would see nothing"
    assert all(math.isfinite(each) for each in found.curves.losses["kind"])


def test_the_mean_weights_of_an_epoch_are_recorded():
    found = train(trial("fixed(weights={'kind':3,'size':1})"), made())
    assert found.curves.weights == {"kind": [1.5] * 4, "size": [0.5] * 4}  # scale="sum"
    assert found.curves.weight_spreads == {"kind": [0.0] * 4, "size": [0.0] * 4}


def test_how_far_weights_move_within_an_epoch_is_recorded(monkeypatch):
    """Against the balancer's own record of the run, whose one epoch it is; shares of two tasks are mirror images."""
    made_balancers = []
    monkeypatch.setattr(
        "steelyard.study.training.train.make",
        lambda *given, **options: made_balancers.append(steelyard.make(*given, **options)) or made_balancers[-1],
    )
    found = train(trial("random", epochs=1), made()).curves
    summary = made_balancers[0].summary()
    assert [found.weights[task][0] for task in ("kind", "size")] == pytest.approx(summary.means)
    assert [found.weight_spreads[task][0] for task in ("kind", "size")] == pytest.approx(summary.deviations, rel=0.2)
    assert found.weight_spreads["kind"][0] == pytest.approx(found.weight_spreads["size"][0])
    assert found.weight_spreads["kind"][0] > 0.01


def test_the_learning_rate_can_be_given():
    problem = made(optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.3))
    slow = made(optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.01))
    assert same(train(trial(learning_rate=0.01), problem), train(trial(), slow))


def test_divergence_is_an_error_that_names_task_and_epoch():
    wild = made(optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e30))
    with pytest.raises(
        TrainingError, match=r"training loss of 'size' is (nan|inf) in epoch \d: lower the learning rate"
    ):
        train(trial("single-task", ("size",)), wild)


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("value", ["inf", "nan"])
def test_a_test_metric_without_a_value_is_an_error_as_on_validation_data(value, place):
    def strange(outputs, targets):
        return float(value) if len(targets) == 133 else 1.0  # of the 200 test rows, but not of parts of them

    metrics = [Metric("gap", strange, higher_is_better=False, ideal=0.0)]
    metrics.insert(1 - place, accuracy)
    problem = made(tasks=(classification("kind", 3), regression("size", metrics=tuple(metrics))))
    problem.data().validation.targets["size"][1] = math.nan
    with pytest.raises(TrainingError, match=rf"^gap of task 'size' on test data is {value}: training diverged, or the"):
        train(trial(), problem)


def test_test_data_choose_nothing():
    """Other test data, same curves and same chosen epoch."""
    first, problem = train(trial(), made()), made()
    problem.data().test.inputs.zero_()
    second = train(trial(), problem)
    assert first.curves == second.curves
    assert first.chosen_epoch == second.chosen_epoch
    assert first.test != second.test


def test_looking_again_leaves_the_network_alone_and_repeats_its_dropout():
    problem = made()
    network, tasks = build(problem, ["kind"], seed=0), [problem.task("kind")]
    inputs, targets = problem.data().train.inputs[:50], {"kind": (problem.data().train.targets["kind"][:50], None)}
    state = ON_CPU.random_state()
    first = task_losses(tasks, network(inputs)[0], targets)["kind"]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    drawn = torch.get_rng_state()
    again = recompute(network, tasks, inputs, targets, state)
    assert again()["kind"].item() == first.item()
    assert again.replays  # one forward pass is enough for a difference from the losses at hand
    shifted = {name: parameter + 0.1 for name, parameter in again.parameters.items()}
    assert again(shifted)["kind"].item() != first.item()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), drawn)


def test_methods_that_read_validation_losses_are_shown_them(monkeypatch):
    """The loss of each task on all its labelled validation rows, once per epoch."""
    shown = []

    class Watching(steelyard.Equal):
        def validated(self, losses, state):
            shown.append(losses.tolist())

    monkeypatch.setattr(
        "steelyard.study.training.train.make", lambda name, tasks, **options: Watching(tasks, **options)
    )
    train(trial(epochs=2), made())
    assert len(shown) == 2
    assert all(len(losses) == 2 and min(losses) > 0 for losses in shown)


def test_peak_memory_sees_what_training_allocates():
    wide = made(rows=2000, trunk=lambda: nn.Sequential(nn.Linear(6, 4096), nn.ReLU(), nn.Linear(4096, 16)))
    slim = train(trial(epochs=1), made(rows=2000))
    found = train(trial(epochs=1, batch_size=2000), wide)
    activations = 2000 * 4096 * 4 / 2**20  # MiB
    assert found.peak_memory > activations > slim.peak_memory


def test_a_ledger_is_kept_with_the_trial_and_changes_nothing_also_after_a_stop(tmp_path):
    problem = made()
    plain, kept = train(trial(), problem), train(trial(ledger=3), problem)
    assert same(dataclasses.replace(kept, ledger={}), plain)
    assert plain.ledger == {}
    steps = kept.steps // 3
    assert {task: account.steps for task, account in kept.ledger.items()} == {"kind": steps, "size": steps}
    assert all(0 <= account.hurt <= 1 and 0 <= account.against <= 1 for account in kept.ledger.values())

    def stop(epoch):
        if epoch == 2:
            raise KeyboardInterrupt

    checkpoint = tmp_path / "trial.pt"
    with pytest.raises(KeyboardInterrupt):
        train(trial(ledger=3), problem, checkpoint, stop, 0.0)
    again = train(trial(ledger=3), problem, checkpoint)
    assert same(again, kept)
    assert again.ledger == kept.ledger
