"""`steelyard group`: train single tasks and one network for all, search, and judge what was found on fresh seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.progress import Progress

from steelyard.errors import GroupingError, SteelyardError
from steelyard.grouping.affinity_correlation import Affinity, judged
from steelyard.grouping.effects import Matrix
from steelyard.grouping.grouping_result import GroupingResult
from steelyard.grouping.grouping_text import gain_text, write_words
from steelyard.grouping.other_half import noise_of, only_network, paid_on_the_other_half
from steelyard.grouping.proposals import Subset
from steelyard.grouping.search import Grouping, best_of, check_request, choose, search
from steelyard.grouping.train_subset import SEED, Measuring, changes, gains
from steelyard.problems import load_problem
from steelyard.problems.guard import guarded
from steelyard.study.analysis.joint_metrics import with_joint
from steelyard.study.analysis.make_judgement import findings, judge_findings
from steelyard.study.analysis.statistics import interval
from steelyard.study.judgement import Interval, Judgement
from steelyard.study.planning.arm_networks import Network
from steelyard.study.planning.arms import Arm, parse_arm
from steelyard.study.planning.make_plan import plan as make_plan
from steelyard.study.planning.plan import Plan
from steelyard.study.planning.readable_arms import first_names, readable_methods, renamed
from steelyard.study.running.engines import load_engine
from steelyard.study.running.engines.interface import Engine, device_for
from steelyard.study.running.run_plan import job_of, run, train_missing
from steelyard.study.running.stop_signals import ending_in_order
from steelyard.study.storage.store import Store
from steelyard.study.training.diagnose_training import diagnose_training
from steelyard.study.training.hardware import CPU
from steelyard.study.trial import SINGLE_TASK, Result, Trial

MOST_POINTS = 20
"""Numbers of subsets after which the choice is made again, for the curve."""


def group(
    problem: str,
    *,
    budget: float,
    networks: int,
    store: Path | str,
    method: str = "equal",
    seeds: int | Sequence[int] = 5,
    efforts: Sequence[float] = (1.0,),
    workers: int | None = None,
    device: str = CPU,
    per_device: int = 1,
    progress: bool | Progress = True,
    reuse_any: bool = False,
    on: Engine | str = "local",
    checkpoints: Path | str | None = None,
    say: Callable[[str], None] = lambda text: None,
    affinities: bool = True,
    **options: Any,
) -> GroupingResult:
    """Find which tasks should share a network, and judge it.

    Args:
        problem: a name or a file, as `steelyard.study.plan` takes it.
        budget: trainings of one network for the search, the one for all tasks included; single tasks come on top.
        networks: the most that may be served.
        store: the SQLite file; shared with `compare`. The same call goes on where it was stopped.
        method: balances every network of several tasks: ``uw``, ``mgda(shared=trunk)``, ``equal@mmoe``.
        seeds: on which single tasks, one network for all and the grouping are judged. Subsets are tried on another one.
        efforts: as `search` has them.
        workers, per_device, progress, reuse_any, on, checkpoints: as `steelyard.study.run` has them.
        device: where trials train; ``"auto"`` takes GPUs where the engine has them.
        say: told what is known so far, a line at a time.
        affinities: measure how tasks' gradients get along, in a short training of the plain sum in this process, and
            tell how far that would have predicted the gains. Nothing is chosen by it.
        options: further ones of `steelyard.study.plan`: tasks, epochs, batch_size, architecture, …

    Raises:
        GroupingError: the budget or the number of networks makes no sense, or a task cannot be trained alone.
        SteelyardError: the problem or the method cannot be trained.
    """
    arm = _one_arm(method)
    check_request(budget, networks, efforts)
    engine = load_engine(on) if isinstance(on, str) else on
    options["device"] = device_for(engine, device)
    engine.get_ready()
    settings: dict[str, Any] = {"workers": workers, "progress": progress, "reuse_any": reuse_any}
    settings |= {"on": engine, "checkpoints": checkpoints, "per_device": per_device}
    base = make_plan(problem, [SINGLE_TASK, arm], seeds=seeds, **options)
    if SEED in base.seeds:
        raise GroupingError(f"seed {SEED} is the one that subsets are tried on: choose others to judge by")
    if len(base.tasks) < 2:
        raise GroupingError(f"{base.task_names[0]} is the only task: nothing can be grouped")
    run(base, store, **settings)
    base = _reusing(base, store, reuse_any)
    first, over_seeds = _one_for_all(base, store)
    own = choose(base.task_names, first, networks)
    say(_so_far(base, first, own))
    trying = make_plan(problem, [SINGLE_TASK, arm], seeds=[SEED], **options)
    trying = dataclasses.replace(trying, also=base.also)

    with ending_in_order(), Store(store, write=True) as opened:

        def train(plan: Plan, trials: list[Trial], phase: str) -> None:
            job = job_of(plan, opened, workers, checkpoints, per_device)
            train_missing(plan, opened, trials, engine, job, progress, phase)

        measuring = Measuring(trying, opened, train)
        names = base.task_names
        found = search(names, measuring, budget=budget, networks=networks, seed=SEED, efforts=efforts)
    # What is measured tells how noisy it is.
    noise = None if over_seeds is None else noise_of(measuring.halves, over_seeds)
    found = choose(names, found.measured, networks, noise=noise, failed=found.failed, spent=found.spent)
    everything = frozenset(names)
    paid = None
    if found.networks != (everything,):
        paid = paid_on_the_other_half(names, measuring.halves, networks, noise)
        if paid is not None and paid <= 0.0:
            found = only_network(found, everything)
    explained = judged(names, found.measured, _affinities(base, problem, say) if affinities else {})
    arms = {"one for all": base.methods[-1].name}
    arms |= {"own networks": _arm(base, own), "grouping": _arm(base, found)}
    final = make_plan(problem, [SINGLE_TASK, *dict.fromkeys(arms.values())], seeds=seeds, **options)
    run(final, store, **settings)
    return _judged(_reusing(final, store, reuse_any), store, found, arms, networks, noise, explained, paid)


def _affinities(plan: Plan, problem: str, say: Callable[[str], None]) -> dict[str, Matrix]:
    """How the tasks get along in a short training of the plain sum; none where that fails, and why is told."""
    if len(plan.tasks) < 3:  # there is one pair, and nothing to rank
        return {}
    train = guarded(diagnose_training)
    architecture = plan.methods[-1].architecture or plan.architecture
    try:
        course = train(
            load_problem(problem),
            None,
            architecture,
            seed=SEED,
            affinity=True,
            tasks=plan.task_names,
            device=plan.device if plan.hardware else CPU,  # where that is not here, but only on other machines
            precision=plan.precision,
        )
    except SteelyardError as error:
        say(f"Affinities were not measured: {error}")
        return {}
    return {name: matrix.numpy() for name, matrix in course.affinities.items()}


def _reusing(plan: Plan, store: Path | str, reuse_any: bool) -> Plan:
    """The plan as `run` has trained it: with the trials of other code, data and versions, where these count."""
    if not reuse_any:
        return plan
    with Store(store) as opened:
        return dataclasses.replace(plan, also=tuple(opened.origins(plan.identity)))


def _one_arm(method: str) -> Arm:
    arm = parse_arm(method)
    if arm.networks or arm.method.name in (SINGLE_TASK, "best-fixed"):
        raise GroupingError(f"method={method!r}: name one method for networks of several tasks, like equal or uw")
    return arm


def _one_for_all(plan: Plan, store: Path | str) -> tuple[dict[Subset, dict[str, float]], dict[str, float] | None]:
    """Gains of one network for all tasks on validation data, the mean over seeds; and the spread of one seed's."""
    with Store(store) as opened:
        results = opened.results(plan.trials, plan.also)
    joint, alone = _by_seed(plan, results, plan.methods[-1].name), _by_seed(plan, results, SINGLE_TASK)
    seeds = [seed for seed in plan.seeds if seed in joint and seed in alone]
    if not seeds:
        raise GroupingError(
            f"no seed of {plan.methods[-1].name} and of all single tasks could be trained: `steelyard report` says why"
        )
    together = [joint[seed][0] for seed in seeds]
    singles = {task: [alone[s][place] for s in seeds] for place, task in enumerate(plan.task_names)}
    changed = changes(plan, together, singles)
    found = {frozenset(plan.task_names): gains(changed)}
    if len(seeds) < 2:
        return found, None
    return found, {task: float(of_task.mean(1).std(ddof=1)) for task, of_task in changed.items()}


def _by_seed(plan: Plan, results: Mapping[Trial, Result], method: str) -> dict[int, list[Result]]:
    found = {seed: plan.trials_of(method, 0, seed) for seed in plan.seeds}
    return {seed: [results[t] for t in trials] for seed, trials in found.items() if all(t in results for t in trials)}


def _arm(plan: Plan, grouping: Grouping) -> str:
    """The grouping as an arm: ``uw{left right|depth}``; one network for all is the method itself."""
    order = plan.task_names
    arm = parse_arm(plan.methods[-1].name)
    networks = tuple(
        Network(
            tuple(task for task in order if task in subset),
            tuple(task for task in order if grouping.network_of(task) == subset),
        )
        for subset in grouping.networks
    )
    return str(arm if len(networks) == 1 else dataclasses.replace(arm, networks=networks))


def _by_what_they_are(judgement: Judgement, arms: Mapping[str, str]) -> dict[str, str]:
    """``the grouping`` for its arm, however sentences name it: the command spells out its networks, once, above."""
    spelt, counted = first_names(judgement.methods), readable_methods(judgement.methods)
    return {
        name: f"the {what}"
        for what in ("own networks", "grouping")
        if "{" in arms[what]
        for name in (arms[what], counted[arms[what]], spelt.get(arms[what], arms[what]))
    }


def _so_far(plan: Plan, first: Mapping[Subset, Mapping[str, float]], own: Grouping) -> str:
    """``One network for all: -3.2 % on validation data; with own networks for left and depth: +1.6 %.``"""
    one = sum(next(iter(first.values())).values()) / len(plan.tasks)
    said = f"One network for all tasks: {gain_text(one)} over single tasks, on validation data"
    everything = frozenset(plan.task_names)
    alone = [task for task in plan.task_names if own.network_of(task) != everything]
    if not alone:
        return f"{said}."
    if len(alone) == len(plan.tasks):
        return f"{said}; every task alone is better."
    return f"{said}; with networks of their own for {', '.join(alone)}: {gain_text(own.gain)}."


def _judged(
    plan: Plan,
    store: Path | str,
    grouping: Grouping,
    arms: dict[str, str],
    networks: int,
    noise: dict[str, float] | None,
    affinities: Sequence[Affinity],
    paid: float | None,
) -> GroupingResult:
    with Store(store) as opened:
        found = findings(plan, opened)
    planned = dict(zip(dict.fromkeys(arms.values()), (method.name for method in plan.methods[1:]), strict=True))
    arms = {what: planned[arm] for what, arm in arms.items()}

    def over(other: str, what: str = "grouping") -> Interval | None:
        if arms[what] == arms[other]:
            return None
        # On the seeds that both have finished, whichever else one of them has.
        both = set(found.complete(arms[what], 0)) & set(found.complete(arms[other], 0))
        ours, theirs = (found.changes(arms[each], SINGLE_TASK, 0, among=both) for each in (what, other))
        return interval(ours - theirs) if len(ours) else None

    names, measured = plan.task_names, dict(grouping.measured)
    counts = range(1, min(len(names), networks + 2) + 1)
    told = GroupingResult(
        judgement=with_joint(judge_findings(found), found),
        arms=arms,
        grouping=grouping,
        over_one=over("one for all"),
        over_own=over("own networks"),
        own_over_one=over("one for all", "own networks"),
        paid=paid,
        limit=networks,
        by_networks={
            count: best.gain for count in counts if (best := best_of(names, measured, count, noise=noise)) is not None
        },
        by_budget=[
            (count, best.gain)
            for count in sorted({round(len(measured) * part / MOST_POINTS) for part in range(MOST_POINTS + 1)})
            if (best := best_of(names, dict(list(measured.items())[:count]), networks, noise=noise)) is not None
        ],
        affinities=affinities,
    )
    # The page, the terminal and the exports begin with what was asked for.
    by_what = _by_what_they_are(told.judgement, arms)
    judgement = dataclasses.replace(
        told.judgement,
        verdict=[*write_words(told), *renamed(told.judgement.verdict, by_what)],
        cautions=renamed(told.judgement.cautions, by_what),
    )
    return dataclasses.replace(told, judgement=judgement)
