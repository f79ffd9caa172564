"""The plan of a program's study: what it is asked, and what of the study's options is the program's to do."""

import json
import sys

import pytest

from steelyard.errors import PlanError, SteelyardError
from steelyard.study import plan_program
from steelyard.study.planning.plan import Plan
from steelyard.study.program.declaration import declare


@pytest.fixture
def asked(tmp_path):
    """Plans for a program that answers without importing anything."""

    def make(methods=("single-task", "equal"), rate=0.1, **options):
        answer = declare({"left": "accuracy", "right": "rmse"}, epochs=9, learning_rate=rate).to_dict()
        (tmp_path / "program.py").write_text(
            "import json, os, pathlib\n"
            "question = json.load(open(os.environ['STEELYARD_TRIAL']))\n"
            f"pathlib.Path(question['answer']).write_text({json.dumps(answer)!r})\n"
        )
        words = [sys.executable, "-S", "program.py"]
        return plan_program(words, methods, folder=str(tmp_path), **options)

    return make


def test_patience_and_rows_of_a_seeds_own_are_the_same_for_all_and_told(asked):
    made = asked(patience=3, resplit=True, seeds=2)
    assert {(trial.patience, trial.resplit) for trial in made.trials} == {(3, True)}
    assert made.notes == (
        "a training ends after 3 epochs without a better one on validation data",
        "every seed has its own division of the rows into training, validation and test",
    )
    again = Plan.from_dict(json.loads(json.dumps(made.to_dict())))
    assert (again.patience, again.resplit) == (3, True)
    without = asked(seeds=2)
    assert {(trial.patience, trial.resplit) for trial in without.trials} == {(0, False)}
    assert without.notes == ()


def test_rates_that_are_chosen_on_one_division_are_told(asked):
    assert "learning rates and constant weights are chosen on the division of seed" in " ".join(
        asked(tune=2, resplit=True).notes
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"patience": -1}, "patience=-1 must be a whole number of at least 1"),
        ({"learning_rate": 0.0}, r"learning_rate=0\.0 must be positive and finite"),
        ({"epochs": 0}, "epochs=0 must be"),
        ({"seeds": 0}, "seeds=0"),
        ({"tasks": []}, "no tasks: name at least one"),
        ({"tasks": ["lft"]}, "Did you mean 'left'"),
        ({"settings": []}, "no fractions: give at least one"),
        ({"settings": [0.0]}, r"fraction 0\.0 of 'left': it must be above 0"),
        ({"settings": [{"lft": 0.1}]}, r"fraction 0\.1 of 'lft': the study does not learn this task"),
        ({"rate": None, "tune": 2}, "declares no learning rate"),
        ({"rate": None, "learning_rate": 0.1}, "declares no learning rate"),
    ],
)
def test_what_cannot_be_asked_of_it_is_named(asked, options, says):
    with pytest.raises(SteelyardError, match=says):
        asked(**options)


def test_a_rate_is_given_where_the_program_has_one(asked):
    assert {trial.learning_rate for trial in asked(learning_rate=0.5).trials} == {0.5}
    with pytest.raises(PlanError, match="uw@mmoe"):
        asked(methods=["uw@mmoe"])
