"""Outcomes of studies that were never trained: what judges are tried on."""

import numpy as np

from steelyard.reproductions.reproduction import Experiment, Outcome
from steelyard.study.analysis.make_judgement import findings, judge_findings
from steelyard.study.judgement import OtherMetric
from steelyard.study.storage.store import Store
from study.made_up import ACCURACY, fill, plan

NOISE = (0.001, -0.001, 0.0, 0.0005, -0.0005)
SHIFTED = (-0.001, 0.0005, 0.0, 0.001, -0.0005)  # of single tasks: no difference is exactly the same in all seeds
DRAWN = np.array([1.2, -0.9, 0.6, -1.1, 0.2])  # of deviation one
CLEAR_ALONE = 3.3 * DRAWN.std(ddof=1) / 5**0.5  # a mean of so many deviations has p = 0.03 by itself
LITTLE = (1e-5, -1e-5, 2e-5, -2e-5, 0.0)


def the(findings_, words):
    """The finding, at any depth, whose claim holds these words."""
    for each in findings_:
        if words in each.claim:
            return each
        if (found := the(each.parts, words)) is not None:
            return found
    return None


def judged(path, made, values):
    with Store(path, write=True) as store:
        fill(store, made, values)
        found = findings(made, store)
    return Outcome(Experiment("made up", "", "made-up", ""), found, judge_findings(found))


def stored(path, levels, noises, tasks=("left", "right"), base=0.9):
    """Arms at a level by task, each with a noise of its own by seed."""
    made = plan(tuple(levels), seeds=len(next(iter(noises.values()))), metrics=tuple((t, (ACCURACY,)) for t in tasks))
    values = {
        arm: [
            {task: (level[task] if isinstance(level, dict) else level) + each for task in tasks}
            for each in noises.get(arm, [0.0] * len(made.seeds))
        ]
        for arm, level in levels.items()
    }
    return judged(path, made, values)


def together(arm, levels):
    """The test error of all tasks together of one arm, by seed."""
    mean = sum(levels) / len(levels)
    return OtherMetric(arm, 0, None, "test error", False, True, dict(enumerate(levels)), mean, 0.0, None)
