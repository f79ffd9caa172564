"""`steelyard.trial` in a program: what it gives by hand and in a study, and what it refuses by name."""

import json
import re
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load
from torch import nn

import steelyard
from steelyard.errors import ProgramError, SteelyardError, TrainingError
from steelyard.study.program.assignment import VARIABLE, Assignment
from steelyard.study.program.declaration import ProgramDeclaration, declare
from steelyard.study.program.reported_network import read_weights, weights_of
from steelyard.study.program.reports import History, ReportReader
from steelyard.study.trial import Trial

TASKS = {"a": "accuracy", "b": ("rmse", "mae")}
GOOD = {"a": 0.5, "b": {"rmse": 1.0, "mae": 0.5}}


pytestmark = pytest.mark.usefixtures("by_hand")


@pytest.fixture
def in_study(monkeypatch, tmp_path):
    """Makes this process the program of a trial; each call is one more start of it."""
    starts = []

    def become(tasks=("a", "b"), declared=TASKS, epochs=3, keep=False, **changes):
        planned = Trial(
            **{
                **{"problem": "p", "method": "equal", "tasks": tuple(tasks), "seed": 4, "epochs": epochs},
                **{"fractions": tuple((task, 1.0) for task in tasks), "batch_size": 0, **changes},
            }
        )
        starts.append(planned)
        declaration = declare(declared, 3, 0.1)
        run = f"run {len(starts)}"
        files = str(tmp_path / "told"), declaration, planned, str(tmp_path / "kept")
        Assignment(run, *files, keep=keep).write(tmp_path / "trial")
        monkeypatch.setenv(VARIABLE, str(tmp_path / "trial"))
        return steelyard.trial(declared, epochs=3, learning_rate=0.1)

    return become


@pytest.fixture
def told(tmp_path):
    """What the study reads."""

    def read(tasks=("a", "b"), main=None):
        history = History(declare(TASKS, 3).only(tasks), main)
        for report in ReportReader(tmp_path / "told").new():
            history.take(report)
        return history

    return read


def step(trial, balancer=None, factor=1.0):
    """One step of the balancer, and all that a study wants to have been read."""
    balancer = trial.balancer() if balancer is None else balancer
    _ = trial.seed, trial.fraction, trial.learning_rate
    losses = {task: factor * torch.ones((), requires_grad=True) for task in trial.tasks}
    balancer(losses).backward()
    return balancer


def values(trial, given=GOOD):
    return {task: given[task] for task in trial.tasks}


# --- by hand ----------------------------------------------------------------------------------------------------------
def test_by_hand_all_tasks_are_trained_under_the_plain_sum_and_reports_are_printed(capsys):
    trial = steelyard.trial(TASKS, epochs=2, learning_rate=0.1)
    assert (trial.tasks, trial.method, trial.seed, trial.fraction) == (("a", "b"), "equal", 0, 1.0)
    assert (trial.epochs, trial.learning_rate) == (2, 0.1)
    balancer = step(trial)
    assert trial.report(1, GOOD, GOOD)
    step(trial, balancer)
    assert not trial.report(2, {"a": 0.4, "b": 2.0}, GOOD)
    assert capsys.readouterr().out.splitlines() == [
        "epoch 1: a accuracy 0.5, b rmse 1; the best so far, on test data a 0.5, b 1",
        "epoch 2: a accuracy 0.4, b rmse 2; the last, on test data a 0.5, b 1",
    ]


def test_by_hand_flags_and_the_environment_choose_and_flags_come_first(monkeypatch):
    monkeypatch.setenv("STEELYARD_METHOD", "uw")
    monkeypatch.setenv("STEELYARD_SEED", "3")
    trial = steelyard.trial(TASKS, epochs=1)
    assert (trial.method, trial.seed, trial.balancer().name) == ("uw", 3, "uw")
    trial = steelyard.trial(TASKS, epochs=1, method="dwa", seed=7)
    assert (trial.method, trial.seed) == ("dwa", 7)
    monkeypatch.setenv("STEELYARD_TASKS", "b")
    trial = steelyard.trial(TASKS, epochs=1)
    assert (trial.tasks, trial.method) == (("b",), "single-task")


def test_by_hand_nothing_is_kept(tmp_path):
    trial = steelyard.trial(TASKS, epochs=1)
    trial.save(epoch=1)
    assert trial.resume() is None
    trial.start(nn.Linear(1, 1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("STEELYARD_SEED", "one", "STEELYARD_SEED='one' is no whole number"),
        ("STEELYARD_METHOD", "single-task", "STEELYARD_TASKS=a"),
        ("STEELYARD_TASKS", "c", "'c'"),
    ],
)
def test_by_hand_a_mistake_in_the_environment_is_named(monkeypatch, variable, value, says):
    monkeypatch.setenv(variable, value)
    with pytest.raises(SteelyardError, match=says):
        steelyard.trial(TASKS, epochs=1)


# --- in a study -------------------------------------------------------------------------------------------------------
def test_a_study_that_asks_gets_the_declaration_and_the_program_ends(monkeypatch, tmp_path):
    Assignment("", str(tmp_path / "answer")).write(tmp_path / "question")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "question"))
    with pytest.raises(SystemExit) as ended:
        steelyard.trial(TASKS, epochs=2, main="a")
    assert ended.value.code == 0
    answer = ProgramDeclaration.from_dict(json.loads((tmp_path / "answer").read_text()))
    assert answer == declare(TASKS, 2, main="a")


def test_a_study_has_the_say(in_study):
    trial = in_study(tasks=("b",), method="single-task", learning_rate=0.5, epochs=2, fractions=(("b", 0.1),))
    assert (trial.tasks, trial.seed, trial.fraction, trial.fractions) == (("b",), 4, 0.1, {"b": 0.1})
    assert (trial.epochs, trial.learning_rate, trial.device.type) == (2, 0.5, trial.device.type)
    loss = torch.tensor(3.0, requires_grad=True)
    assert trial.balancer()({"b": loss}).item() == 3.0


@pytest.mark.filterwarnings("error")
def test_reports_reach_the_study_and_test_is_read_where_validation_chooses(in_study, told):
    trial, asked = in_study(), []
    balancer = trial.balancer()

    def test(epoch):
        def read():
            asked.append(epoch)
            return {"a": epoch / 10, "b": {"rmse": 1.0, "mae": 0.5}}

        return read

    for epoch, (value, factor) in enumerate([(0.5, 1.0), (0.7, 3.0), (0.6, 5.0)], 1):
        step(trial, balancer, factor)
        step(trial, balancer, factor + 1)
        with_graph = torch.ones((), requires_grad=True)
        trial.report(epoch, {"a": value, "b": with_graph}, test(epoch))
    assert asked == [1, 2, 3]  # the third because it is the last one
    found = told().result(trial._planned)
    assert (found.chosen_epoch, found.steps) == (2, 6)
    assert found.test == {"a": [0.2], "b": [1.0, 0.5]}
    assert found.last["a"] == [0.3]
    assert found.curves.validation == {"a": [0.5, 0.7, 0.6], "b": [1.0, 1.0, 1.0]}
    assert found.curves.losses["a"] == [1.5, 3.5, 5.5]
    assert found.curves.weights["b"] == [1.0, 1.0, 1.0]
    assert found.seconds > 0


def test_a_main_task_chooses_the_epoch_alone(monkeypatch, in_study, told):
    trial = in_study()
    for epoch, values in enumerate([(0.5, 1.0), (0.6, 9.0), (0.4, 0.1)], 1):
        step(trial)
        trial.report(epoch, dict(zip("ab", values, strict=True)), GOOD)
    assert told().result(trial._planned).chosen_epoch == 3
    assert told(main="a").result(trial._planned).chosen_epoch == 2


def test_an_epoch_that_was_saved_and_not_reported_is_named(in_study):
    in_study().save(epoch=1)
    second = in_study()
    step(second)
    with pytest.raises(ProgramError, match=r"epoch 2 is the first.*call trial\.save after trial\.report"):
        second.report(second.resume()["epoch"] + 1, GOOD, GOOD)


def test_a_trial_that_is_stopped_goes_on(in_study, told, tmp_path):
    first = in_study()
    assert first.resume() is None
    step(first)
    first.report(1, {"a": 0.9, "b": 1.0}, GOOD)
    first.save(epoch=1, weights=torch.ones(2))
    with (tmp_path / "told").open("a") as file:
        file.write('{"run": "run 1", "torn by a ki')
    second = in_study()
    saved = second.resume()
    assert saved["epoch"] == 1
    assert saved["weights"].tolist() == [1.0, 1.0]
    step(second)
    assert not second.report(2, {"a": 0.8, "b": 1.0}, dict)  # the first start's epoch is the better one
    assert len(told().epochs) == 2
    third = in_study()  # which has no checkpoint and begins anew
    for epoch in (1, 2, 3):
        step(third)
        third.report(epoch, {"a": 0.5, "b": 1.0}, GOOD)
    assert told().result(third._planned).chosen_epoch == 1
    assert [report.run for report in told().epochs] == ["run 3"] * 3


# --- patience, and rows of a seed's own ------------------------------------------------------------------------------
WORSE = {"a": 0.1, "b": 2.0}


def train_on(trial, values):
    """A program's loop from the epoch after those that `trial.resume` knows; gives the last one."""
    saved = trial.resume()
    for epoch in range(saved["epoch"] + 1 if saved else 1, trial.epochs + 1):
        step(trial)
        trial.report(epoch, values[epoch - 1], GOOD)
        trial.save(epoch=epoch)
        if trial.should_stop:
            return epoch
    return None


def test_patience_ends_a_program_as_it_ends_the_training_of_a_problem(in_study, told):
    trial = in_study(epochs=6, patience=2)
    better = {"a": 0.6, "b": 1.0}
    assert train_on(trial, [GOOD, WORSE, better, WORSE, WORSE, better]) == 5
    found = told().result(trial._planned)
    assert found.chosen_epoch == 3
    assert found.last["a"] == [0.5]  # test is read at the last epoch, whichever that turns out to be
    assert len(found.curves.validation["a"]) == 5


def test_without_patience_the_last_epoch_is_the_one_to_stop_after(in_study):
    assert train_on(in_study(), [GOOD, WORSE, WORSE]) == 3
    assert in_study().should_stop  # stopped after its last report, and started once more


@pytest.mark.parametrize("reported", [1, 2, 3])
def test_patience_counts_on_after_a_stop(in_study, told, reported):
    first = in_study(epochs=6, patience=2)
    for epoch, values in enumerate([GOOD, WORSE, WORSE][:reported], 1):
        step(first)
        first.report(epoch, values, GOOD)
        first.save(epoch=epoch)
        _ = first.should_stop
    second = in_study(epochs=6, patience=2)
    assert second.should_stop is (reported == 3)
    train_on(second, [GOOD, WORSE, WORSE, GOOD, GOOD, GOOD])
    assert len(told().epochs) == 3
    assert not told().refused
    assert told().result(second._planned).chosen_epoch == 1


def test_a_study_with_patience_wants_no_more_epochs_than_it_leads_to(in_study, told):
    trial = in_study(epochs=6, patience=1)
    report(trial)
    with pytest.raises(ProgramError, match="reports 1 of 6 epochs"):
        told().result(trial._planned)


def test_a_program_that_trains_on_is_told(in_study, told):
    trial = in_study(epochs=6, patience=1)
    for epoch in (1, 2):
        report(trial, epoch)
        assert trial.should_stop is (epoch == 2)
    with pytest.raises(ProgramError, match=r"was to end after epoch 2: the last 1 were no better.*should_stop: break"):
        report(trial, 3)
    assert "was to end after epoch 2" in told().refused["run 1"]


def test_a_program_that_never_asks_whether_to_stop_is_told_before_it_matters(in_study):
    trial = in_study(epochs=6, patience=3)
    report(trial)
    with pytest.raises(ProgramError, match=r"never reads trial\.should_stop, and the study asks for patience"):
        report(trial, 2, {"a": 0.9, "b": 0.1})


def test_a_rank_that_does_not_report_cannot_know_whether_to_stop(in_study, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    trial = in_study(patience=2)
    assert not trial.should_stop  # before anything is trained
    step(trial)
    with pytest.raises(ProgramError, match=r"rank 1 reads trial\.should_stop and has reported nothing"):
        _ = trial.should_stop


def test_the_division_is_the_seed_where_every_seed_has_rows_of_its_own(in_study):
    assert in_study().division == 0
    assert in_study(resplit=True).division == 4
    assert steelyard.trial(TASKS, epochs=3, learning_rate=0.1, seed=9).division == 4  # the study's, not the flag's


# --- networks ---------------------------------------------------------------------------------------------------------
def network(value):
    made = nn.Linear(2, 1)
    nn.init.constant_(made.weight, value)
    return made


def kept(tmp_path, epoch):
    weights, why_not = read_weights(tmp_path / "kept", epoch)
    return (float(load(weights)["weight"][0, 0]) if weights else None), why_not


def test_the_network_of_the_best_epoch_is_kept_for_the_study(in_study, tmp_path):
    trial = in_study(keep=True)
    for epoch, validation in enumerate([WORSE, GOOD, WORSE], 1):
        step(trial)
        trial.report(epoch, validation, GOOD, network=network(epoch))
    assert kept(tmp_path, 2) == (2.0, "")
    assert "validation chose epoch 3, and the program gave that of epoch 2 last" in kept(tmp_path, 3)[1]
    with safe_open(tmp_path / "kept" / "network-2.safetensors", "pt") as opened:
        assert opened.metadata()["trial"] == trial._planned.canonical()


def test_the_network_is_kept_before_the_report_is_told(in_study, told, tmp_path, monkeypatch):
    """A start that is killed between the two trains the epoch again; told first, it would have no network."""
    trial = in_study(keep=True)
    step(trial)

    def killed(file, report):
        raise KeyboardInterrupt

    monkeypatch.setattr("steelyard.study.program.handle.tell", killed)
    with pytest.raises(KeyboardInterrupt):
        trial.report(1, GOOD, GOOD, network=network(1.0))
    assert told().epochs == []
    assert kept(tmp_path, 1) == (1.0, "")


@pytest.mark.parametrize("keep", [False, None])
def test_where_nothing_is_kept_no_network_is_asked_for(in_study, tmp_path, keep):
    trial = steelyard.trial(TASKS, epochs=1, learning_rate=0.1) if keep is None else in_study(keep=keep)
    step(trial)
    trial.report(1, GOOD, GOOD, network=lambda: 1 / 0)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_start_that_begins_anew_puts_its_own_networks_in_the_place(in_study, tmp_path):
    for start, best in ((1, 2), (2, 1)):
        trial = in_study(keep=True)
        for epoch in (1, 2, 3):
            step(trial)
            trial.report(epoch, GOOD if epoch == best else WORSE, GOOD, network=network(10 * start + epoch))
    assert kept(tmp_path, 1) == (21.0, "")


BETTER, BEST = ({"a": 0.5, "b": rmse} for rmse in (0.5, 0.25))


def train(trial, first, given, saves):
    """These epochs, the first of which has this number; a later start's networks have numbers from 100 on."""
    balancer = None
    for epoch, validation in enumerate(given, first):
        balancer = step(trial, balancer)
        trial.report(epoch, validation, GOOD, network=network(epoch if first == 1 else 100 + epoch))
        if epoch in saves:
            trial.save(epoch=epoch)


@pytest.mark.parametrize(
    ("before", "saves", "after", "chosen"),
    [
        # (what the first start finds, after which epochs it saves, what the second start finds from there on)
        ([GOOD, BETTER], [1], [WORSE, WORSE], 1.0),  # the better epoch is found once
        ([GOOD, WORSE, BETTER], [1, 2], [WORSE], 1.0),
        ([WORSE, GOOD, BETTER], [1, 2], [WORSE], 2.0),
        ([GOOD, BETTER, BEST], [1], [WORSE, WORSE], 1.0),  # two of them
        ([WORSE, GOOD, BETTER], [1], [GOOD, WORSE], 102.0),
        ([GOOD, BETTER], [1], [BETTER, WORSE], 102.0),  # it is found again
        ([GOOD, BETTER], [], [WORSE, WORSE], 1.0),  # saved by the program itself, after the first epoch
    ],
)
def test_a_start_that_does_not_find_the_better_epoch_again_has_the_network_of_its_best(
    in_study, told, tmp_path, before, saves, after, chosen
):
    trial = in_study(keep=True)
    train(trial, 1, before, saves)
    train(in_study(keep=True), 1 + (saves[-1] if saves else 1), after, [])
    epoch = told().best().epoch
    assert kept(tmp_path, epoch) == (chosen, "")
    assert epoch == chosen % 100


def test_a_network_of_an_epoch_that_is_trained_anew_is_nobodys(in_study, told, tmp_path):
    """The second start finds the epoch better as well, and gives no network there."""
    train(in_study(keep=True), 1, [GOOD, BETTER], [1])
    trial = in_study(keep=True)
    step(trial)
    trial.report(2, BETTER, GOOD)
    assert told().best().epoch == 2
    assert kept(tmp_path, 2)[0] is None


def test_networks_of_epochs_that_cannot_be_chosen_do_not_stay(in_study, tmp_path):
    falling = [{"a": 0.5, "b": 1 / epoch} for epoch in range(1, 11)]
    train(in_study(keep=True, epochs=10), 1, falling, [3, 6])
    there = {path.name for path in (tmp_path / "kept").glob("network*")}
    assert there == {f"network-{epoch}.safetensors" for epoch in (6, 9, 10)}


class Shard(torch.Tensor):
    """Like a DTensor, it can be asked for the whole."""

    full_tensor = None


class Wrapping(nn.Module):
    """As Lightning has it: the balancer is a module of the network."""

    def __init__(self, balancer):
        super().__init__()
        self.linear, self.balancer = network(3.0), balancer


class Compiled(nn.Module):
    """As `torch.compile` wraps a module (which takes seconds to import)."""

    def __init__(self, module):
        super().__init__()
        self._orig_mod = module


@pytest.mark.parametrize(
    "given",
    [
        lambda: network(3.0),
        lambda: network(3.0).state_dict(),
        lambda: lambda: network(3.0),
        lambda: lambda: network(3.0).state_dict(),
        lambda: nn.DataParallel(network(3.0)),
        lambda: Compiled(nn.DataParallel(network(3.0))),
        lambda: nn.DataParallel(Compiled(network(3.0))),
        lambda: nn.DataParallel(network(3.0)).state_dict(),
        lambda: Compiled(nn.DataParallel(network(3.0))).state_dict(),
        lambda: nn.DataParallel(Compiled(network(3.0))).state_dict(),
    ],
)
def test_weights_have_the_names_of_the_bare_network(given):
    assert set(weights_of(given())) == {"weight", "bias"}


@pytest.mark.parametrize("around", [lambda each: each, Compiled, nn.DataParallel], ids=["bare", "compiled", "replica"])
@pytest.mark.parametrize("wrap", [Compiled, nn.DataParallel, lambda each: Compiled(nn.DataParallel(each))])
def test_a_part_that_is_wrapped_has_the_names_of_the_bare_one(wrap, around):
    def model(wrap):
        return nn.ModuleDict({"trunk": wrap(network(3.0)), "module": network(2.0)})

    model(lambda each: each).load_state_dict(weights_of(around(model(wrap))))


def test_a_submodule_of_the_name_module_keeps_it():
    assert set(weights_of(nn.ModuleDict({"module": network(3.0)}))) == {"module.weight", "module.bias"}
    assert set(weights_of({"module.weight": torch.ones(1), "head": torch.ones(1)})) == {"module.weight", "head"}


def test_a_balancer_in_the_network_is_none_of_its_weights(in_study):
    assert set(weights_of(Wrapping(in_study(method="db-mtl").balancer()))) == {"linear.weight", "linear.bias"}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (3, "network=int: give the network"),
        ({}, "network= holds no tensors"),
        ({"model": {"weight": torch.ones(1)}, "epoch": 3}, "network= holds no tensors"),
        (
            {"weight": Shard(torch.ones(2))},
            "holds 'weight' as a shard of it .DTensor.: give a function that gathers.*network=False",
        ),
        (
            {"weight": torch.ones(2**30, device="meta")},
            r"network= holds 4\.0 GiB, and a study keeps at most 2: leave network= away .*network=False",
        ),
    ],
)
def test_what_is_no_network_to_keep_is_told(in_study, told, given, says):
    trial = in_study(keep=True)
    step(trial)
    with pytest.raises(ProgramError, match=says):
        trial.report(1, GOOD, GOOD, network=given)
    assert re.search(says, told().refused["run 1"])


def test_the_first_rank_writes_and_all_gather(in_study, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    asked = []
    trial = in_study(keep=True)
    step(trial)
    trial.report(1, GOOD, GOOD, network=lambda: asked.append(1) or {})
    assert asked == [1]
    assert not list(tmp_path.rglob("*.safetensors"))


def test_the_first_rank_reports_and_all_ranks_hear_the_same(in_study, told, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    trial = in_study()
    step(trial)
    assert trial.report(1, GOOD, GOOD)
    trial.save(epoch=1)
    assert not told().asked
    assert trial.resume() is None
    monkeypatch.setenv("RANK", "0")
    assert (in_study().tasks, trial.seed) == (trial.tasks, 4)
    assert told().asked == {"run 2"}


def test_how_a_network_starts_is_shown_by_parameter(in_study, told):
    trial, starts = in_study(), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        trial.start(nn.Linear(2, 3))
        starts.append(told().start)
    assert set(starts[0]) == {"weight [3, 2]", "bias [3]"}
    assert starts[0] == starts[1]
    assert starts[0]["weight [3, 2]"] != starts[2]["weight [3, 2]"]


def test_an_error_that_ends_the_program_is_named(in_study, told):
    in_study()
    try:
        raise KeyError("height")
    except KeyError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    assert told().refused == {"run 1": "KeyError: 'height'"}


# --- misbehaviour -----------------------------------------------------------------------------------------------------
def report(trial, epoch=1, validation=GOOD, test=GOOD):
    step(trial)
    trial.report(epoch, validation, test)


def twice(trial):
    report(trial)
    trial.report(1, GOOD, GOOD)


def skipping(trial):
    report(trial)
    trial.report(3, GOOD, GOOD)


def one_too_many(trial):
    for epoch in range(1, trial.epochs + 2):
        report(trial, epoch)


def without_balancer(trial):
    trial.report(1, GOOD, GOOD)


def balancer_not_called(trial):
    trial.balancer()
    trial.report(1, GOOD, GOOD)


def without_seed(trial):
    trial.balancer()({task: torch.ones((), requires_grad=True) for task in trial.tasks})
    trial.report(1, GOOD, GOOD)


MISTAKES = {
    "reports an epoch twice": (twice, "epoch 1 is reported twice"),
    "leaves one out": (skipping, "epoch 3 is reported, and epoch 2 was not"),
    "begins late": (lambda trial: report(trial, 2), "epoch 2 is the first to be reported: epochs are counted from 1"),
    "counts from 0": (lambda trial: report(trial, 0), "epoch 0: epochs are whole numbers, counted from 1"),
    "reports too many": (one_too_many, "epoch 4 is reported, and the trial has 3"),
    "never asks for its balancer": (without_balancer, "never calls trial.balancer"),
    "does not call its balancer": (balancer_not_called, "was not called before the first report"),
    "never reads its seed": (without_seed, "never reads trial.seed"),
    "NaN": (lambda trial: report(trial, 1, {"a": torch.nan, "b": 1.0}), "accuracy of 'a' on validation data is nan"),
    "NaN on test data": (lambda trial: report(trial, 1, GOOD, {**GOOD, "a": torch.nan}), "'a' on test data is nan"),
    "per cent": (lambda trial: report(trial, 1, {"a": 93.0, "b": 1.0}), "is 93: give it as a share, from 0 to 1"),
    "no number": (lambda trial: report(trial, 1, {"a": "good", "b": 1.0}), "accuracy of 'a'.* is 'good', not a number"),
    "forgets a task": (lambda trial: report(trial, 1, {"a": 0.5}), "the validation values have no 'b', only a"),
    "an unknown task": (lambda trial: report(trial, 1, {**GOOD, "c": 0.5}), "'c'"),
    "an unknown metric": (lambda trial: report(trial, 1, {**GOOD, "b": {"mse": 1.0}}), "metric of task 'b'.*'mse'"),
    "forgets a metric": (lambda trial: report(trial, 1, GOOD, {**GOOD, "b": {"rmse": 1.0}}), "'b' have no mae"),
    "one number for two": (lambda trial: report(trial, 1, GOOD, {**GOOD, "b": 1.0}), "give rmse, mae by name"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_program_that_does_so_is_told_by_name_and_so_is_the_study(in_study, told, mistake):
    does, says = MISTAKES[mistake]
    with pytest.raises(SteelyardError, match=says):
        does(in_study())
    (refused,) = told().refused.values()
    assert re.search(says, refused)


def test_a_run_of_one_task_that_reports_all_is_told(in_study, told):
    trial = in_study(tasks=("b",), method="single-task")
    with pytest.raises(ProgramError, match="reports a, and is asked to train b alone: build, train and report"):
        report(trial)
    assert "reports a" in told(("b",)).refused["run 1"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"learning_rate": 0.5}, "never reads trial.learning_rate, and the study asks for a learning rate of its own"),
        ({"fractions": (("a", 0.1), ("b", 0.1))}, "never reads trial.fraction"),
        ({"resplit": True}, "never reads trial.division, and the study asks for a division of its own"),
    ],
)
def test_what_the_study_asks_for_and_the_program_never_reads_is_told(in_study, changes, says):
    trial = in_study(**changes)
    _ = trial.seed
    trial.balancer()({task: torch.ones((), requires_grad=True) for task in trial.tasks})
    with pytest.raises(ProgramError, match=says):
        trial.report(1, GOOD, GOOD)


def test_fractions_that_differ_are_no_one_fraction(in_study):
    trial = in_study(fractions=(("a", 0.1), ("b", 1.0)))
    with pytest.raises(ProgramError, match=r"read trial\.fractions"):
        _ = trial.fraction


def test_a_program_without_a_rate_of_its_own_has_none_to_read():
    with pytest.raises(ProgramError, match="was given no learning_rate="):
        _ = steelyard.trial(TASKS, epochs=1).learning_rate


def test_what_is_declared_may_not_depend_on_the_trial(in_study):
    in_study()
    with pytest.raises(ProgramError, match="may not depend on the trial"):
        steelyard.trial({"a": "accuracy"}, epochs=3, learning_rate=0.1)


def test_a_value_without_an_ideal_must_be_positive(in_study):
    trial = in_study(tasks=("a",), declared={"a": "elbo:max"})
    with pytest.raises(TrainingError, match="has no ideal"):
        report(trial, 1, {"a": -3.0}, {"a": 1.0})


def test_a_program_that_trains_twice_in_one_run_is_told(in_study, told):
    report(in_study())
    report(steelyard.trial(TASKS, epochs=3, learning_rate=0.1))
    assert "epoch 1 is reported twice: call steelyard.trial once" in told().refused["run 1"]


def test_two_processes_that_both_report_are_told(in_study, told, monkeypatch):
    trial = in_study()
    report(trial)
    monkeypatch.setattr("os.getpid", lambda: 1)
    other = steelyard.trial(TASKS, epochs=3, learning_rate=0.1)
    report(other)
    assert "two of its processes report epoch 1" in told().refused["run 1"]


def test_an_assignment_that_cannot_be_read_is_named(monkeypatch, tmp_path):
    (tmp_path / "trial").write_text('{"version": 99}')
    monkeypatch.setenv(VARIABLE, str(tmp_path / "trial"))
    with pytest.raises(ProgramError, match=r"version 99, and here is 2.*need the same version of Steelyard"):
        steelyard.trial(TASKS, epochs=1)
