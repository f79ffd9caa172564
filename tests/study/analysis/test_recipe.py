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
    "method", ["uw", "mgda(shared=trunk)", "pcgrad", "log+ema", "moco(shared=trunk)", "random@mmoe"]
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
