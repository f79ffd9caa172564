"""The method that validation favours, as lines for one's own loop."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Sequence

from steelyard.method_registry import make
from steelyard.study.analysis.trial_results import TrialResults
from steelyard.study.judgement import Recipe, Row
from steelyard.study.planning.arms import parse_arm
from steelyard.study.planning.plan import PlannedMethod
from steelyard.study.planning.tuning import deciding, validation_scores
from steelyard.study.storage.store import Store
from steelyard.study.storage.trials_file import canonical
from steelyard.study.training.hardware import FULL
from steelyard.study.trial import PLAIN_SUM, SINGLE_TASK, Result


def recipe(found: TrialResults, rows: Sequence[Row], store: Store) -> Recipe | None:
    """Of the methods that train one network for all tasks, the one with the smallest validation error, the mean over
    seeds, where the labels are most; None before two of them have finished a seed."""
    setting = found.plan.most_labels
    joint = [m for m in found.plan.methods if m.name != SINGLE_TASK and not m.networks]
    results = {method.name: found.complete(method.name, setting) for method in joint}
    results = {name: by_seed for name, by_seed in results.items() if by_seed}
    seeds = set.intersection(*map(set, results.values())) if results else set()
    if len(results) < 2 or not seeds:
        return None
    best = min(results, key=_errors(found, results, sorted(seeds)).__getitem__)
    speed = {row.method: row.steps_per_second for row in rows if row.setting == setting}
    return Recipe(
        method=best,
        seeds=len(seeds),
        loop=_loop(found, found.plan.method(best), setting),
        cost=speed[PLAIN_SUM] / speed[best] if results.keys() >= {PLAIN_SUM} and best != PLAIN_SUM else None,
        network=_network(found, best, setting, store),
    )


def _errors(found: TrialResults, results: dict[str, dict[int, list[Result]]], seeds: Sequence[int]) -> dict[str, float]:
    """Mean over seeds of the log error, by method."""
    tasks = deciding(found.plan, found.plan.task_names)
    scores = [validation_scores(tasks, [by_seed[seed][0] for by_seed in results.values()]) for seed in seeds]
    return dict(zip(results, map(statistics.fmean, zip(*scores, strict=True)), strict=True))


def _loop(found: TrialResults, planned: PlannedMethod, setting: int) -> list[str]:
    choice, tasks = planned.choice(setting), list(found.plan.task_names)
    options = {} if planned.scale is None else {"scale": planned.scale}
    balancer = make(choice.method, tasks, **options)
    told = "".join(f", {name}={value!r}" for name, value in options.items())
    arguments = ["losses"]
    if planned.shared is not None:
        trunk = "shared=model" if balancer.sends_steps else "shared=model.trunk"
        arguments.append("shared=features" if planned.shared == "features" else trunk)
    if balancer.recomputes:
        arguments.append("again=again")
    if balancer.reads == "cross_gramian":
        arguments.append("probes=[losses_1, losses_2]")
    lines = ["import steelyard", ""]
    if rates := sorted(set(choice.learning_rates.values())):
        lines.append(f"# learning rate {', '.join(f'{rate:g}' for rate in rates)}, as validation data chose")
    if (own := parse_arm(planned.name).architecture) is not None or found.plan.architecture != "hard-sharing":
        lines.append(f"# in the architecture {own or found.plan.architecture}")
    if found.plan.precision != FULL:
        lines.append(f"# forward passes under autocast to {found.plan.precision}, losses in float32")
    made = f"balancer = steelyard.make({choice.method!r}, {tasks!r}{told})"
    if balancer.sends_steps:
        lines.extend([made, "optimizer = balancer.optimizer_for(optimizer)", "balancer.attach(optimizer)"])
    else:
        lines.append(f"{made}.attach(optimizer)")
    return [
        *lines,
        f"loss = balancer({', '.join(arguments)})  # losses: {{task: scalar}}",
        "loss.backward()",
    ]


def _network(found: TrialResults, method: str, setting: int, store: Store) -> list[str]:
    """Lines that take its network out of the study; none where it was not kept."""
    trials = (trial for _, trial in found.trials(method, setting))
    if not any(map(store.networks.has, trials)):
        return []
    this = canonical(found.plan.to_dict())
    place = next((place for place, each in enumerate(store.plans()) if canonical(each) == this), 0)
    if found.plan.program is not None:
        which = f" --setting {setting}" if setting else ""
        which += f" --plan {place}" if place else ""
        named = f"{shlex.quote(str(store.path))} --method {shlex.quote(method)}{which}"
        return [
            "from safetensors.torch import load_file",
            "",
            f"# steelyard export {named} --out network.safetensors",
            'model.load_state_dict(load_file("network.safetensors"))  # the best seed on validation data',
        ]
    which = f", setting={setting}" if setting else ""
    which += f", plan={place}" if place else ""
    return [
        "from steelyard.study import network",
        "",
        f"model = network({str(store.path)!r}, {method!r}{which})  # the best seed on validation data",
        "outputs = model.predict(inputs)  # by task",
    ]
