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

    steelyard compare sarcos --methods "equal,mgda,mgda(look=last),mgda(shared=trunk),pcgrad,pcgrad(look=last),\\
        pcgrad(shared=trunk),cagrad,cagrad(look=last),cagrad(shared=trunk),nash-mtl,nash-mtl(look=last),\\
        nash-mtl(shared=trunk),gradnorm,gradnorm(look=last),gradnorm(shared=trunk),db-mtl,db-mtl(look=last),\\
        db-mtl(shared=trunk)" --seeds 5
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
from steelyard.study.training.batch import Forward, tell_labels
from steelyard.study.training.sampling import batches
from steelyard.study.training.training_rows import Material

PLACES = ("features", "last", "last two", "trunk")
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


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", default=PROBLEMS)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--every", type=int, default=30, help="a look at each so many-th step")
    parser.add_argument("--batch-size", type=int, help="the problem's where not given")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    print(machine())
    for name in given.problems.split(","):
        try:
            measure(name, given.steps, given.every, given.batch_size)
        except (SharedError, MissingDataError) as error:
            print(f"\n{name}: not compared, {error}")


if __name__ == "__main__":
    main()
