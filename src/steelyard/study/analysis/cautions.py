"""What bears on every verdict of a study and so comes before it: networks that were still learning, or never began."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from steelyard.io.lists_and_counts import first_few, listed
from steelyard.problems.metrics import r2
from steelyard.study.analysis.trial_results import TrialResults
from steelyard.study.judgement import Cell
from steelyard.study.planning.plan import FEW_TEST_ROWS, JOINT, Plan, PlannedSetting, PlannedTask
from steelyard.study.planning.tuning import outermost
from steelyard.study.training.sampling import kept_count
from steelyard.study.trial import SINGLE_TASK, Trial

NAMED = 4  # so many are named, the others counted
STEPS_APART = 3.0  # times the steps of a task alone
SHORT = 3  # epochs below which the first one says nothing
FEWEST_TRAININGS = 2  # of an arm: one may end at its best by chance
ENDED = 0.02  # of the learning rate: a schedule that ends so low has ended
FEW_LABELS = 1 / 20  # of the labels of the task with the most


def cautions(found: TrialResults) -> list[str]:
    """Findings that come before the verdict, the gravest first."""
    return [
        *_unequal_steps(found),
        *_unlike_starts(found),
        *_worse_than_the_mean(found),
        *_nothing_learnt(found),
        *_still_improving(found),
        *_at_the_edge(found),
        *_tuned_once(found),
        *_few_labels(found),
        *_few_test_rows(found),
    ]


def _unlike_starts(found: TrialResults) -> list[str]:
    """Trials of one seed are compared, and shall differ by what is compared alone; a program sees to that itself."""
    by_seed: dict[int, list[dict[str, str]]] = {}
    for trial, result in found.results.items():
        if result.start:
            by_seed.setdefault(trial.seed, []).append(result.start)
    unlike: dict[str, None] = {}
    for starts in by_seed.values():
        common = set.intersection(*map(set, starts))
        unlike |= {name: None for name in starts[0] if name in common and len({each[name] for each in starts}) > 1}
    if not unlike:
        return []
    names = listed(list(unlike)[:NAMED]) + (f" and {len(unlike) - NAMED} more" if len(unlike) > NAMED else "")
    return [
        f"Trials of one seed do not start alike: {names}. They differ by chance too, and intervals are wider for it: "
        "build its parts by trial.part(name, build), or write torch.manual_seed(trial.seed) before the network is "
        "built, the shared part first."
    ]


def _unequal_steps(found: TrialResults) -> list[str]:
    """More steps are more training: what a joint network gains by them is no gain of sharing."""
    plan = found.plan
    if not found.has(SINGLE_TASK) or len(plan.tasks) < 2:
        return []
    pairs = [pair for setting in range(len(plan.settings)) for pair in _steps_in_pairs(found, setting)]
    ratios: dict[str, float] = {}
    for name, own, together in pairs:
        ratios[name] = max(ratios.get(name, 0.0), together / own)
    far = sorted((name for name, ratio in ratios.items() if ratio > STEPS_APART), key=lambda name: -ratios[name])
    if not far:
        return []
    labels = {task.name: task.label for task in plan.tasks}
    most = round(max(together for _, _, together in pairs))
    said = listed([f"{labels[name]} ({ratios[name]:.1f} times)" for name in far[:NAMED]])
    more = f" and {len(far) - NAMED} more" if len(far) > NAMED else ""
    cure = plan.hint(f" with --epoch-steps {most}") if plan.program is None else f", {most}, in the program"
    return [
        f"The joint networks take more steps than the task alone in the same epochs: {said}{more}. A difference may be "
        f"one of training, not of sharing: give all the same steps{cure}."
    ]


def _steps_in_pairs(found: TrialResults, setting: int) -> list[tuple[str, float, float]]:
    """(task, steps of its own network, of a joint one): planned ones in an epoch, of a program those that it took."""
    planned = found.plan.settings[setting].steps
    pairs: list[tuple[str, float, float]] = []
    for task in found.plan.task_names:
        own, together = float(planned.get(task, 0)), float(planned.get(JOINT, 0))
        if found.plan.program is not None:
            counts = [found.steps(method.name, setting, task).values() for method in found.plan.methods]
            medians = {
                method.name: statistics.median(each)
                for method, each in zip(found.plan.methods, counts, strict=True)
                if each
            }
            own, together = medians.pop(SINGLE_TASK, 0.0), max(medians.values(), default=0.0)
        if own and together:
            pairs.append((task, own, together))
    return pairs


def _worse_than_the_mean(found: TrialResults) -> list[str]:
    """R² below zero: predicting the mean of the test targets would err less."""
    below = {
        (method.name, setting, task): mean
        for method in found.plan.methods
        for setting in range(len(found.plan.settings))
        for task in found.plan.tasks
        if (mean := _mean_r2(found, method.name, setting, task)) is not None and mean < 0
    }
    if not below:
        return []
    several = len(found.plan.settings) > 1
    worst = [
        f"{method} on {task.label}"
        + (f" with {found.plan.settings[setting].label} of the labels" if several else "")
        + f" (−{-mean:{'.2f' if mean < -0.005 else '.2g'}})"
        for (method, setting, task), mean in sorted(below.items(), key=lambda each: each[1])
    ]
    said = "; ".join(worst[:NAMED]) + (f"; and {len(worst) - NAMED} more" if len(worst) > NAMED else "")
    alone = {(setting, task) for method, setting, task in below if method == SINGLE_TASK}
    neither = [(setting, task) in alone for method, setting, task in below if method != SINGLE_TASK]
    end = ""
    if alone:
        end = " Neither side of such a comparison has learnt much."
        if not all(neither):
            end = " Where single-task learning is among them, neither side of the comparison has learnt much."
    return [f"Worse than predicting the mean (R² below zero): {said}.{end}"]


def _mean_r2(found: TrialResults, method: str, setting: int, task: PlannedTask) -> float | None:
    places = [place for place, metric in enumerate(task.metrics) if metric.name == r2.name]
    by_seed = found.metrics(method, setting, task.name)
    return statistics.fmean(values[places[0]] for values in by_seed.values()) if places and by_seed else None


def _nothing_learnt(found: TrialResults) -> list[str]:
    """Where validation wants the network after one epoch, the others made it worse."""
    results = list(found.results.values())
    first = sum(result.chosen_epoch == 1 for result in results)
    if found.plan.epochs < SHORT or not results or first * 2 < len(results):
        return []
    return [
        f"Validation chose the first epoch in {first} of {len(results)} trainings: what came after made them worse. "
        f"Try a smaller learning rate{found.plan.hint(' (--tune 5)')}, or more regularisation."
    ]


def _tuned_once(found: TrialResults) -> list[str]:
    """What is chosen on one seed is chosen by its noise too."""
    tuning = found.plan.tuning
    if tuning is None or tuning.more:
        return []
    where = "fold" if found.plan.folds > 1 else "seed"
    candidates = any(method.candidates for method in found.plan.methods)
    what = " and ".join(["learning rates"] * bool(tuning.rates) + ["constant weights"] * candidates)
    return [
        f"{what.capitalize()} were chosen on one {where} alone: another may choose others"
        f"{found.plan.hint(' (--tune-seeds 3)')}."
    ]


def _few_labels(found: TrialResults) -> list[str]:
    """A task with a twentieth of the labels may have a share of every step that they do not support."""
    plan = found.plan
    said: dict[tuple[str, int], None] = {}
    for setting in plan.settings:
        known = [task for task in plan.tasks if task.train_rows]
        rows = {task: kept_count(task.train_rows, setting.fractions.get(task.name, 1.0)) for task in known}
        most = max(rows.values(), default=0)
        few = {task: count for task, count in rows.items() if count <= round(FEW_LABELS * most)}
        if few:
            named = first_few([f"{task.label} {count}" for task, count in few.items()], NAMED)
            said[named, most] = None
    return [
        f"Few labels: {named}, where another task has {most}. In a batch such a task has few rows, and its loss "
        "weighs as much as any other's."
        for named, most in said
    ]


def _few_test_rows(found: TrialResults) -> list[str]:
    """With few test rows another division of the rows may give another picture."""
    plan = found.plan
    few = [task for task in plan.tasks if 0 < task.test_rows < FEW_TEST_ROWS]
    if not few or plan.folds > 1 or plan.resplit:
        return []
    said = first_few([f"{task.label} {task.test_rows}" for task in few], NAMED)
    instead = (
        ": give every seed its own with --resplit"
        if plan.redrawable
        else ": a problem with folds= tests on all rows, and one whose load() takes a seed divides them anew "
        "(--resplit)"
    )
    return [
        f"Few test labels: {said}. Verdicts are about this division of the rows, and another one may give "
        f"another picture{plan.hint(instead)}."
    ]


def within_other_rows(found: TrialResults, cells: Sequence[Cell]) -> list[str]:
    """What is decided over seeds and may be these test rows' doing: within what others would move it by."""
    labels = {task.name: task.label for task in found.plan.tasks}
    close = [
        f"{cell.method} on {labels[cell.task]}"
        for cell in cells
        if cell.verdict in ("gain", "negative transfer") and cell.rows_half is not None and cell.difference is not None
        if abs(cell.difference.mean) <= cell.rows_half
    ]
    if not close:
        return []
    instead = "--resplit" if found.plan.redrawable else "more test rows, or a division for every seed (--resplit)"
    would = found.plan.hint(f" What would tell: {instead}.")
    return [
        f"Decided over seeds, and within what other test rows of the same number might move it by: "
        f"{first_few(list(dict.fromkeys(close)), NAMED)}.{would}"
    ]


def _still_improving(found: TrialResults) -> list[str]:
    """A verdict on networks that had not finished learning is a verdict on the number of epochs.

    Where most had finished, an arm that had not is behind for that alone: at few labels it may be all of them.
    """
    plan, results = found.plan, list(found.results.values())
    epochs = plan.epochs
    last = sum(result.chosen_epoch == epochs for result in results)
    # The last epoch is the best one where the rate fell to nothing, and the chosen one where nothing is chosen.
    ended = plan.final_rate <= ENDED or plan.choose == "last"
    if epochs < 2 or not last or ended:
        return []
    longer = f"Train longer before you rely on this{plan.again(epochs=2 * epochs)}"
    if last * 2 >= len(results):
        return [
            f"Validation chose the last epoch in {last} of {len(results)} trainings: they were still improving. "
            f"{longer}"
        ]
    arms = _improving_arms(found)
    if not arms:
        return []
    return [
        f"Still improving at the last epoch, where most others had ended: {first_few(arms, NAMED)}. What they lack "
        f"may be training. {longer}"
    ]


def _improving_arms(found: TrialResults) -> list[str]:
    """``uw (5 of 5 trainings)``: arms of whose trainings most ended at their best, those with the largest share first.

    Each amount of labels by itself, and each task's own network: what one lacks the others do not make up for.
    """
    plan = found.plan
    by_arm: dict[str, dict[Trial, bool]] = {}
    for name in (method.name for method in plan.methods):
        for place in range(len(plan.settings)):
            for _, trial in found.trials(name, place):
                if trial in found.results:
                    at_best = found.results[trial].chosen_epoch == plan.epochs
                    by_arm.setdefault(_network(plan, name, trial), {})[trial] = at_best
    those = {arm: each for arm, each in by_arm.items() if 2 * sum(each.values()) > len(each) >= FEWEST_TRAININGS}
    most = sorted(those.items(), key=lambda item: -sum(item[1].values()) / len(item[1]))
    return [f"{arm} ({sum(each.values())} of {len(each)} trainings)" for arm, each in most]


def _network(plan: Plan, arm: str, trial: Trial) -> str:
    """``uw``, ``single-task on left digit``, ``uw with 2 % of the labels``."""
    labels = [task.label for task in plan.tasks if task.name in trial.tasks]
    of_tasks = f" on {listed(labels)}" if len(labels) < len(plan.tasks) else ""
    amounts = PlannedSetting(dict(trial.fractions), {}).label
    return f"{arm}{of_tasks}" + (f" with {amounts} of the labels" if len(plan.settings) > 1 else "")


def _at_the_edge(found: TrialResults) -> list[str]:
    """Where most networks want the largest rate that was tried, or the smallest, better ones may lie beyond."""
    plan = found.plan
    if plan.tuning is None or not plan.tuning.rates:
        return []
    choices = [choice for method in plan.methods for choice in method.chosen]
    chosen = [rate for choice in choices for rate in choice.learning_rates.values()]
    said, tried = [], len(plan.tuning.rates)
    further = f" and {plan.tuning.beyond} further" if plan.tuning.beyond else ""
    for word in ("largest", "smallest"):
        edge = outermost(plan.tuning.rates, plan.tuning.beyond, word == "largest")
        here = chosen.count(edge)
        if here * 2 > len(chosen):
            around = plan.hint(f" Try around it{plan.again(tune=tried, learning_rate=edge)}")
            said.append(
                f"Validation chose the {word} of {tried}{further} learning rates ({edge:g}) for {here} of "
                f"{len(chosen)} networks: better ones may lie beyond.{around}"
            )
    return said
