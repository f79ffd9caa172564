"""Plans: trials follow from them, survive the store, and what cannot work is refused before anything is trained."""

import dataclasses
import json
import textwrap

import pytest

from steelyard.errors import LossError, OptionError, PlanError, ProblemError, UnknownNameError
from steelyard.problems import load_problem
from steelyard.study.planning.make_plan import plan
from steelyard.study.planning.plan import Choice, Plan, PlannedMethod
from steelyard.study.training.diagnose_training import diagnose_training
from steelyard.study.trial import SINGLE_TASK
from study.made_up import plan as made_plan

PROBLEM = """
    import torch
    from torch import nn
    from steelyard.problems import Data, Problem, Split, classification, regression

    def load():
        generator = torch.Generator().manual_seed(0)
        def split(rows):
            x = torch.randn(rows, 4, generator=generator)
            size = x[:, 2].clone()
            size[::2] = torch.nan
            return Split(x, {"kind": (x[:, 0] > 0).long(), "size": size})
        return Data(split(80), split(40), split(40))

    problem = Problem(
        "mine",
        tasks=(classification("kind", 2), regression("size")),
        load=load,
        trunk=lambda: nn.Linear(4, 8),
        head=lambda task: nn.Linear(8, task.outputs),
        batch_size=16,
        epochs=3,
    )
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(textwrap.dedent(PROBLEM))
    return path


def test_single_task_trials_are_shared_between_settings_that_differ_elsewhere(file):
    found = plan(str(file), ["single-task", "equal"], seeds=2, settings=[1.0, {"kind": 0.5}])
    keys = [trial.key for trial in found.trials]
    assert len(keys) == len(set(keys)) == 2 * (2 + 1 + 1 + 1)  # kind, size, equal; then kind and equal at 50 %
    first, second = (found.trials_of(SINGLE_TASK, setting, 0) for setting in (0, 1))
    assert first[1] == second[1]  # `size` keeps all its labels in both
    assert first[0].fractions == (("kind", 1.0),)
    assert second[0].fractions == (("kind", 0.5),)
    assert found.trials_of("equal", 1, 0)[0].fractions == (("kind", 0.5), ("size", 1.0))


def test_a_division_for_every_seed_is_another_trial_and_without_it_no_key_changes(tmp_path):
    able = tmp_path / "able.py"
    able.write_text(
        textwrap.dedent(PROBLEM).replace("def load():", "def load(seed=0):").replace("seed(0)", "seed(seed)")
    )
    fixed, redrawn = (plan(str(able), ["single-task", "equal"], seeds=2, resplit=each) for each in (False, True))
    assert (fixed.redrawable, fixed.resplit) == (True, False)
    assert not {trial.key for trial in fixed.trials} & {trial.key for trial in redrawn.trials}
    assert all("resplit" not in trial.canonical() for trial in fixed.trials)
    assert Plan.from_dict(json.loads(json.dumps(redrawn.to_dict()))).trials == redrawn.trials
    assert any("own division" in note for note in redrawn.notes)
    assert "chosen on the division of seed" in plan(str(able), ["equal"], tune=2, resplit=True).notes[-1]


def test_rows_that_cannot_be_divided_anew_are_refused(file):
    with pytest.raises(ProblemError, match="takes no seed"):
        plan(str(file), ["equal"], resplit=True)
    file.write_text(file.read_text().replace("def load():", "def load(seed=0):"))
    with pytest.raises(ProblemError, match=r"load\(seed=0\) and load\(seed=1\) give the same rows: hand the seed to"):
        plan(str(file), ["equal"], resplit=True)


def test_a_problem_that_wants_its_last_epoch_says_so_and_waits_for_none(file):
    file.write_text(file.read_text().replace("epochs=3,", 'epochs=3, choose="last",'))
    found = plan(str(file), ["equal"])
    assert (found.choose, plan("digits", ["equal"], epochs=1).choose) == ("last", "best")
    assert "networks are judged at their last epoch, whatever validation data say" in found.notes
    with pytest.raises(PlanError, match="patience=2: mine judges networks at their last epoch"):
        plan(str(file), ["equal"], patience=2)
    file.write_text(file.read_text().replace('"last"', '"latest"'))
    with pytest.raises(ProblemError, match=r"choose = 'latest'\. Did you mean 'last'"):
        plan(str(file), ["equal"])


def test_trials_come_seed_by_seed():
    seeds = [trial.seed for trial in made_plan(seeds=3).trials]
    assert seeds == sorted(seeds)


def test_a_plan_survives_json(file):
    found = plan(
        str(file), ["single-task", "ema-scale(beta=0.9)+dwa(temperature=3)"], settings=[{"kind": 0.1}], command="…"
    )
    again = Plan.from_dict(json.loads(json.dumps(found.to_dict())))
    assert again == found
    assert [trial.key for trial in again.trials] == [trial.key for trial in found.trials]


def test_the_problems_own_budget_and_what_overrides_it(file):
    found = plan(str(file), ["equal"])
    assert (found.epochs, found.batch_size, found.learning_rate) == (3, 16, None)
    found = plan(str(file), ["equal"], epochs=7, batch_size=8, learning_rate=0.1, seeds=[4, 2])
    assert (found.epochs, found.batch_size, found.learning_rate, found.seeds) == (7, 8, 0.1, (4, 2))
    assert found.settings[0].steps == {"": 10, "kind": 10, "size": 5}
    assert found.steps(found.trials[0]) == 70


def test_few_labels_need_not_be_few_steps(file):
    """With least steps an epoch takes as many passes as they need, and says so; without, nothing changes, not a key."""
    found = plan(str(file), ["equal"], settings=[1.0, 0.1], batch_size=8, epoch_steps=6)
    assert found.settings[0].steps == {"": 10, "kind": 10, "size": 10}
    assert found.settings[1].steps == {"": 6, "kind": 6, "size": 6}
    assert found.trials[0].epoch_steps == 6
    assert any("at least 6 steps" in note for note in found.notes)
    without = plan(str(file), ["equal"], batch_size=8)
    assert "epoch_steps" not in without.trials[0].canonical()


def test_patience_is_the_same_for_all_and_told(file):
    found = plan(str(file), ["single-task", "equal"], patience=3)
    assert {trial.patience for trial in found.trials} == {3}
    assert any("ends after 3 epochs without a better one" in note for note in found.notes)
    assert Plan.from_dict(found.to_dict()).patience == 3
    without = plan(str(file), ["equal"])
    assert "patience" not in without.trials[0].canonical()
    assert not any("without a better one" in note for note in without.notes)


def test_a_ledger_is_kept_of_joint_networks_and_changes_no_other_key(file):
    found = plan(str(file), ["single-task", "equal"], tune=2, seeds=1, ledger=20)
    assert [trial.ledger for trial in found.trials] == [0, 0, 20]
    without = plan(str(file), ["single-task", "equal"], tune=2, seeds=1)
    assert [trial.key for trial in without.trials[:2]] == [trial.key for trial in found.trials[:2]]
    assert "ledger" not in without.trials[2].canonical()


def test_labels_of_settings(file):
    found = plan(str(file), ["equal"], settings=[1, 0.1, {"kind": 0.015}, 0.1])
    assert [setting.label for setting in found.settings] == ["100 %", "10 %", "kind 1.5 %, size 100 %"]


def test_scale_is_sum_where_it_is_defined_and_the_methods_own_text_wins(file):
    found = plan(str(file), ["ema", "ema(scale=paper)"])
    assert [method.scale for method in found.methods] == ["sum", None]
    assert plan(str(file), ["ema"], scale="paper").methods[0].scale == "paper"
    keys = {trial.key for made in (found, plan(str(file), ["ema"], scale="paper")) for trial in made.trials}
    assert len(keys) == 15


def test_methods_that_serve_a_main_task_serve_the_problems(file):
    with pytest.raises(OptionError, match="give main='kind'"):
        plan(str(file), ["gcs"])
    file.write_text(file.read_text().replace("epochs=3,", "epochs=3, main='size',"))
    found = plan(str(file), ["gcs", "log+gcs(variant=weighted)", "metabalance(main=kind)", "dwa"])
    assert [method.name for method in found.methods] == [
        "gcs(main=size)",
        "log+gcs(main=size,variant=weighted)",
        "metabalance(main=kind)",
        "dwa",
    ]


def test_a_problem_says_where_gradients_are_read_unless_the_study_does(file):
    file.write_text(file.read_text().replace("epochs=3,", "epochs=3, shared='trunk',"))
    assert plan(str(file), ["db-mtl"]).methods[0].shared == "trunk"
    assert plan(str(file), ["db-mtl"], shared="features").methods[0].shared == "features"


def test_a_cross_validation_says_so_and_looks_at_every_fold_first(file):
    text = file.read_text().replace("def load():", "def load(fold):").replace("epochs=3,", "epochs=3, folds=4,")
    file.write_text(text)
    found = plan(str(file), ["equal"], seeds=2)
    assert found.notes == ("4-fold cross-validation: a trial of seed s tests on fold s mod 4",)
    file.write_text(text.replace("size[::2] = torch.nan", "size[:: 2 if fold < 3 else 1] = torch.nan"))
    plan(str(file), ["equal"], seeds=3)
    with pytest.raises(ProblemError, match="every label of 'size' is missing"):
        plan(str(file), ["equal"], seeds=4)


def test_where_gradients_are_read_is_no_part_of_a_trial_that_reads_none(file):
    found = plan(str(file), ["equal", "db-mtl"])
    assert [method.shared for method in found.methods] == [None, "features"]


def test_an_edited_problem_file_is_a_new_problem(file):
    before = plan(str(file), ["equal"]).trials[0]
    assert before.problem.startswith("mine.py@")
    file.write_text(file.read_text().replace("nn.Linear(4, 8)", "nn.Linear(4, 8, bias=False)"))
    after = plan(str(file), ["equal"]).trials[0]
    assert before.key != after.key


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"methods": ["emma"]}, UnknownNameError, "Did you mean 'ema'"),
        ({"methods": ["ema(betta=0.9)"]}, UnknownNameError, "Did you mean 'beta'"),
        ({"methods": ["ema(beta=2)"]}, OptionError, "beta"),
        ({"methods": ["single-task(beta=2)"]}, OptionError, "takes no options"),
        ({"methods": ["log+single-task"]}, OptionError, "takes no options"),
        ({"methods": []}, PlanError, "no methods"),
        ({"settings": [{"knid": 0.5}]}, UnknownNameError, "Did you mean 'kind'"),
        ({"settings": [0.0]}, PlanError, "fraction 0.0 of 'kind': it must be above 0"),
        ({"settings": [1.5]}, PlanError, "at most 1"),
        ({"settings": []}, PlanError, "no fractions"),
        ({"seeds": 99999999999}, PlanError, "seeds=99999999999: give how many, at most 10000"),
        ({"seeds": 0}, PlanError, "seeds=0"),
        ({"seeds": [-1]}, PlanError, "seeds"),
        ({"epochs": 0}, PlanError, "epochs=0 must be a whole number"),
        ({"batch_size": 2.5}, PlanError, "batch_size=2.5"),
        ({"patience": -1}, PlanError, "patience=-1 must be a whole number"),
        ({"epoch_steps": -1}, PlanError, "epoch_steps=-1 must be a whole number"),
        ({"ledger": -1}, PlanError, "ledger=-1 must be a whole number"),
        ({"learning_rate": 0.0}, PlanError, "learning_rate=0.0 must be positive"),
        ({"architecture": "hard-shared"}, UnknownNameError, "Did you mean 'hard-sharing'"),
        ({"shared": "feature"}, UnknownNameError, "Did you mean 'features'"),
    ],
)
def test_wrong_options_are_refused_by_name(file, options, error, message):
    with pytest.raises(error, match=message):
        plan(str(file), **{"methods": ["equal"], **options})


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (("nn.Linear(4, 8)", "nn.Linear(5, 8)"), r"the network on inputs \[\d+, 4\] failed(?s:.*)shapes"),
        (("x[:, 2].clone()", "x[:, 7].clone()"), r"loading the data failed(?s:.*)mine.py, line \d+: IndexError"),
        (("nn.Linear(8, task.outputs)", "nn.Linear(8, task.output)"), r"mine.py, line \d+: AttributeError"),
        (('"size": size}', '"sise": size}'), "no targets for task 'size'"),
    ],
)
def test_a_broken_problem_is_told_with_its_line(file, broken, message):
    file.write_text(file.read_text().replace(*broken))
    with pytest.raises((PlanError, ProblemError), match=message):
        plan(str(file), ["equal"])


def test_a_method_that_cannot_balance_these_losses_is_told_before_training(file):
    text = file.read_text().replace('regression("size")', 'Task("size", lambda o, y: -1 - o.square().mean(), (r2,))')
    file.write_text(text.replace("import Data,", "import Data, Task, r2,"))
    with pytest.raises(LossError, match="size"):
        plan(str(file), ["log+equal"])


@pytest.mark.parametrize("trunk", ["nn.Flatten()", "nn.Linear(4, 8).requires_grad_(False)"])
def test_a_trunk_that_learns_nothing_is_named_to_methods_that_read_gradients_there(file, trunk):
    text = file.read_text().replace("nn.Linear(4, 8)", trunk)
    file.write_text(text.replace("nn.Linear(8, ", "nn.Linear(4, ") if "Flatten" in trunk else text)
    made = plan(str(file), ["equal", "uw"], seeds=1)
    assert [method.name for method in made.methods] == ["equal", "uw"]
    for shared in ("features", "trunk"):
        with pytest.raises(ProblemError, match=r"problem 'mine': what the trunk returns has no .* and mgda bal"):
            plan(str(file), ["mgda"], shared=shared)
    with pytest.raises(ProblemError, match=r"problem 'mine': what the trunk returns has no .* and a diagnosis"):
        diagnose_training(load_problem(str(file)))


@pytest.mark.parametrize("spec", ["db-mtl", "log+equal", "uw"])
def test_a_method_that_an_architecture_would_show_negative_losses_is_told_before_training(file, spec):
    """They turn negative late in training: by then hours may have gone."""
    with pytest.raises(
        LossError,
        match=r"amtfl\(uncertainty=data\) may .*: write amtfl\(uncertainty=none\).* or amtfl\(uncertainty=log1p\)",
    ):
        plan(str(file), ["equal", spec], architecture="amtfl(uncertainty=data)")
    assert plan(str(file), ["equal", spec], architecture="amtfl").trials
    assert plan(str(file), ["equal", spec], architecture="amtfl(uncertainty=log1p)").trials
    assert plan(str(file), ["equal", "mgda"], architecture="amtfl(uncertainty=data)").trials


def test_a_method_that_sends_steps_is_refused_where_it_cannot_have_the_optimizer_or_the_architecture(file):
    methods = ["equal", "adatask(shared=trunk)"]
    assert plan(str(file), methods).trials
    with pytest.raises(OptionError, match=r"adatask.* sends steps, to which the gradient of what amtfl adds"):
        plan(str(file), methods, architecture="amtfl")
    text = file.read_text().replace("batch_size=16", "batch_size=16, optimizer=torch.optim.Adagrad")
    file.write_text(text)
    with pytest.raises(OptionError, match=r"write adatask\(form=adagrad, epsilon=1e-10\)"):
        plan(str(file), methods)
    assert plan(str(file), ["equal", "adatask(form=adagrad,epsilon=1e-10,shared=trunk)"]).trials


@pytest.mark.parametrize(
    ("weights", "rates", "text"),
    [
        ("a: 1, b: 0.3", {}, "a 1, b 0.3"),
        ("a: 1, b: 1, c: 3, d: 1, e: 1", {}, "c 3, others 1"),
        ("a: 1, b: 1, c: 1, d: 1, e: 1", {"": 0.01}, "all 1; rate 0.01"),
        ("a: 1, b: 2, c: 3, d: 4, e: 5", {}, "a 1, b 2, c 3, d 4, e 5"),
        ("a: 1, b: 0.3", {"a": 0.1, "b": 0.2}, "a 1, b 0.3; rate a 0.1, b 0.2"),
        ("a: 1, b: 0.3", dict(zip("abcde", (0.1, 0.2, 0.3, 0.1, 0.1), strict=True)), "a 1, b 0.3; rates 0.1 to 0.3"),
    ],
)
def test_what_was_chosen_fits_a_line(weights, rates, text):
    method = PlannedMethod("best-fixed", scale=None, candidates=("equal",))
    chosen = (Choice(f'fixed(weights="{weights}")', rates),)
    made = dataclasses.replace(made_plan(), methods=(dataclasses.replace(method, chosen=chosen),))
    assert made.chosen_text("best-fixed", 0) == text
