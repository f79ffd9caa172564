"""Outcomes made up for judges."""

import dataclasses

import pytest

from reproductions.made_up_outcomes import NOISE, SHIFTED
from steelyard.reproductions.reproduction import Experiment, Outcome
from steelyard.study.analysis.make_judgement import findings, judge_findings
from steelyard.study.storage.store import Store
from study.made_up import ACCURACY, fill, plan


@pytest.fixture
def outcome(tmp_path):
    """``outcome(name, {arm: accuracy of both tasks})``: five seeds; None: an arm that never finished."""

    def made(name, by_arm, tasks=("left", "right"), main=None, joint=(), problem="made-up"):
        drawn = plan(tuple(by_arm), seeds=5, metrics=tuple((task, (ACCURACY,)) for task in tasks))
        drawn = dataclasses.replace(drawn, main=main)
        values = {}
        for place, (arm, level) in enumerate(by_arm.items()):
            levels = level if isinstance(level, dict) else dict.fromkeys(tasks, level)
            noise = SHIFTED if arm == "single-task" else NOISE
            # No two arms agree exactly in all seeds: such a tie is no evidence.
            noise = [each + 1e-5 * place * (-1) ** seed for seed, each in enumerate(noise)]
            if level is not None:
                values[arm] = [{task: levels[task] + each for task in tasks} for each in noise]
        with Store(tmp_path / f"{name}.sqlite", write=True) as store:
            fill(store, drawn, values)
            found = findings(drawn, store)
        judgement = dataclasses.replace(judge_findings(found), others=list(joint))
        return Outcome(Experiment(name, "", problem, ",".join(by_arm)), found, judgement)

    return made
