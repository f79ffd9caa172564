"""What stored trials say of a reproduction: nothing is trained, and whoever has them needs no training data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from steelyard.base.specs import parse_spec
from steelyard.errors import StoreError
from steelyard.problems import load_problem
from steelyard.reproductions.reproduction import Experiment, Outcome, Reproduction, Size
from steelyard.reproductions.run_reproduction import outcome_of, summarise
from steelyard.reproductions.summary import Summary
from steelyard.study.planning.arms import parse_arms
from steelyard.study.planning.plan import Plan
from steelyard.study.storage.merging import merge
from steelyard.study.storage.store import Store
from steelyard.study.storage.trials_file import is_trials_file
from steelyard.study.trial import Result, Trial


def judged_from(reproduction: Reproduction, size: Size, source: Path) -> Summary:
    """Judge a reproduction by the trials of a store, or of a file of trials, as the run that trained them did.

    Where a problem has metrics of all tasks together, its test data are read for their labels.

    Raises:
        StoreError: the file is missing, neither of both, or holds no study of this reproduction at this size.
    """
    planned = reproduction.experiments(size)
    with _as_store(source) as store:
        with Store(store) as opened:
            plans = [Plan.from_dict(content) for content in opened.plans()]
        outcomes: list[Outcome] = []
        results: dict[Trial, Result] = {}
        command = ""
        for experiment in planned:
            made = next((plan for plan in plans if fits(plan, experiment)), None)
            if made is None:
                continue
            outcome, trained = outcome_of(experiment, made, store)
            results |= trained
            outcomes.append(outcome)
            command = made.command
    if not outcomes:
        raise StoreError(
            f"{source} holds no study of {reproduction.name} at its {size} size; its studies are of "
            f"{', '.join(dict.fromkeys(plan.reference for plan in plans)) or 'nothing'}"
        )
    training = sum(result.seconds for result in results.values())
    return summarise(reproduction, size, outcomes, planned, training, command)


def fits(plan: Plan, experiment: Experiment) -> bool:
    """Whether a stored plan is one of this experiment, whatever its seeds."""
    epochs = load_problem(experiment.problem).epochs if experiment.epochs is None else experiment.epochs
    return (
        plan.reference in (experiment.problem, str(parse_spec(experiment.problem)))
        and {method.name for method in plan.methods} == {str(arm) for arm in parse_arms(experiment.methods)}
        and plan.task_names == (experiment.tasks or plan.task_names)
        and len(plan.settings) == len(experiment.settings)
        and plan.epochs == epochs
        and (len(plan.tuning.rates) if plan.tuning else 0) == experiment.tune
    )


@contextmanager
def _as_store(source: Path) -> Iterator[Path]:
    if not is_trials_file(source):
        yield source
        return
    with TemporaryDirectory() as folder:
        store = Path(folder) / "trials.sqlite"
        merge(store, [source])
        yield store
