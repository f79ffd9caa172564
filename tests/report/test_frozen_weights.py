"""Mean weights of a study as methods for the next."""

from __future__ import annotations

import math
import shlex
from dataclasses import replace

import pytest

import steelyard
from report import judgements
from steelyard.report.frozen_weights import frozen_specs, print_frozen
from steelyard.study.planning.arms import parse_arms
from steelyard.study.trial import SINGLE_TASK


@pytest.mark.parametrize("name", judgements.ALL)
def test_each_line_makes_a_balancer_of_the_mean_weights(name: str) -> None:
    judgement = judgements.ALL[name]()
    tasks = [task.name for task in judgement.tasks]
    curves = {(curve.method, curve.setting): curve for curve in judgement.curves}
    for method, setting, spec in frozen_specs(judgement):
        balancer = steelyard.make(spec, tasks)
        for task in tasks:
            weights = [value for value in curves[method, setting].weights[task] if not math.isnan(value)]
            assert balancer.weights[task] == pytest.approx(sum(weights) / len(weights), rel=1e-3)


@pytest.mark.parametrize(
    ("arm", "frozen"),
    [
        ("uw", "fixed({})"),
        ("log+uw(learning_rate=0.1,shared=trunk)", "fixed({})"),
        ("uw@mmoe(experts=2)", "fixed({})@mmoe(experts=2)"),
        ("uw(scale=paper)@cross-stitch", "fixed(scale=paper,{})@cross-stitch"),
        ("uw{a|b}", "fixed({}){{a|b}}"),
    ],
)
def test_the_method_alone_is_another(arm: str, frozen: str) -> None:
    judgement = judgements.digits()
    curve = next(curve for curve in judgement.curves if curve.method not in ("single-task", "equal"))
    known = replace(judgement, curves=[replace(curve, method=arm)])
    ((_, _, spec),) = frozen_specs(known)
    weights = spec[spec.index("weights=") : spec.rindex("'") + 1]
    assert spec == frozen.format(weights)
    assert str(parse_arms(spec)[0]) == spec


def test_methods_that_stand_still_and_unfinished_ones_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    methods = {method for method, *_ in frozen_specs(judgements.digits())}
    assert methods
    assert not methods & {"single-task", "equal"}
    print_frozen(judgements.nothing())
    assert capsys.readouterr().out.splitlines()[-1] == "  none: no method whose weights move has a finished trial"
    methods = {method for method, *_ in frozen_specs(judgements.diverged())}
    assert "famo" not in methods, "a task that was never present has no mean weight"
    assert "uw" in methods


def test_each_line_names_the_method_and_where_there_are_several_the_setting(capsys: pytest.CaptureFixture[str]) -> None:
    for judgement in (judgements.digits(), judgements.one_task()):
        print_frozen(judgement)
        title, *lines = capsys.readouterr().out.strip().splitlines()
        *lines, title_of_command, command = lines
        assert title.endswith("whether the dynamics matter:")
        assert title_of_command == "With them:"
        labels = {setting.index: setting.label for setting in judgement.settings}
        assert lines == [
            f"  {method}{f' ({labels[setting]})' if len(labels) > 1 else ''}: {spec}"
            for method, setting, spec in frozen_specs(judgement)
        ]
        before, after = (methods_of(text) for text in (judgement.command, command))
        assert after == [*before, *dict.fromkeys(spec for *_, spec in frozen_specs(judgement))]
    assert lines


def methods_of(command: str) -> list[str]:
    words = shlex.split(command)
    return [str(arm) for arm in parse_arms(words[words.index("--methods") + 1]) if str(arm) != SINGLE_TASK]
