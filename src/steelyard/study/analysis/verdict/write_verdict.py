"""The verdict in plain words: whether to share, who is hurt by it, by how much, what repairs it, at what cost."""

from __future__ import annotations

from collections.abc import Sequence

from steelyard.io.lists_and_counts import counted
from steelyard.study.analysis.number_phrases import lowered
from steelyard.study.analysis.questions import Answers
from steelyard.study.analysis.verdict.better_than_sum import better_than_sum
from steelyard.study.analysis.verdict.cost import cost
from steelyard.study.analysis.verdict.overall import overall
from steelyard.study.analysis.verdict.recommendation import recommendation
from steelyard.study.analysis.verdict.repair import repair
from steelyard.study.analysis.verdict.setting_facts import SettingFacts
from steelyard.study.analysis.verdict.sharing import sharing
from steelyard.study.judgement import Cell, Row
from steelyard.study.trial import SINGLE_TASK

_SECTIONS = overall, recommendation, sharing, repair, better_than_sum, cost
"""The answer first."""


def write_verdict(answers: Answers, cells: Sequence[Cell], rows: Sequence[Row]) -> list[str]:
    """Sentences, setting by setting, the answer first; nothing is said that the cells and rows do not show."""
    found = answers.found
    plan = found.plan
    several = len(plan.settings) > 1
    sentences = []
    missing = len(plan.trials) - len(found.results) - len(found.failed)
    if missing:  # before anything that may change with them
        sentences.append(f"Preliminary: {missing} of {len(plan.trials)} trials are not finished.")
    for index, setting in enumerate(plan.settings):
        here = SettingFacts(
            answers, index, [c for c in cells if c.setting == index], [r for r in rows if r.setting == index]
        )
        said = [text for section in _SECTIONS for text in section(here)]
        sentences += [f"With {setting.label} of the labels: {lowered(text)}" if several else text for text in said]
    if not found.has(SINGLE_TASK):
        sentences.append("There is no single-task baseline here: add single-task to see who is hurt by sharing.")
    if len(plan.seeds) == 1:
        sentences.append("One seed cannot tell a difference from chance: run at least 3 seeds, better 5.")
    if len(plan.seeds) == 2:
        sentences.append("Two seeds show only what is very large: run at least 3 seeds, better 5.")
    if found.failed:
        sentences.append(
            f"{counted(len(found.failed), 'trial')} failed and {'is' if len(found.failed) == 1 else 'are'} left out: "
            "the same command tries again."
        )
    return sentences
