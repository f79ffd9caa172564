"""What a command takes over from the studies that its store holds."""

import dataclasses

import pytest

from steelyard.problems import load_problem
from steelyard.report.announcements import divisions_of
from steelyard.study.planning.make_plan import identity
from steelyard.study.storage.store import Store
from study import made_up


@pytest.mark.parametrize(
    "later", [[], ["steelyard group digits"], ["steelyard reproduce ema", "steelyard group digits"]]
)
def test_a_study_goes_on_with_its_rows_whatever_others_chose(tmp_path, later):
    problem, store = load_problem("digits"), tmp_path / "s.sqlite"
    assert divisions_of(problem, store) is None
    made = dataclasses.replace(made_up.plan(), identity=identity(problem))
    with Store(store, write=True) as opened:
        for command, resplit in [("steelyard compare digits", True), *((command, False) for command in later)]:
            opened.add_plan(dataclasses.replace(made, command=command, resplit=resplit).to_dict())
    assert divisions_of(problem, store) is True
    with Store(store, write=True) as opened:
        opened.add_plan(dataclasses.replace(made, command="", resplit=False).to_dict())  # by Python
    assert divisions_of(problem, store) is False
