"""What sharing does to each task, and what would decide it."""

from __future__ import annotations

from steelyard.study.analysis.number_phrases import lowered, method_name
from steelyard.study.analysis.verdict.setting_facts import SettingFacts
from steelyard.study.judgement import Cell


def sharing(here: SettingFacts) -> list[str]:
    """What sharing does to each task: under the plain sum, or under each method where that was not run."""
    methods = [here.plain] if here.plain else here.strategies
    return [sentence for method in methods for sentence in _sharing(here, method)]


def _sharing(here: SettingFacts, method: str) -> list[str]:
    name = method_name(method)
    said = []
    if hurt := here.judged(method, "negative transfer"):
        said.append(f"{name} hurts {here.tasks_in_words(hurt)}: {here.differences(hurt)}.")
    if helped := here.judged(method, "gain"):
        said.append(f"{name} helps {here.tasks_in_words(helped)}: {here.differences(helped)}.")
    if same := here.judged(method, "no difference"):
        those = here.tasks_in_words(same)
        said.append(f"{name} makes no difference that matters for {those}: {here.differences(same)}.")
    undecided = here.judged(method, "undecided")
    for lean in ("worse", "better", ""):
        if not (cells := [cell for cell in undecided if _lean(here, method, cell) == lean]):
            continue
        question = (
            f"{name} seems to make {here.tasks_in_words(cells)} {lean}, but whether by enough to matter is undecided"
            if lean
            else f"Whether {lowered(name)} hurts or helps {here.tasks_in_words(cells)} is undecided"
        )
        said.append(f"{question}: {here.differences(cells)}.{_what_would_decide(here, method, cells)}")
    return said


def _lean(here: SettingFacts, method: str, cell: Cell) -> str:
    """Where the interval that is shown lies wholly on one side of zero, though not beyond what matters."""
    found = cell.difference
    if found is None or found.low <= 0 <= found.high:
        return ""
    return "better" if (found.mean > 0) == here.tasks[cell.task].metrics[0].higher_is_better else "worse"


def _what_would_decide(here: SettingFacts, method: str, cells: list[Cell]) -> str:
    """What is known of why these are open: judging a whole study together, or too few seeds."""
    questions = [found for cell in cells if (found := here.answers.asked(method, here.index, cell.task))]
    alone = [question for question in questions if here.answers.alone(question) is not None]
    text = ""
    if alone:
        which = "it" if len(cells) == 1 else f"{len(alone)} of them"
        text += f" Judged alone {which} would be decided, but not with the rest of the study."
    return text + here.seeds_sentence(questions)
