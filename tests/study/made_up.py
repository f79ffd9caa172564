"""Plans and results made up for the tests: a study without training."""

import sqlite3

from steelyard.study.planning.arms import parse_arm
from steelyard.study.planning.plan import Plan, PlannedMethod, PlannedMetric, PlannedSetting, PlannedTask
from steelyard.study.storage.store import Store
from steelyard.study.trial import SINGLE_TASK, Curves, Failed, Result

ACCURACY = PlannedMetric("accuracy", higher_is_better=True, ideal=1.0, percent=True)
RMSE = PlannedMetric("RMSE", higher_is_better=False, ideal=0.0, percent=False)
SCORE = PlannedMetric("score", higher_is_better=True, ideal=None, percent=False)


def plan(methods=(SINGLE_TASK, "equal"), seeds=3, settings=1, metrics=(("left", (ACCURACY,)), ("right", (ACCURACY,)))):
    tasks = tuple(PlannedTask(name, f"{name} digit", 0.01, found) for name, found in metrics)
    fractions = [{name: (index + 1) / settings for name, _ in metrics} for index in range(settings)]
    return Plan(
        problem="made-up",
        reference="made-up",
        identity="made-up",
        summary="a study without training",
        tasks=tasks,
        methods=tuple(
            PlannedMethod(
                method, None if method == SINGLE_TASK else "sum", _place(method), architecture=_architecture(method)
            )
            for method in methods
        ),
        settings=tuple(PlannedSetting(given, {"": 10, **{name: 10 for name, _ in metrics}}) for given in fractions),
        seeds=tuple(range(seeds)),
        epochs=2,
        batch_size=8,
        learning_rate=None,
        architecture="hard-sharing",
        parameters=100,
        command="steelyard compare made-up",
        notes=(),
        versions={"steelyard": "0"},
        machine="none",
        created="2026-01-01T00:00:00+00:00",
    )


def _place(method):
    return "trunk" if "shared=trunk" in method else None


def _architecture(method):
    own = parse_arm(method).architecture
    return None if own is None else str(own)


def result(values, seconds=10.0, peak=5.0, last=None, curve=None):
    """A result with these metrics by task; single numbers stand for one metric."""
    test = {task: list(found) if isinstance(found, tuple | list) else [found] for task, found in values.items()}
    flat = curve or {task: [1.0, 0.5] for task in test}
    return Result(test, last or test, 1, 20, seconds, 20 / seconds, peak, Curves(flat, flat, flat))


def fill(store, made, values, seconds=None, setting=0):
    """Write the results of `values[method][seed] -> {task: metrics}`; None stands for a failed trial."""
    for method, by_seed in values.items():
        for seed, found in enumerate(by_seed):
            for trial in made.trials_of(method, setting, seed):
                if found is None:
                    store.add_failure(trial, Failed("ValueError: no", "Traceback"))
                else:
                    chosen = {task: found[task] for task in trial.tasks}
                    store.add_result(trial, result(chosen, (seconds or {}).get(method, 10.0)))


def judged(path, made, values, seconds=None):
    from steelyard.study.analysis.make_judgement import judge_plan

    with Store(path, write=True) as store:
        for setting, found in enumerate(values if isinstance(values, list) else [values]):
            fill(store, made, found, seconds, setting)
        return judge_plan(made, store)


def version_1(path):
    """Turn a store into one of Steelyard 0.1."""
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE plan DROP COLUMN checksum")
        connection.execute("ALTER TABLE trial DROP COLUMN checksum")
        connection.execute("PRAGMA user_version = 1")
    connection.close()
