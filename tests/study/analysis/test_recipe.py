"""The lines at the end of a page are those of the method that validation favours, and they run."""

import dataclasses
import io

import pytest
import torch
from rich.console import Console
from torch import nn

from steelyard import study
from steelyard.report import from_json, render, to_json
from steelyard.report.study_page import page
from steelyard.study.analysis.make_judgement import judge_plan
from steelyard.study.planning.plan import Choice
from steelyard.study.storage.store import Store
from study import made_up
from study.in_process import InProcess, MadeUp


def judged(tmp_path, methods, errors, seconds=None, kept=()):
    plan = made_up.plan(methods=methods, seeds=2)
    with Store(tmp_path / "s.sqlite", write=True) as store:
        store.add_plan(plan.to_dict())
        for method, error in errors.items():
            for seed in plan.seeds:
                for trial in plan.trials_of(method, 0, seed):
                    curve = {task: [0.2, 1 - error * (seed + 1)] for task in trial.tasks}
                    found = made_up.result(
                        {task: [0.5] for task in trial.tasks}, (seconds or {}).get(method, 10.0), curve=curve
                    )
                    store.add_result(trial, dataclasses.replace(found, chosen_epoch=2))
                    if method in kept:
                        store.networks.add(trial, b"weights")
        return judge_plan(plan, store)


def shown(judgement, width=80):
    out = io.StringIO()
    render(judgement, Console(file=out, width=width))
    return out.getvalue()


def test_it_is_the_method_of_the_smallest_validation_error(tmp_path):
    methods = ("single-task", "equal", "uw", "dwa")
    errors = {"single-task": 0.01, "equal": 0.2, "uw": 0.1, "dwa": 0.3}
    judgement = judged(tmp_path, methods, errors, {"uw": 12.5, "equal": 10.0}, kept=("uw",))
    recipe = judgement.recipe
    assert (recipe.method, recipe.seeds) == ("uw", 2)
    assert recipe.cost == pytest.approx(1.25)
    assert "steelyard.make('uw', ['left', 'right'], scale='sum').attach(optimizer)" in recipe.loop[-3]
    assert f"network({str(tmp_path / 's.sqlite')!r}, 'uw')" in recipe.network[-2]
    said = "uw, the smallest validation error, the mean over 2 seeds; a step took 1.25 steps of the plain sum."
    for text in (" ".join(shown(judgement).split()), page(judgement)):
        assert said in text
    for line in (line for line in (*recipe.loop, *recipe.network) if line):
        assert line in shown(judgement, 60).replace("\n", "") or line in shown(judgement, 400)
    assert to_json(from_json(to_json(judgement))) == to_json(judgement)  # NaN is no number, itself neither


@pytest.mark.parametrize(
    ("errors", "method", "cost"),
    [
        ({"equal": 0.1, "uw": 0.2}, "equal", None),
        ({"equal": 0.2, "uw": 0.2}, "equal", None),  # of equals the first
        ({"dwa": 0.3, "uw": 0.2}, "uw", None),  # without the plain sum nothing is known of its steps
    ],
)
def test_what_it_costs_is_said_where_it_is_known(tmp_path, errors, method, cost):
    recipe = judged(tmp_path, tuple(errors), errors).recipe
    assert (recipe.method, recipe.cost, recipe.network) == (method, cost, [])


def test_one_method_alone_is_no_choice(tmp_path):
    assert judged(tmp_path, ("single-task", "equal"), {"single-task": 0.1, "equal": 0.2}).recipe is None
    assert "In your own loop" not in shown(judged(tmp_path / "2", ("equal", "uw"), {"equal": 0.1}))


def chosen(tmp_path, method):
    """The recipe of a study in which this method is better than the plain sum."""
    plan = study.plan("digits", ["equal", method], seeds=1, epochs=2)
    study.run(plan, tmp_path / "s.sqlite", on=MadeUp(), progress=False)
    with Store(tmp_path / "s.sqlite", write=True) as store:
        (trial,) = plan.trials_of("equal", 0, 0)
        store.add_result(trial, made_up.result({"left": [0.5], "right": [0.5]}, curve={t: [0.5] for t in trial.tasks}))
        recipe = judge_plan(plan, store).recipe
    assert recipe.method == plan.methods[1].name
    return recipe


@pytest.mark.parametrize(
    "method",
    ["uw", "mgda(shared=trunk)", "pcgrad", "log+ema", "moco(shared=trunk)", "adatask(shared=trunk)", "random@mmoe"],
)
def test_the_lines_run_in_a_loop_that_has_what_they_name(tmp_path, method):
    recipe = chosen(tmp_path, method)
    assert ("# in the architecture mmoe" in recipe.loop) == ("mmoe" in method)
    model = nn.ModuleDict({"trunk": nn.Linear(4, 8), "left": nn.Linear(8, 1), "right": nn.Linear(8, 1)})
    model.trunk = model["trunk"]

    def losses():
        features = model.trunk(torch.randn(6, 4))
        return features, {task: model[task](features).square().mean() + 1 for task in ("left", "right")}

    features, found = losses()
    names = {"optimizer": torch.optim.SGD(model.parameters(), lr=0.1), "losses": found, "features": features}
    names |= {"model": model, "losses_1": losses()[1], "losses_2": losses()[1]}
    exec("\n".join(recipe.loop), names)
    assert model.trunk.weight.grad.abs().sum() > 0


def test_a_method_that_looks_again_says_so(tmp_path):
    assert "again=again" in chosen(tmp_path, "auto-lambda").loop[-2]


def test_the_lines_for_the_network_give_it(tmp_path):
    plan = study.plan("digits", ["equal", "uw"], seeds=1, epochs=2)
    judgement = study.run(plan, tmp_path / "s.sqlite", on=InProcess(), keep="best", progress=False)
    names = {"inputs": torch.zeros(3, *_shape(), dtype=torch.float32)}
    exec("\n".join(judgement.recipe.network), names)
    assert {task: len(output) for task, output in names["outputs"].items()} == {"left": 3, "right": 3}


def _shape():
    from steelyard.problems import load_problem

    return load_problem("digits").data().test.inputs.shape[1:]


# --- the lines in full ---


def recipe_of(tmp_path, made, errors, kept=(), seconds=None):
    """The recipe of a study whose networks have these validation errors: ``errors[method]``, or by seed."""
    with Store(tmp_path / "s.sqlite", write=True) as store:
        store.add_plan(made.to_dict())
        for method, error in errors.items():
            for setting in range(len(made.settings)):
                for seed in made.seeds:
                    for trial in made.trials_of(method, setting, seed):
                        by_seed = error if isinstance(error, list) else [error] * len(made.seeds)
                        if by_seed[seed] is None:
                            continue
                        curve = {task: [0.2, 1 - by_seed[seed]] for task in trial.tasks}
                        found = made_up.result(
                            {task: [0.5] for task in trial.tasks}, (seconds or {}).get(method, 10.0), curve=curve
                        )
                        store.add_result(trial, dataclasses.replace(found, chosen_epoch=2))
                        if method in kept:
                            store.networks.add(trial, b"weights")
        return judge_plan(made, store).recipe


def with_method(made, name, **changes):
    """A plan in which one method has these fields."""
    methods = [dataclasses.replace(m, **changes) if m.name == name else m for m in made.methods]
    return dataclasses.replace(made, methods=tuple(methods))


LAST = ["loss = balancer(losses)  # losses: {task: scalar}", "loss.backward()"]


@pytest.mark.parametrize(
    ("name", "planned", "study", "lines"),
    [
        ("uw", {}, {}, ["balancer = steelyard.make('uw', ['left', 'right'], scale='sum').attach(optimizer)", *LAST]),
        ("uw", {"scale": None}, {}, ["balancer = steelyard.make('uw', ['left', 'right']).attach(optimizer)", *LAST]),
        (
            "uw",
            {"chosen": (Choice("uw(learning_rate=0.1)", {"": 0.3}),)},
            {"precision": "bf16"},
            [
                "# learning rate 0.3, as validation data chose",
                "# forward passes under autocast to bf16, losses in float32",
                "balancer = steelyard.make('uw(learning_rate=0.1)', ['left', 'right'], scale='sum').attach(optimizer)",
                *LAST,
            ],
        ),
        (
            "uw",
            {"chosen": (Choice("uw", {"left": 0.3, "right": 0.001}),)},
            {"architecture": "cgc"},
            [
                "# learning rate 0.001, 0.3, as validation data chose",
                "# in the architecture cgc",
                "balancer = steelyard.make('uw', ['left', 'right'], scale='sum').attach(optimizer)",
                *LAST,
            ],
        ),
        (
            "uw@mmoe(experts=3)",
            {"shared": "features"},
            {"architecture": "cgc"},
            [
                "# in the architecture mmoe(experts=3)",
                "balancer = steelyard.make('uw', ['left', 'right'], scale='sum').attach(optimizer)",
                "loss = balancer(losses, shared=features)  # losses: {task: scalar}",
                "loss.backward()",
            ],
        ),
        (
            "mgda",
            {"shared": "trunk"},
            {},
            [
                "balancer = steelyard.make('mgda', ['left', 'right'], scale='sum').attach(optimizer)",
                "loss = balancer(losses, shared=model.trunk)  # losses: {task: scalar}",
                "loss.backward()",
            ],
        ),
        (
            "modo",
            {"shared": "trunk"},
            {},
            [
                "balancer = steelyard.make('modo', ['left', 'right'], scale='sum').attach(optimizer)",
                "loss = balancer(losses, shared=model.trunk, probes=[losses_1, losses_2])  # losses: {task: scalar}",
                "loss.backward()",
            ],
        ),
    ],
)
def test_the_lines_of_a_loop_in_full(tmp_path, name, planned, study, lines):
    made = dataclasses.replace(made_up.plan(methods=("equal", name), seeds=2), **study)
    found = recipe_of(tmp_path, with_method(made, name, **planned), {"equal": 0.2, name: 0.1})
    assert (found.method, found.seeds, found.network) == (name, 2, [])
    assert found.loop == ["import steelyard", "", *lines]


@pytest.mark.parametrize("settings", [1, 3])
def test_the_lines_for_the_network_in_full(tmp_path, settings):
    made = made_up.plan(methods=("equal", "uw"), seeds=1, settings=settings)
    which, option = (", setting=2", " --setting 2") if settings == 3 else ("", "")
    path = tmp_path / "s.sqlite"
    assert recipe_of(tmp_path, made, {"equal": 0.2, "uw": 0.1}, kept=("uw",)).network == [
        "from steelyard.study import network",
        "",
        f"model = network({str(path)!r}, 'uw'{which})  # the best seed on validation data",
        "outputs = model.predict(inputs)  # by task",
    ]
    (tmp_path / "own").mkdir()
    own = dataclasses.replace(made, reference="cd /home/me && python train.py")
    assert recipe_of(tmp_path / "own", own, {"equal": 0.2, "uw": 0.1}, kept=("uw",)).network == [
        "from safetensors.torch import load_file",
        "",
        f"# steelyard export {tmp_path / 'own' / 's.sqlite'} --method uw{option} --out network.safetensors",
        'model.load_state_dict(load_file("network.safetensors"))  # the best seed on validation data',
    ]


def test_the_network_is_that_of_the_most_labels_in_whatever_order_they_were_given(tmp_path):
    made = made_up.plan(methods=("equal", "uw"), seeds=1, settings=3)
    made = dataclasses.replace(made, settings=(made.settings[2], made.settings[0], made.settings[1]))
    assert made.most_labels == 0
    path = tmp_path / "s.sqlite"
    assert recipe_of(tmp_path, made, {"equal": 0.2, "uw": 0.1}, kept=("uw",)).network[2] == (
        f"model = network({str(path)!r}, 'uw')  # the best seed on validation data"
    )


def test_seeds_that_all_have_finished_decide(tmp_path):
    """dwa is the best by its two seeds, and the worse of the two on the one that both have."""
    made = made_up.plan(methods=("single-task", "equal", "dwa"), seeds=2)
    found = recipe_of(tmp_path, made, {"single-task": 0.01, "equal": [None, 0.2], "dwa": [0.001, 0.3]})
    assert (found.method, found.seeds) == ("equal", 1)
    (tmp_path / "none").mkdir()
    assert recipe_of(tmp_path / "none", made, {"equal": [None, 0.2], "dwa": [0.001, None]}) is None


def test_the_mean_of_the_log_error_decides(tmp_path):
    made = made_up.plan(methods=("equal", "dwa"), seeds=2)
    found = recipe_of(tmp_path, made, {"equal": [0.05, 0.4], "dwa": [0.15, 0.16]}, seconds={"equal": 10.0, "dwa": 13.0})
    assert found.method == "equal", "0.02 is less than 0.024, though 0.225 is more than 0.155"
    assert found.cost is None
    (tmp_path / "2").mkdir()
    found = recipe_of(tmp_path / "2", made, {"equal": 0.4, "dwa": 0.1}, seconds={"equal": 10.0, "dwa": 13.0})
    assert (found.method, found.cost) == ("dwa", pytest.approx(1.3))
