"""Arms as their user writes them: a method, and the architecture that it is tried with."""

import json

import pytest

from steelyard.errors import OptionError, UnknownNameError
from steelyard.study.planning.arms import parse_arm, parse_arms
from steelyard.study.planning.planner import plan
from steelyard.study.planning.plans import Plan


def test_an_arm_reads_as_it_is_written():
    found = [str(arm) for arm in parse_arms("equal, log+pcgrad@mmoe(gate=input, experts=2), fixed(weights='a: 1@2')")]
    assert found == ["equal", "log+pcgrad@mmoe(experts=2,gate=input)", "fixed(weights='a: 1@2')"]
    assert parse_arm("log+pcgrad@mmoe").name == "log+pcgrad@mmoe"
    with pytest.raises(OptionError, match="names 2 architectures"):
        parse_arm("equal@mmoe@ple")


def test_an_arm_trains_its_own_architecture_and_old_trials_keep_their_keys():
    alone = plan("digits", ["equal"], seeds=1)
    found = plan("digits", ["single-task", "equal", "equal@mmoe(experts=2)", "dwa@hard-sharing"], seeds=1)
    assert [method.name for method in found.methods] == ["single-task", "equal", "equal@mmoe(experts=2)", "dwa"]
    (mixture,) = found.trials_of("equal@mmoe(experts=2)", 0, 0)
    assert (mixture.method, mixture.architecture) == ("equal", "mmoe(experts=2)")
    assert found.trials_of("equal", 0, 0) == alone.trials_of("equal", 0, 0)
    assert '"architecture"' not in alone.trials[0].canonical()
    assert found.parameters > alone.parameters
    assert Plan.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize(
    ("arm", "error", "message"),
    [
        ("equal@mmoo", UnknownNameError, "Did you mean 'mmoe'"),
        ("equal@mmoe(expert=2)", UnknownNameError, "Did you mean 'experts'"),
        ("single-task@mmoe", OptionError, "takes no options, stages or architecture"),
    ],
)
def test_wrong_arms_are_refused_by_name(arm, error, message):
    with pytest.raises(error, match=message):
        plan("digits", [arm], seeds=1)


def test_some_of_the_tasks():
    found = plan("digits", ["single-task", "equal"], tasks=["right"], seeds=1)
    assert [trial.tasks for trial in found.trials] == [("right",), ("right",)]
    with pytest.raises(UnknownNameError, match="Did you mean 'right'"):
        plan("digits", ["equal"], tasks=["rihgt"], seeds=1)
