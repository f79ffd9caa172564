"""Which networks stay beside a store, and that they compute what the study measured."""

import json
import sys

import pytest
import torch
from safetensors import safe_open

from steelyard import cli, study
from steelyard.errors import PlanError, StoreError, UnknownNameError
from steelyard.problems import load_problem
from steelyard.study.analysis.trained_network import kept_trials
from steelyard.study.running.events import Finished
from steelyard.study.storage.network_files import pack
from steelyard.study.storage.store import Store
from study import made_up
from study.in_process import InProcess, MadeUp

METHODS = ["single-task", "equal", "equal@amtfl", "uw{left|right +left}"]


class Marked(MadeUp):
    """Every trial has a validation error and a network of one number, by its seed and tasks."""

    def __init__(self, errors):
        super().__init__()
        self.errors = errors

    def told(self, trials):
        (trial,) = trials
        error = self.errors[trial.seed] * (1 + len(trial.tasks[0]))
        found = made_up.result({task: [0.5] for task in trial.tasks}, curve={t: [1 - error, 0.0] for t in trial.tasks})
        weights = pack(trial, {"seed": torch.tensor([trial.seed])}) if self.job.keep else None
        return [(0, Finished(found, weights))]


def kept(store, plan):
    with Store(store) as opened:
        return [t for t in plan.trials if opened.networks.has(t)], opened.networks.folder


@pytest.mark.parametrize("order", [[0.1, 0.3, 0.2], [0.3, 0.2, 0.1], [0.2, 0.1, 0.3]])
def test_the_best_seed_of_every_network_stays(tmp_path, order):
    plan = made_up.plan(methods=("single-task", "equal", "dwa"), seeds=3)
    study.run(plan, tmp_path / "s.sqlite", on=Marked(order), keep="best", progress=False)
    best = order.index(min(order))
    assert kept(tmp_path / "s.sqlite", plan)[0] == [t for t in plan.trials if t.seed == best]


def test_a_better_seed_that_comes_later_takes_the_place(tmp_path):
    store, few = tmp_path / "s.sqlite", made_up.plan(methods=("equal",), seeds=2)
    study.run(few, store, on=Marked([0.2, 0.3]), keep="best", progress=False)
    assert [t.seed for t in kept(store, few)[0]] == [0]
    more = made_up.plan(methods=("equal",), seeds=3)
    study.run(more, store, on=Marked([None, None, 0.1]), keep="best", progress=False)
    assert [t.seed for t in kept(store, more)[0]] == [2]


@pytest.mark.parametrize("new", [0.4, 0.05])
def test_what_was_asked_to_be_kept_before_stays(tmp_path, new):
    store, few = tmp_path / "s.sqlite", made_up.plan(methods=("equal",), seeds=3)
    study.run(few, store, on=Marked([0.3, 0.1, 0.2]), keep="all", progress=False)
    more = made_up.plan(methods=("equal",), seeds=4)
    study.run(more, store, on=Marked([None, None, None, new]), keep="best", progress=False)
    assert [t.seed for t in kept(store, more)[0]] == ([0, 2, 3] if new < 0.1 else [0, 1, 2])


def test_all_or_none(tmp_path):
    plan = made_up.plan(methods=("equal", "dwa"), seeds=2)
    study.run(plan, tmp_path / "all", on=Marked([0.1, 0.2]), keep="all", progress=False)
    study.run(plan, tmp_path / "none", on=Marked([0.1, 0.2]), progress=False)
    assert kept(tmp_path / "all", plan)[0] == plan.trials
    found, folder = kept(tmp_path / "none", plan)
    assert found == []
    assert not folder.exists()


def test_a_word_that_is_none_of_them_is_refused(tmp_path):
    with pytest.raises(UnknownNameError, match="value of keep 'some'"):
        study.run(made_up.plan(), tmp_path / "s.sqlite", on=MadeUp(), keep="some", progress=False)


def test_what_is_finished_has_its_network_or_is_not_finished(tmp_path):
    plan, store = made_up.plan(methods=("equal",), seeds=2), tmp_path / "s.sqlite"
    (tmp_path / "s.sqlite.networks").write_text("in the way")
    with pytest.raises(StoreError, match="cannot write the network"):
        study.run(plan, store, on=Marked([0.1, 0.2]), keep="all", progress=False)
    with Store(store) as opened:
        assert opened.finished() == set()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    store = tmp_path_factory.mktemp("kept") / "s.sqlite"
    plan = study.plan("digits", METHODS, seeds=2, epochs=2)
    return store, plan, study.run(plan, store, on=InProcess(), keep="all", progress=False)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_network_that_is_taken_out_has_the_test_value_of_the_study(trained, method, seed):
    store, plan, judgement = trained
    name = next(m.name for m in plan.methods if m.name == method)
    network = study.network(store, name, seed=seed)
    assert not network.training
    problem = load_problem("digits")
    test = problem.data().test
    outputs = network.predict(test.inputs, batch_size=64)
    assert list(outputs) == list(plan.task_names)
    for cell in judgement.cells:
        if cell.method == name:
            task = problem.task(cell.task)
            measured = float(task.metrics[0].function(outputs[cell.task], test.targets[cell.task]))
            assert measured == pytest.approx(cell.values[seed], abs=1e-6)


def test_without_a_seed_it_is_the_best_on_validation_data(trained):
    store, plan, _ = trained
    network = study.network(store, "equal")
    with Store(store) as opened:
        found = {t.seed: r for t, r in opened.results(plan.trials).items() if t in plan.trials_of("equal", 0, t.seed)}

    def product(result):
        at = result.chosen_epoch - 1
        return (1 - result.curves.validation["left"][at]) * (1 - result.curves.validation["right"][at])

    assert network.seeds == (min(found, key=lambda seed: product(found[seed])),)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"method": "eqal"}, UnknownNameError, "Did you mean 'equal'"),
        ({"method": "equal", "seed": 7}, PlanError, "seed=7: the study has the seeds 0, 1"),
        ({"method": "equal", "setting": 1}, PlanError, "setting=1"),
    ],
)
def test_what_the_study_has_not_is_refused_by_name(trained, options, error, says):
    with pytest.raises(error, match=says):
        study.network(trained[0], **options)


def test_an_earlier_study_of_the_store_has_networks_of_its_own(tmp_path, monkeypatch):
    store, names = tmp_path / "s.sqlite", ["single-task", "equal", "uw"]
    first = study.plan("digits", names, seeds=1, epochs=2)
    study.run(first, store, on=InProcess(), keep="best", progress=False)
    study.run(study.plan("digits", names, seeds=1, epochs=1), store, on=InProcess(), keep="best", progress=False)
    for place in (0, 1):
        found = study.judge(store, plan=place)
        which = f", plan={place}" if place else ""
        best = found.recipe.method
        assert any(f"network({str(store)!r}, {best!r}{which})" in line for line in found.recipe.network)
        trained = study.network(store, "equal", plan=place)
        test = load_problem("digits").data().test
        outputs = trained.predict(test.inputs)
        for cell in (each for each in found.cells if each.method == "equal"):
            task = load_problem("digits").task(cell.task)
            measured = float(task.metrics[0].function(outputs[cell.task], test.targets[cell.task]))
            assert measured == pytest.approx(cell.mean, abs=1e-6)
        out = tmp_path / f"{place}.safetensors"
        assert not command(monkeypatch, "export", store, "--method", "equal", "--out", out, "--plan", place)
    one, other = ((tmp_path / f"{place}.safetensors").read_bytes() for place in (0, 1))
    assert one != other


def test_a_file_without_its_row_is_no_network_of_the_study(tmp_path):
    plan = made_up.plan(methods=("equal",), seeds=2)
    study.run(plan, tmp_path / "s.sqlite", on=Marked([0.2, 0.1]), keep="all", progress=False)
    with Store(tmp_path / "s.sqlite") as opened:
        found = kept_trials(plan, opened, "equal")
    assert [trial.seed for trial in found] == [1]
    more = made_up.plan(methods=("equal",), seeds=3)
    (orphan,) = more.trials_of("equal", 0, 2)
    with Store(tmp_path / "s.sqlite", write=True) as opened:
        opened.networks.add(orphan, b"killed before its row was written")
        assert [trial.seed for trial in kept_trials(more, opened, "equal")] == [1]


def test_a_network_that_was_not_kept_says_how_it_is(tmp_path):
    study.run(made_up.plan(), tmp_path / "s.sqlite", on=MadeUp(), progress=False)
    with pytest.raises(StoreError, match="--keep all"):
        study.network(tmp_path / "s.sqlite", "equal")


def test_a_file_that_is_damaged_is_named(tmp_path):
    plan = study.plan("digits", ["equal"], seeds=1, epochs=1)
    study.run(plan, tmp_path / "s.sqlite", on=InProcess(), keep="best", progress=False)
    (file,) = (tmp_path / "s.sqlite.networks").iterdir()
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(StoreError, match=r"safetensors cannot be read"):
        study.network(tmp_path / "s.sqlite", "equal")


def command(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["steelyard", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def test_the_command_writes_a_file_for_any_loader(trained, tmp_path, monkeypatch, capsys):
    store = trained[0]
    out = tmp_path / "model.safetensors"
    for _ in range(2):  # its own file may be written again
        assert not command(monkeypatch, "export", store, "--method", "equal", "--seed", 1, "--out", out)
    assert "equal of seed 1" in capsys.readouterr().out
    with safe_open(out, "pt") as file:
        assert json.loads(file.metadata()["trial"])["seed"] == 1
        own = study.network(store, "equal", seed=1).networks[0].state_dict()
        assert {name: file.get_tensor(name).tolist() for name in file.keys()} == {n: v.tolist() for n, v in own.items()}  # noqa: SIM118
    assert command(monkeypatch, "export", store, "--method", "single-task", "--out", out) == 2
    said = capsys.readouterr().err
    assert (
        "single-task has 2 networks (left; right), and a file of weights holds one: say of which task, --task left or "
        "right" in " ".join(said.split())
    )
    assert command(monkeypatch, "export", store, "--method", "single-task", "--task", "lef", "--out", out) == 2
    assert "unknown task of single-task: 'lef'. Did you mean 'left'?" in " ".join(capsys.readouterr().err.split())
    assert not command(monkeypatch, "export", store, "--method", "single-task", "--task", "left", "--out", out)
    out.write_bytes(b"mine")
    assert command(monkeypatch, "export", store, "--method", "equal", "--out", out) == 2
    assert out.read_bytes() == b"mine"
    assert command(monkeypatch, "export", store, "--method", "equal", "--out", tmp_path / "model.pt") == 2
