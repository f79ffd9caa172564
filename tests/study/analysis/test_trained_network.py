"""Networks taken out of a store: which, in which order, and what is said where there are none."""

from __future__ import annotations

import dataclasses
import re
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from steelyard.errors import PlanError, SteelyardWarning, StoreError, UnknownNameError
from steelyard.study import network
from steelyard.study.analysis import trained_network
from steelyard.study.analysis.trained_network import TrainedNetwork, kept_trials
from steelyard.study.storage.store import Store
from steelyard.study.trial import SINGLE_TASK
from study import made_up
from study.training.small_problem import made

PROGRAM = "cd /home/me && python train.py"


class Fixed(nn.Module):
    """Outputs by task: the inputs times a factor; notes how many rows came at a time."""

    def __init__(self, **factors: float) -> None:
        super().__init__()
        self.factors, self.rows = factors, []
        self.one = nn.Parameter(torch.ones(()))

    def forward(self, inputs):
        x = inputs[0] + inputs[1] if isinstance(inputs, tuple) else inputs
        self.rows.append(len(x))
        return {task: factor * self.one * x for task, factor in self.factors.items()}, x


def several():
    """A network that serves the second task, and one that serves the first and helps itself with the second."""
    problem = made()
    kind, size = problem.task_names
    return problem, TrainedNetwork(
        problem, [((size,), Fixed(**{size: 2.0})), ((kind,), Fixed(**{kind: 3.0, size: 5.0}))], (7, 8)
    )


def test_each_task_is_read_from_the_network_that_serves_it_in_the_problems_order():
    problem, trained = several()
    kind, size = problem.task_names
    outputs = trained(torch.ones(2, 4))
    assert list(outputs) == [kind, size]
    assert (outputs[kind][0, 0].item(), outputs[size][0, 0].item()) == (3.0, 2.0)
    assert (trained.seeds, trained.serves, len(trained.networks)) == ((7, 8), [(size,), (kind,)], 2)


def test_the_network_of_one_task_alone():
    problem, trained = several()
    kind, size = problem.task_names
    for task, seed, place in ((kind, 8, 1), (size, 7, 0)):
        alone = trained.only(task)
        assert (alone.seeds, alone.serves, alone.problem) == ((seed,), [(task,)], problem)
        assert alone.networks[0] is trained.networks[place]
    with pytest.raises(UnknownNameError) as raised:
        trained.only("neither")
    assert (raised.value.kind, raised.value.name) == ("task of the network", "neither")
    assert raised.value.known == sorted((kind, size))


@pytest.mark.parametrize(("size", "batches"), [(None, [16, 16, 8]), (15, [15, 15, 10]), (40, [40]), (100, [40])])
@pytest.mark.parametrize("parts", [1, 2])
def test_rows_are_predicted_a_batch_at_a_time(size, batches, parts):
    """By default twice the problem's."""
    problem = made(
        batch_size=8, prepare=lambda x: tuple(part.double() for part in x) if isinstance(x, tuple) else x.double()
    )
    kind = problem.task_names[0]
    trained = TrainedNetwork(problem, [((kind,), Fixed(**{kind: 3.0}))], (0,))
    x = torch.randn(40, 4)
    given = (x / 4, 3 * x / 4) if parts == 2 else x
    found = trained.predict(given) if size is None else trained.predict(given, size)
    torch.testing.assert_close(found, {kind: 3 * x.double()}, rtol=1e-6, atol=1e-6)
    assert trained.networks[0].rows == batches
    assert not found[kind].requires_grad


# --- which trials ---


def kept(tmp_path, plan, errors, left_out=()):
    """The store of a study whose networks are kept, with these validation errors by method and seed."""
    store = Store(tmp_path / "s.sqlite", write=True)
    store.add_plan(plan.to_dict())
    for method, by_seed in errors.items():
        for seed, error in enumerate(by_seed):
            for place, trial in enumerate(plan.trials_of(method, len(plan.settings) - 1, seed)):
                mine = error[place] if isinstance(error, tuple) else error
                found = made_up.result({t: [0.5] for t in trial.tasks}, curve={t: [1 - mine, 0.0] for t in trial.tasks})
                store.add_result(trial, dataclasses.replace(found, chosen_epoch=1))
                if (method, seed) not in left_out:
                    store.networks.add(trial, b"weights")
    return store


def test_network_by_network_the_best_of_those_that_are_kept(tmp_path):
    plan = made_up.plan(seeds=3, settings=2)
    errors = {SINGLE_TASK: [(0.3, 0.1), (0.2, 0.2), (0.1, 0.3)], "equal": [0.1, 0.3, 0.2]}
    with kept(tmp_path, plan, errors, [("equal", 0)]) as store:
        left, right = kept_trials(plan, store, SINGLE_TASK, setting=1)
        assert [(t.tasks, t.seed, dict(t.fractions)) for t in (left, right)] == [
            (("left",), 2, {"left": 1.0}),
            (("right",), 0, {"right": 1.0}),
        ]
        assert [t.seed for t in kept_trials(plan, store, "equal", setting=1)] == [2], "the best was not kept"
        assert [t.seed for t in kept_trials(plan, store, "equal", 1, 1)] == [1]


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        (
            {"method": "eqal"},
            UnknownNameError,
            "unknown method of the study 'eqal'. Did you mean 'equal'? Known: equal, single-task.",
        ),
        ({"setting": 2}, PlanError, "setting=2: the study has 2, counted from 0"),
        ({"setting": -1}, PlanError, "setting=-1: the study has 2, counted from 0"),
        ({"seed": 3}, PlanError, "seed=3: the study has the seeds 0, 1, 2"),
    ],
)
def test_what_the_study_has_not_in_full(tmp_path, given, error, text):
    plan = made_up.plan(seeds=3, settings=2)
    with kept(tmp_path, plan, {}) as store, pytest.raises(error) as raised:
        kept_trials(plan, store, **{"method": "equal", **given})
    assert str(raised.value) == text


@pytest.mark.parametrize("program", [False, True])
@pytest.mark.parametrize("seed", [None, 1])
def test_what_is_not_kept_in_full(tmp_path, program, seed):
    plan = made_up.plan(seeds=2)
    if program:
        plan = dataclasses.replace(plan, reference=PROGRAM)
    errors = {SINGLE_TASK: [0.2, 0.2], "equal": [0.1, 0.3]}
    which = "none of its networks is kept" if seed is None else "its network of seed 1 is not kept"
    given = " that the program gives, trial.report(…, network=model)," if program else ""
    without = [(method, each) for method in errors for each in (0, 1)]
    with kept(tmp_path, plan, errors, without) as store:
        for method, tasks in (("equal", "left and right"), (SINGLE_TASK, "left")):
            with pytest.raises(StoreError) as raised:
                kept_trials(plan, store, method, seed)
            assert str(raised.value) == (
                f"{method}, {tasks}: {which} in {store.networks.folder}. A study keeps those{given} with --keep all "
                "(in Python keep='all') as trials finish; what is finished is not trained again"
            )


def test_of_a_program_the_store_has_weights_alone(tmp_path):
    plan = dataclasses.replace(made_up.plan(seeds=2), reference=PROGRAM)
    kept(tmp_path, plan, {"equal": [0.1, 0.3]}).close()
    (tmp_path / "a b.sqlite").write_bytes((tmp_path / "s.sqlite").read_bytes())
    path = tmp_path / "a b.sqlite"
    text = (
        f"python train.py builds its networks itself, so that a study has their weights alone: `steelyard export "
        f"'{path}' --method equal --out network.safetensors`, and load them into your own, "
        "model.load_state_dict(safetensors.torch.load_file('network.safetensors'))"
    )
    with pytest.raises(StoreError, match=f"{re.escape(text)}$"):
        network(path, "equal")


def test_an_edit_since_the_training_is_told_by_file(tmp_path, monkeypatch):
    kept(tmp_path, made_up.plan(seeds=1), {}).close()
    code = SimpleNamespace(edited=lambda: ["mine.py", "helper.py"])
    plan = SimpleNamespace(program=None, reference="mine", resplit=False, origin=SimpleNamespace(code=code))
    monkeypatch.setattr(trained_network.Plan, "from_dict", lambda values: plan)
    monkeypatch.setattr(trained_network, "load_problem", lambda reference: made())
    monkeypatch.setattr(trained_network, "kept_trials", lambda *given: [])
    with pytest.warns(SteelyardWarning) as said:
        assert not network(tmp_path / "s.sqlite", "equal").training
    assert str(said[0].message) == (
        "mine.py, helper.py was changed since the network was trained: what is loaded may compute something else"
    )
