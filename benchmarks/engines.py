"""What a study itself costs, apart from training: driver time for each trial, the size of its store, an engine's share.

python benchmarks/engines.py --trials 100000
python benchmarks/engines.py --trials 1000 --ray        # tasks that sleep 50 ms, on a cluster started here
python benchmarks/engines.py --trials 20 --slurm        # jobs that sleep 50 ms, by submitit's executor on this machine
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import pickle
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from steelyard.study import plan
from steelyard.study.planning.plan import Plan
from steelyard.study.running.engines.interface import Job
from steelyard.study.running.events import Epoch, Event, Finished, Started
from steelyard.study.running.send_to_engine import dispatch
from steelyard.study.running.worker import Work
from steelyard.study.storage.store import Store
from steelyard.study.trial import Curves, Result, Trial

SLEEP = 0.05
SHARE = 0.125  # of a CPU for a task that sleeps


class MadeUp:
    """An engine whose trials are finished when they are asked for; its own session."""

    places = 100

    def __init__(self, epochs: int) -> None:
        self.epochs, self.waiting = epochs, list[tuple[Trial, ...]]()

    def get_ready(self) -> None:
        pass

    def open(self, job: Job) -> MadeUp:
        return self

    def __enter__(self) -> MadeUp:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def submit(self, trials: tuple[Trial, ...]) -> None:
        self.waiting.append(trials)

    def events(self) -> Iterator[tuple[Trial, Event]]:
        for (trial,) in self.waiting:
            yield trial, Started("somewhere")
            yield trial, Epoch(self.epochs)
            yield trial, Finished(result(trial.tasks, self.epochs))


def result(tasks: Sequence[str], epochs: int) -> Result:
    """Numbers of as many digits as real ones."""
    values = {task: [random.random()] for task in tasks}
    losses, weights, validation, spreads = (
        {task: [random.random() for _ in range(epochs)] for task in tasks} for _ in range(4)
    )
    halves = {task: [[random.random() for _ in range(2)] for _ in range(epochs)] for task in tasks}
    curves = Curves(losses, weights, validation, spreads, halves)
    return Result(values, values, epochs, 1000, random.random(), random.random(), random.random(), curves)


def planned(trials: int, epochs: int) -> tuple[Plan, list[Trial]]:
    made = plan("digits", ["equal", "uw", "dwa", "pcgrad"], seeds=min(10_000, -(-trials // 4)), epochs=epochs)
    # More than the most seeds of a study: at further learning rates.
    every = itertools.chain(made.trials, _at_other_rates(made))
    return made, list(itertools.islice(every, trials))


def _at_other_rates(made: Plan) -> Iterator[Trial]:
    for number in itertools.count(1):
        for trial in made.trials:
            yield dataclasses.replace(trial, learning_rate=1e-3 / (1 + number))


def write(engine: Any, made: Plan, trials: Sequence[Trial], path: Path, workers: int | None = None) -> float:
    """Seconds from the first event until the last result is on the disk."""
    started = 0.0
    with Store(path, write=True) as store:
        store.add_plan(made.to_dict())
        job = Job("digits", None, store.checkpoints, False, store.scratch, workers)
        for trial, event in dispatch(engine, job, trials):
            started = started or time.perf_counter()
            if isinstance(event, Finished):
                store.add_result(trial, event.result)
        return time.perf_counter() - started


def store_at(trials: int, epochs: int) -> None:
    made, every = planned(trials, epochs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.sqlite"
        seconds = write(MadeUp(epochs), made, every, path)
        size = path.stat().st_size
        started = time.perf_counter()
        with Store(path) as store:
            opened = time.perf_counter() - started
            started = time.perf_counter()
            found = len(store.results(made.trials))
            read = time.perf_counter() - started
    each = f"{1e3 * seconds / len(every):.2f} ms of driver time and {size / len(every) / 2**10:.1f} KiB each"
    print(f"{len(every):,} trials of 2 tasks and {epochs} epochs: {each}, {size / 2**20:.0f} MiB of store,")
    print(f"opened and checked in {opened:.1f} s, {found:,} results read in {read:.1f} s")


def sleep(luggage: object, trials: tuple[Trial, ...], *_: object) -> Iterator[tuple[int, Event]]:
    yield 0, Started("somewhere")
    time.sleep(SLEEP)
    yield 0, Finished(result(trials[0].tasks, 20))


def ray_at(trials: int) -> None:
    import ray

    from steelyard.study.running.engines.on_ray import Ray, RayTasks

    class Sleeping(RayTasks):
        def __enter__(self) -> Sleeping:
            super().__enter__()
            self.task = ray.remote(sleep).options(num_returns="streaming", max_retries=0, num_cpus=SHARE)
            return self

    class Engine(Ray):
        def open(self, job: Job) -> RayTasks:
            return Sleeping(self, job)

    made, every = planned(trials, 20)
    engine = Engine(cpus=SHARE)
    engine.connect(None)
    places = engine.room(0)
    with tempfile.TemporaryDirectory() as folder:
        seconds = write(engine, made, every, Path(folder) / "s.sqlite")
    each = seconds / trials - SLEEP / places
    print(f"Ray, {trials:,} tasks of {1e3 * SLEEP:.0f} ms, {places} at a time: {1e3 * each:.1f} ms of scheduling each")


def tell(work: Work, told: Path, life: Path, patience: float) -> None:
    """The job of `on_slurm.py`, asleep."""
    with open(told, "ab") as file:
        for event in sleep(None, work.trials):
            file.write(pickle.dumps(event))


def slurm_at(trials: int) -> None:
    from steelyard.study.running.engines.on_slurm import Slurm

    class Engine(Slurm):
        def executor(self, folder: Path, job: Job) -> Any:
            found: Any = super().executor(folder, job)
            submit = found.submit
            found.submit = lambda serve, *values: submit(tell, *values)
            return found

    made, every = planned(trials, 20)
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        seconds = write(Engine(cluster="local"), made, every, Path(folder) / "s.sqlite", workers=2)
        own = time.process_time() - began
    each = (
        f"{seconds / trials:.1f} s each, Python's start included, and {1e3 * own / trials:.0f} ms of it the study's own"
    )
    print(f"slurm(cluster=local), {trials:,} jobs of {1e3 * SLEEP:.0f} ms, 2 at a time: {each}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--slurm", action="store_true")
    asked = parser.parse_args()
    if asked.ray:
        ray_at(asked.trials)
    elif asked.slurm:
        slurm_at(asked.trials)
    else:
        store_at(asked.trials, asked.epochs)
