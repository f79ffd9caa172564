"""Seconds per epoch and memory of problems, trained as a study trains them.

    STEELYARD_DATA=/path/to/data python benchmarks/epochs.py multi-mnist nyuv2 --threads 2

Every problem in a process of its own, all its tasks, the plain sum. "training" is the median epoch, "60,000 rows" what
it takes per as many rows; "whole epoch" adds the validation data; "processor" is the time of all threads over a whole
epoch, which other processes on the machine disturb less. "peak" is the process's largest resident memory, with
libraries and data.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise

import torch
from timing import machine

from steelyard.problems import load_problem
from steelyard.study.training.train import train
from steelyard.study.trial import Trial

COLUMNS = ("rows", "steps", "loading", "training", "60,000 rows", "whole epoch", "processor", "peak")


def measure(name: str, epochs: int, threads: int, batch_size: int | None) -> tuple[str, ...]:
    torch.set_num_threads(threads)
    problem = load_problem(name)
    started = time.perf_counter()
    rows = len(problem.data().train)
    loading = time.perf_counter() - started
    peak = _peak()
    trial = Trial(
        problem=name,
        method="equal",
        tasks=problem.task_names,
        seed=0,
        fractions=tuple(sorted((task, 1.0) for task in problem.task_names)),
        epochs=epochs,
        batch_size=batch_size or problem.batch_size,
    )
    ends = [(time.perf_counter(), time.process_time())]
    result = train(trial, problem, on_epoch=lambda epoch: ends.append((time.perf_counter(), time.process_time())))
    whole, processor = (
        statistics.median(after[clock] - before[clock] for before, after in pairwise(ends)) for clock in (0, 1)
    )
    steps = result.steps // epochs
    training = steps / result.steps_per_second
    return (
        f"{rows:,}",
        f"{steps:,}",
        *(f"{seconds:.1f} s" for seconds in (loading, training, training / rows * 60_000, whole, processor)),
        f"{max(peak, _peak()):,.0f} MiB",
    )


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # in KiB on Linux


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="*", default=["multi-mnist", "digit-reconstruction", "nyuv2"])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="a study gives one to each worker")
    parser.add_argument("--batch-size", type=int, help="rows per step; the problem's own by default")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(machine())
    print(f"\n{'':22s}" + "".join(f"{column:>13s}" for column in COLUMNS))
    for name in arguments.problems:
        # A process each: the peak of one problem is not that of the one before it.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            cells = pool.submit(measure, name, arguments.epochs, arguments.threads, arguments.batch_size).result()
        print(f"{name:22s}" + "".join(f"{cell:>13s}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
