"""Where to look: what cheap places show of the exact gradients, along training, and at which cost.

    python benchmarks/places.py                                    # all problems that are quick on this machine
    python benchmarks/places.py --problems sarcos,qm8 --steps 600 --every 30
    python benchmarks/places.py --problems digits@mmoe             # another architecture

Each problem's network is trained by the plain sum; every so many steps the task gradients of the batch are read at
the features, at the last layer, at the last two, and at all of the trunk, which is exact. Columns: the correlation of
the cosines of all pairs with the exact ones; of the pairs whose exact cosine is beyond ±0.1, how many have the wrong
sign (or none); by how much a norm is typically off once a common scale is taken out; and what one look takes, as a
multiple of a plain step (medians; the looks take turns with the steps).

Whether the better look gives the better network, with equal budgets:

    python benchmarks/places.py --compare                          # prints the command; then, for each of its stores
    python benchmarks/places.py --gains sarcos.sqlite credit-default.sqlite

The latter prints, for each method, Δm over single tasks at the features, and what the last layer and the trunk add to
it, seed by seed, with 95 % intervals, in points.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from itertools import islice
from typing import Any

import torch
from timing import machine
from torch import Tensor

import steelyard
from steelyard.diagnosis.diagnosis import Diagnosis
from steelyard.diagnosis.fidelity import fidelity
from steelyard.errors import MissingDataError, SharedError
from steelyard.gradients.parameters_behind import last_layers, parameters_behind
from steelyard.gradients.wrappers import edges_of
from steelyard.models import build
from steelyard.problems import load_problem
from steelyard.problems.network_parameters import Parameters
from steelyard.study.analysis.make_judgement import findings
from steelyard.study.analysis.statistics import interval
from steelyard.study.planning.plan import Plan
from steelyard.study.storage.store import Store
from steelyard.study.training.batch import Forward, tell_labels
from steelyard.study.training.sampling import batches
from steelyard.study.training.training_rows import Material
from steelyard.study.trial import SINGLE_TASK

PLACES = ("features", "last", "last two", "trunk")
METHODS = ("mgda", "pcgrad", "cagrad", "nash-mtl", "gradnorm", "db-mtl")
PROBLEMS = "digits,multi-mnist,digit-reconstruction,mnist-imbalanced,census,sarcos,qm8,credit-default,gdsc,tox21,nyuv2"


def last_two(features: Any) -> list[Tensor]:
    """The last layers, and those in front of them."""
    edges = edges_of(features if isinstance(features, tuple) else (features,))
    last = last_layers(edges)
    named = {id(parameter) for parameter in last}
    behind = [each for each in parameters_behind(edges) if id(each) not in named]
    return [*last, *last_layers(edges, among=behind)]


def look_at(place: str, losses: Mapping[str, Tensor], features: Any) -> Diagnosis:
    where: Any = last_two(features) if place == "last two" else place
    return steelyard.diagnose(losses, shared=features, look=where)


def timed(run: Callable[[], Any], seconds: list[float]) -> Any:
    start = time.perf_counter()
    result = run()
    seconds.append(time.perf_counter() - start)
    return result


def measure(name: str, steps: int, every: int, rows: int | None) -> None:
    """Train one problem, and print its lines."""
    problem_name, _, architecture = name.partition("@")
    problem = load_problem(problem_name)
    tasks = list(problem.tasks)
    material = Material.of(problem, tasks, 0)
    network = build(problem, problem.task_names, 0, architecture or "hard-sharing")
    tell_labels(network, tasks, material.rows.split, material.labels)
    network.train()
    optimizer = problem.optimizer(Parameters.of(network))
    torch.manual_seed(0)
    seen: dict[str, list[Diagnosis]] = {place: [] for place in PLACES}
    seconds: dict[str, list[float]] = {place: [] for place in ("plain", *PLACES)}

    def all_batches() -> Any:
        for epoch in range(1, steps + 1):
            yield from batches(material.used, rows or problem.batch_size, 0, epoch)

    def step(batch: Any, look: bool) -> None:
        forward = Forward(network, tasks, *material.batch(batch))
        balanced = forward.balanced()
        if look:
            features = forward.shared("features")
            turn = len(seen["trunk"]) % len(PLACES)  # so that nobody always comes first
            for place in PLACES[turn:] + PLACES[:turn]:
                seen[place].append(timed(partial(look_at, place, balanced, features), seconds[place]))
        forward.step(optimizer, reduce(torch.add, balanced.values()))

    for number, batch in enumerate(islice(all_batches(), steps)):
        if number % every:
            timed(partial(step, batch, False), seconds["plain"])
        else:
            step(batch, True)
    plain = statistics.median(seconds["plain"])
    print(f"\n{name}: {len(tasks)} tasks, {steps} steps, {len(seen['trunk'])} looks, a plain step {plain * 1e3:.1f} ms")
    print(f"    {'':10s}{'correlation':>12s}{'wrong sign':>12s}{'norms off':>11s}{'a look':>9s}")
    for place in PLACES:
        found = fidelity(place, seen[place], seen["trunk"])
        took = statistics.median(seconds[place]) / plain
        print(
            f"    {place:10s}{found.correlation:>12.2f}{found.wrong_sign:>12.1%}{found.norms_off:>11.1%}{took:>8.2f}x",
            flush=True,
        )


def arm(method: str, place: str) -> str:
    return f"{method}(look={place})"


def print_gains(path: str) -> None:
    """Markdown rows of a finished study of all methods at three places."""
    with Store(path) as store:
        plan = Plan.from_dict(store.latest_plan())
        found = findings(plan, store)
    print(f"\n| {plan.problem}, {len(plan.tasks)} tasks | features | last layer adds | trunk adds |\n|---|---|---|---|")
    for method in METHODS:
        at = {place: found.changes(arm(method, place), SINGLE_TASK, 0) for place in ("features", "last", "trunk")}
        cells = [f"{100 * at['features'].mean():+.2f}"]
        for place in ("last", "trunk"):
            added = interval(at[place] - at["features"])
            assert added is not None  # the study is finished, of several seeds
            cells.append(f"{100 * added.mean:+.2f} ± {50 * (added.high - added.low):.2f}")
        print(f"| `{method}` | {' | '.join(cells).replace('-', '−')} |")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", default=PROBLEMS)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--every", type=int, default=30, help="a look at each so many-th step")
    parser.add_argument("--batch-size", type=int, help="the problem's where not given")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compare", action="store_true", help="print the command that trains the networks")
    parser.add_argument("--gains", nargs="+", default=[], metavar="STORE", help="what the networks gain by each place")
    given = parser.parse_args(arguments)
    if given.compare:
        arms = [SINGLE_TASK, "equal", *(arm(m, place) for m in METHODS for place in ("features", "last", "trunk"))]
        print(f'steelyard compare sarcos --methods "{",".join(arms)}" --seeds 5 --store sarcos.sqlite')
        return
    for store in given.gains:
        print_gains(store)
    if given.gains:
        return
    torch.set_num_threads(given.threads)
    print(machine())
    for name in given.problems.split(","):
        try:
            measure(name, given.steps, given.every, given.batch_size)
        except (SharedError, MissingDataError) as error:
            print(f"\n{name}: not compared, {error}")


if __name__ == "__main__":
    main()
