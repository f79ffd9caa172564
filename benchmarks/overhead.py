"""What balancing costs: step time of every method against the plain sum.

    python benchmarks/overhead.py                  # the tables of the README
    python benchmarks/overhead.py --methods dwa,uw --tasks 2,40

Trunk: an MLP of three hidden layers of 1,024 (3.2 M parameters), batch 128; one linear head of 10 classes per
task. A step is forward + balancer + backward, without the optimizer. Each takes turns with the plain sum in one
process; ratios of medians.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping

import torch
from networks import Network, plain
from timing import interleaved, machine
from torch import Tensor

import steelyard
from steelyard.method_registry import method_class, method_names, options_of

TARGET_STEP, TARGET_CALL, TARGET_LEARNED = 1.03, 250, 500
TARGET_FEATURES = {2: 1.15, 8: 1.25, 20: 1.4, 40: 1.6}


def balanced(network: Network, spec: str) -> Callable[[Mapping[str, Tensor], Tensor], Tensor]:
    balancer = steelyard.make(spec, network.names)

    def combine(losses: Mapping[str, Tensor], features: Tensor) -> Tensor:
        loss: Tensor = balancer(losses, shared=features)
        if balancer.needs_after:
            # The second forward pass of FAMO belongs to the method's step.
            with torch.no_grad():
                balancer.observe(after=network.losses()[0])
        return loss

    return combine


def build(name: str, weights: list[str]) -> str:
    if name == "fixed":
        return "fixed(weights={" + ",".join(f"'{task}': 0.5" for task in weights) + "})"
    if name == "schedule":
        return f"schedule(weights='{weights[0]}: 1.0 until 100, then 0.1')"
    if "main" in options_of(method_class(name)):
        return f"{name}(main={weights[0]})"
    return name


def steps(names: list[str], sizes: list[int], rounds: int, heading: str, targets: Mapping[int, float]) -> None:
    print(f"\n{heading}: step time, times the plain sum")
    print(f"  {'':16s}" + "".join(f"{f'T = {size}':>12s}" for size in sizes))
    # Each method takes turns with the plain sum alone: neighbours in time share the machine's mood.
    ratios: dict[str, list[float]] = {name: [] for name in names}
    plain_seconds = []
    for size in sizes:
        network = Network(size)
        reference, seconds = network.step(plain), []
        for name in names:
            candidate = network.step(balanced(network, build(name, network.names)))
            times = rounds if size <= 40 else max(5, rounds // 4)
            timing = interleaved({"plain sum": reference, name: candidate}, "plain sum", times)
            ratios[name].append(timing[name].median / timing["plain sum"].median)
            seconds.append(timing["plain sum"].median)
        plain_seconds.append(statistics.median(seconds))
    milliseconds = "".join(f"{value * 1e3:>9.1f} ms" for value in plain_seconds)
    print(f"  {'plain sum':16s}{milliseconds}")
    for name in names:
        print(f"  {name:16s}" + "".join(f"{value:>12.3f}" for value in ratios[name]))
    print(f"  {'target':16s}" + "".join(f"{targets.get(size, float('nan')):>12.2f}" for size in sizes))


def calls(names: list[str], size: int, rounds: int) -> None:
    network = Network(size)
    print(f"\nOne call at T = {size}, backward excluded, microseconds (median, quartiles)")
    scalars = {name: (torch.rand(()) + 0.5).requires_grad_() for name in network.names}
    features = torch.zeros(())
    candidates: dict[str, Callable[[], object]] = {"plain sum": lambda: plain(scalars, features)}
    for name in names:
        balancer = steelyard.make(build(name, network.names), network.names)
        if not balancer.needs_after:
            candidates[name] = lambda balancer=balancer: balancer(scalars)  # type: ignore[misc]
        else:
            candidates[name] = lambda balancer=balancer: (balancer(scalars), balancer.observe(after=scalars))  # type: ignore[misc]
    for name, timing in interleaved(candidates, "plain sum", rounds, warmup=20).items():
        print(f"  {name:16s}{timing.median * 1e6:>8.0f}   ({timing.low * 1e6:.0f} - {timing.high * 1e6:.0f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", help="comma-separated names (default: all)")
    parser.add_argument("--tasks", default="2,10,40,1000", help="numbers of tasks for the loss-only methods")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(machine())

    names = arguments.methods.split(",") if arguments.methods else list(method_names())
    kinds = {name: steelyard.make(build(name, ["a"]), ["a"]) for name in names}
    loss_only = [name for name, method in kinds.items() if method.reads == "losses"]
    # Methods that look ahead have a benchmark of their own: lookahead.py.
    readers = [
        name for name in names if kinds[name].reads not in ("losses", "lookahead") and "features" in kinds[name].where
    ]
    sizes = [int(size) for size in arguments.tasks.split(",")]
    if loss_only:
        steps(loss_only, sizes, arguments.rounds, "Methods that read losses", dict.fromkeys((2, 10, 40), TARGET_STEP))
        calls(loss_only, 10, 400)
        print(f"  target: {TARGET_CALL}, with learned weights {TARGET_LEARNED}")
    if readers:
        steps(readers, [2, 8, 20, 40], arguments.rounds, "Methods that read gradients at the features", TARGET_FEATURES)


if __name__ == "__main__":
    main()
