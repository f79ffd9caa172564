"""Arms as their user writes them: a method, and the architecture that it is tried with."""

import json

import pytest

import steelyard
from cells import every
from steelyard.base.specs import parse_spec
from steelyard.errors import OptionError, UnknownNameError
from steelyard.report.short_names import short_methods, split_method
from steelyard.study.planning.arms import parse_arm, parse_arms
from steelyard.study.planning.make_plan import plan
from steelyard.study.planning.plan import Plan
from steelyard.study.running import forecast
from steelyard.study.running.forecast import estimate


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
        ("single-task(shared=trunk)", OptionError, "takes no options, stages or architecture"),
        ("best-fixed(shared=trunk)", OptionError, "reads no gradients"),
        ("mgda(shared=fetures)", UnknownNameError, "Did you mean 'features'"),
        ("mgda(shared=1)", UnknownNameError, "Known: features, trunk"),
    ],
)
def test_wrong_arms_are_refused_by_name(arm, error, message):
    with pytest.raises(error, match=message):
        plan("digits", [arm], seeds=1)


def test_an_arm_says_where_it_reads_gradients():
    assert str(parse_arm("log+moco( shared = trunk, beta=0.5 )@mmoe")) == "log+moco(beta=0.5,shared=trunk)@mmoe"
    arms = ["mgda", "mgda(shared=trunk)", "mgda(shared=features)", "moco(shared=trunk)@mmoe(experts=2)", "equal"]
    found = plan("digits", arms, seeds=1)
    names = ["mgda", "mgda(shared=trunk)", "moco(shared=trunk)@mmoe(experts=2)", "equal"]
    assert [method.name for method in found.methods] == names, "the study's own place, said once more, is left out"
    trials = [found.trials_of(name, 0, 0)[0] for name in names]
    told = [(trial.method, trial.shared, trial.architecture) for trial in trials]
    assert told == [
        ("mgda", "features", "hard-sharing"),
        ("mgda", "trunk", "hard-sharing"),
        ("moco", "trunk", "mmoe(experts=2)"),
        ("equal", None, "hard-sharing"),
    ]
    assert Plan.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    everywhere = plan("digits", ["mgda", "moco@mmoe(experts=2)", "equal"], seeds=1, shared="trunk")
    assert everywhere.trials == trials[1:], "trained once, by whatever study"
    assert plan("digits", [parse_spec("mgda(shared=trunk)")], seeds=1).methods == found.methods[1:2]
    assert list(short_methods(names[:2]).values()) == ["mgda", "mgda(shared=trunk)"]
    assert split_method(names[2]) == ("moco@mmoe", "moco: shared=trunk; mmoe: experts=2")


def test_a_dry_run_times_each_place(tmp_path, monkeypatch):
    timed = []
    monkeypatch.setattr(
        "steelyard.study.running.forecast._time",
        lambda problem, trial: timed.append(trial.shared) or forecast._Cost(1.0, 1.0),
    )
    estimate(plan("digits", ["mgda", "mgda(shared=trunk)"], seeds=2), tmp_path / "none.sqlite")
    assert timed == ["features", "trunk"]


@every("row", steelyard.methods(), ids=lambda row: row.name)
@pytest.mark.parametrize("place", ["features", "trunk"])
def test_a_place_where_a_method_cannot_read_is_refused_with_both_fixes(row, place, monkeypatch):
    monkeypatch.setattr("steelyard.study.planning.make_plan.rehearse_methods", lambda *given: 1)
    main = {"main": "left"} if "main" in row.options else {}
    weights = {"weights": "left: 1, right: 2"} if row.name == "fixed" else {}
    balancer = steelyard.make(row.name, ["left", "right"], **main, **weights)
    written = str(parse_spec(row.name) if not main and not weights else balancer_spec(row.name, main, weights))
    arm = written[:-1] + f",shared={place})" if written.endswith(")") else f"{written}(shared={place})"
    if not balancer.needs_shared:
        with pytest.raises(OptionError, match=f"{row.name} reads no gradients, so leave shared={place} away"):
            plan("digits", [arm], seeds=1)
    elif place in balancer.where:
        assert plan("digits", [arm], seeds=1).methods[0].shared == place
    else:
        (there,) = balancer.where
        with pytest.raises(
            OptionError, match=rf"at the {place}.* write {row.name}\(.*shared={there}\).*--shared {there}"
        ):
            plan("digits", [arm], seeds=1)
        with pytest.raises(OptionError, match=rf"write {row.name}\(.*shared={there}\)"):
            plan("digits", [written], seeds=1, shared=place)


def balancer_spec(name, main, weights):
    options = {**main, **{key: repr(value) for key, value in weights.items()}}
    return f"{name}({','.join(f'{key}={value}' for key, value in options.items())})"


def test_some_of_the_tasks():
    found = plan("digits", ["single-task", "equal"], tasks=["right"], seeds=1)
    assert [trial.tasks for trial in found.trials] == [("right",), ("right",)]
    with pytest.raises(UnknownNameError, match="Did you mean 'right'"):
        plan("digits", ["equal"], tasks=["rihgt"], seeds=1)
