"""Training, validation and test data that are the same are told, before a study and above its verdict."""

import dataclasses
import textwrap

import pytest

from steelyard.study.analysis.make_judgement import judge_plan
from steelyard.study.planning.make_plan import plan
from steelyard.study.planning.plan import Tuning
from steelyard.study.planning.same_rows import same_rows
from steelyard.study.storage.store import Store

PROBLEM = """
    import torch
    from torch import nn
    from steelyard.problems import Data, Problem, Split, regression

    x = torch.rand(60, 4, generator=torch.Generator().manual_seed(0))

    def rows(first, last, labels=0):
        return Split(x[first:last], {task: x[first:last, labels + place].clone() for place, task in enumerate("ab")})

    def load():
        return PARTS

    problem = Problem("mine", [regression("a"), regression("b")], load, lambda: nn.Linear(4, 4),
                      lambda task: nn.Linear(4, 1), batch_size=10, epochs=1)
"""
SAID = {
    "rows(0, 20), rows(0, 20), rows(0, 20)": "The test data are the training data",
    "rows(0, 20), rows(20, 40), rows(0, 20)": "The test data are the training data",
    "rows(0, 20), rows(20, 40), rows(20, 40)": "The test data are the validation data",
    "rows(0, 20), rows(0, 20), rows(20, 40)": "The validation data are the training data",
    "rows(0, 20), rows(20, 40), rows(40, 60)": "",
    "rows(0, 20), rows(0, 20, 1), rows(0, 20, 2)": "",  # the nodes of a graph
    "rows(0, 20), rows(20, 40), rows(0, 19)": "",
}


def planned(tmp_path, parts):
    file = tmp_path / "mine.py"
    file.write_text(textwrap.dedent(PROBLEM).replace("PARTS", f"Data({parts})"))
    return plan(str(file), ["equal"], seeds=1)


@pytest.mark.parametrize("parts", SAID)
def test_parts_that_are_the_same_are_told_first(tmp_path, parts):
    made, expected = planned(tmp_path, parts), SAID[parts]
    assert [text.partition(",")[0].partition(":")[0] for text in same_rows(made)] == [expected] * bool(expected)
    with Store(tmp_path / "s", write=True) as store:
        assert judge_plan(made, store).cautions[: bool(expected)] == same_rows(made)


def test_tasks_with_rows_of_their_own_are_looked_at_too(tmp_path):
    own = "{{task: Split(x[{0}:{1}], {{task: x[{0}:{1}, 0].clone()}}) for task in 'ab'}}"
    same = planned(tmp_path, ", ".join(own.format(*ends) for ends in ((0, 20), (20, 40), (0, 20))))
    assert same_rows(same)[0].startswith("The test data are the training data")
    assert not same_rows(planned(tmp_path, ", ".join(own.format(*ends) for ends in ((0, 20), (20, 40), (40, 60)))))


def test_validation_data_that_choose_nothing_may_be_the_test_data(tmp_path):
    made = dataclasses.replace(planned(tmp_path, "rows(0, 20), rows(20, 40), rows(20, 40)"), choose="last")
    assert not same_rows(made)
    assert same_rows(dataclasses.replace(made, tuning=Tuning((0.1, 0.2), 7)))
