"""What `steelyard group` finds on real problems, beside what the same trainings buy elsewhere.

    STEELYARD_DATA=... python benchmarks/grouping_live.py sarcos --budget 7 --networks 3 --store sarcos.sqlite

Single tasks, one network for all, own networks for those that it hurts, the grouping, another balancing method and
mixtures of experts are trained on the same seeds; printed are Markdown rows of the change of the error against single
tasks on test data with 95 % intervals, how many tasks the study calls hurt, how much more the groups gain seed by seed,
and training time over that of the single tasks. With ``--same-budget`` as many trainings as the search may spend are
spent twice more, on the search's seed: on constant weights (each task in turn weighs three times as much) and on
balancing methods; of each the one that gains most on validation data is judged too. Stopped at any moment, the same
command goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from steelyard.base.specs import parse_spec
from steelyard.grouping.group_study import group
from steelyard.grouping.train_subset import SEED, changes, gains
from steelyard.report.grouping_section import to_json
from steelyard.study.analysis.make_judgement import findings, judge_findings
from steelyard.study.analysis.statistics import interval
from steelyard.study.analysis.trial_results import TrialResults
from steelyard.study.judgement import Interval
from steelyard.study.planning.best_fixed import candidates
from steelyard.study.planning.make_plan import plan as make_plan
from steelyard.study.running.run_plan import run
from steelyard.study.storage.store import Store
from steelyard.study.trial import SINGLE_TASK

ELSEWHERE = "uw,equal@mmoe,equal@cgc,equal@ple"
# At about the cost of the plain sum a step, so that a training is a training; the most used ones first.
BALANCING = (
    *("uw", "dwa", "famo", "imtl-l", "stch", "log", "relobralo", "cov"),
    *("softadapt", "db-mtl(shared=features)", "coba", "ema", "slaw", "go4align"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("problem")
    parser.add_argument("--budget", type=float, default=8)
    parser.add_argument("--networks", type=int, default=3)
    parser.add_argument("--method", default="equal")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--elsewhere", default=ELSEWHERE, help="what the grouping is held against")
    parser.add_argument("--same-budget", action="store_true", help="constant weights and balancing methods, chosen")
    parser.add_argument("--epoch-steps", type=int, default=0, help="at least so many steps per epoch, for all networks")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--reuse-any", action="store_true", help="trials of other versions of the problem's code count")
    parser.add_argument("--json", type=Path, help="where to write what was found")
    arguments = parser.parse_args()
    options: dict[str, Any] = {"epoch_steps": arguments.epoch_steps, "epochs": arguments.epochs}
    running: dict[str, Any] = {
        "workers": arguments.workers,
        "store": arguments.store,
        "progress": False,
        "reuse_any": arguments.reuse_any,
    }
    found = group(
        arguments.problem,
        budget=arguments.budget,
        networks=arguments.networks,
        method=arguments.method,
        seeds=arguments.seeds,
        say=print,
        **running,
        **options,
    )
    print(*found.judgement.verdict[:8], sep="\n", flush=True)
    names = {arm: what for what, arm in reversed(list(found.arms.items()))}
    if arguments.same_budget:
        count = int(arguments.budget)
        weights = candidates(parse_spec("best-fixed"), found.grouping.tasks, None)
        for what, tried in (("tuned weights", weights), ("best balancing", BALANCING)):
            best = _best(arguments.problem, tried[:count], running, options)
            names.setdefault(best, what)
    others = [arm for arm in arguments.elsewhere.split(",") if arm and arm not in names]
    plan = make_plan(arguments.problem, [SINGLE_TASK, *reversed(names), *others], seeds=arguments.seeds, **options)
    run(plan, **running)
    with Store(arguments.store) as store:
        also = tuple(store.origins(plan.identity)) if arguments.reuse_any else ()
        values = findings(dataclasses.replace(plan, also=also), store)
    judged = judge_findings(values)
    print("\n| problem | arm | Δm, % | hurt | groups over it | time × |\n|---|---|---|---|---|---|")
    rows = []
    for row in judged.rows:
        if row.method != SINGLE_TASK:
            hurt = sum(c.method == row.method and c.verdict == "negative transfer" for c in judged.cells)
            what = f"{names[row.method]}: " if row.method in names else ""
            lead = _change(_lead(values, found.arms["grouping"], row.method))
            cells = [judged.problem, f"{what}`{row.method}`", _change(row.delta_m), str(hurt), lead]
            cells += [f"{row.relative_cost:.2f}"]
            rows.append(cells)
            print(f"| {' | '.join(cells)} |", flush=True)
    if arguments.json:
        content = {**json.loads(to_json(found)), "beside": [dict(zip(HEAD, cells, strict=True)) for cells in rows]}
        arguments.json.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n")


HEAD = ("problem", "arm", "delta_m_percent", "hurt", "groups_over_it_percent", "time")


def _best(problem: str, arms: list[str] | tuple[str, ...], running: dict[str, Any], options: dict[str, Any]) -> str:
    """The arm that gains most on validation data, on the seed that subsets are tried on."""
    plan = make_plan(problem, [SINGLE_TASK, *arms], seeds=[SEED], **options)
    run(plan, **running)
    with Store(running["store"]) as store:
        also = tuple(store.origins(plan.identity)) if running["reuse_any"] else ()
        results = store.results(plan.trials, also)
    alone = {trial.tasks[0]: [results[trial]] for trial in plan.trials_of(SINGLE_TASK, 0, SEED)}
    gained = {}
    for method in plan.methods[1:]:
        (trial,) = plan.trials_of(method.name, 0, SEED)
        if trial in results:
            gained[method.name] = sum(gains(changes(plan, [results[trial]], alone)).values()) / len(alone)
    return max(gained, key=lambda name: gained[name])


def _lead(values: TrialResults, groups: str, arm: str) -> Interval | None:
    """How much more the groups gain, seed by seed; nothing for themselves, and where a seed is missing."""
    ours, theirs = (values.changes(each, SINGLE_TASK, 0) for each in (groups, arm))
    return interval(ours - theirs) if groups != arm and len(ours) == len(theirs) > 1 else None


def _change(change: Interval | None) -> str:
    if change is None:
        return "–"
    text = f"{100 * change.mean:+.1f} ({100 * change.low:+.1f} to {100 * change.high:+.1f})"
    return text.replace("-", "−")


if __name__ == "__main__":
    main()
