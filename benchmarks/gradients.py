"""What reading gradients costs, in time and memory: against the plain sum, a loop of autograd.grad, and torchjd.

    python benchmarks/gradients.py                          # all trunks, one thread
    python benchmarks/gradients.py --trunks mlp --tasks 2,8 --threads 2
    python benchmarks/gradients.py --methods mgda,pcgrad,upgrad --what time
    python benchmarks/gradients.py --disjoint --tasks 2,8 --places trunk      # each task has samples of its own

A step is forward + looking + backward, without the optimizer. Time: the candidates take turns in one process; medians
and quartiles as multiples of the plain step. Operations: the multiplications of matrix products and convolutions that
ran, as a multiple of the plain step's: what the time would be if they were all, and all equally fast. Memory: the most
that tensors took at any moment of two steps, gradients included. torchjd is compared where it is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable, Mapping
from functools import partial

import torch
from memory import peak_memory
from networks import TRUNKS, Network, plain
from timing import interleaved, machine
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import steelyard

Step = Callable[[], None]


def loop(network: Network) -> Step:
    """A loop of autograd.grad that holds the whole Jacobian, then the weighted backward."""

    def run() -> None:
        network.zero()
        losses, _ = network.losses()
        parameters = list(network.trunk.parameters())
        rows = []
        for loss in losses.values():
            gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
            rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
        J = torch.stack(rows)
        shares = (1 / (J @ J.T).diagonal().sqrt()).softmax(0)  # any weights: no solver is timed here
        sum(share * loss for share, loss in zip(shares, losses.values(), strict=True)).backward()

    return run


def balanced(network: Network, spec: str, place: str) -> Step:
    balancer = steelyard.make(spec, network.names)

    def combine(losses: Mapping[str, Tensor], features: Tensor) -> Tensor:
        look = "last" if place == "last" else None
        loss: Tensor = balancer(losses, shared=network.trunk if place == "trunk" else features, look=look)
        return loss

    return network.step(combine)


def torchjd(network: Network) -> Step:
    from torchjd.aggregation import UPGrad
    from torchjd.autojac import jac_to_grad, mtl_backward

    aggregator = UPGrad()

    def run() -> None:
        network.zero()
        losses, features = network.losses()
        mtl_backward(list(losses.values()), features=features)
        jac_to_grad(network.trunk.parameters(), aggregator)

    return run


def candidates(network: Network, methods: list[str], places: list[str], others: bool) -> dict[str, Callable[[], Step]]:
    """Name -> what makes the step, with all that it keeps from one step to the next."""
    found: dict[str, Callable[[], Step]] = {"plain": partial(network.step, plain)}
    for method in methods:
        for place in places:
            if place == "last" or place in steelyard.make(method, ["a"]).where:
                found[f"{method}, {place}"] = partial(balanced, network, method, place)
    if not others:
        return found
    found["loop of autograd.grad"] = partial(loop, network)
    if importlib.util.find_spec("torchjd"):
        found["torchjd UPGrad"] = partial(torchjd, network)
    return found


def on_device(step: Step) -> Step:
    """Wait for what the device has queued."""
    if not torch.cuda.is_available():
        return step

    def run() -> None:
        step()
        torch.cuda.synchronize()

    return run


def operations(step: Step) -> int:
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def two_steps(make: Callable[[], Step], network: Network) -> Callable[[], None]:
    def run() -> None:
        step = make()
        step()
        step()

    network.zero()
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trunks", default="mlp,convnet,transformer")
    parser.add_argument("--tasks", default="2,8,20,40,100")
    parser.add_argument("--methods", default="mgda", help="Gramian methods; all share one look")
    parser.add_argument("--places", default="features,last,trunk", help="last: the last layer behind the features")
    parser.add_argument("--alone", action="store_true", help="leave out the loop and torchjd")
    parser.add_argument("--disjoint", action="store_true", help="tasks that share no samples")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--what", default="time,memory")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    timed, weighed = ("time" in arguments.what), ("memory" in arguments.what)
    print(machine(), device)
    for trunk in arguments.trunks.split(","):
        print(f"\n{trunk}: {TRUNKS[trunk].__doc__}")
        for tasks in (int(number) for number in arguments.tasks.split(",")):
            network = Network(tasks, trunk, device, arguments.disjoint)
            methods, places = arguments.methods.split(","), arguments.places.split(",")
            makers = candidates(network, methods, places, not arguments.alone)
            memory = {name: peak_memory(two_steps(make, network)) for name, make in makers.items()} if weighed else {}
            counts = {name: operations(make()) for name, make in makers.items()}
            steps = {name: on_device(make()) for name, make in makers.items()}
            timings = interleaved(steps, "plain", arguments.rounds, warmup=1) if timed else {}
            parameters = sum(parameter.numel() for parameter in network.trunk.parameters())
            print(f"  T = {tasks}; T x P = {tasks * parameters * 4 / 2**20:.0f} MiB")
            print(f"    {'':24s}{'time':>8s}   {'quartiles':17s}{'operations':>10s}{'memory MiB':>12s}")
            for name in makers:
                line = f"    {name:24s}"
                if timed and name == "plain":
                    line += f"{timings[name].median * 1e3:>6.1f}ms   {'':17s}"
                elif timed:
                    base = timings["plain"].median
                    quartiles = f"{timings[name].low / base:.2f} - {timings[name].high / base:.2f}"
                    line += f"{timings[name].ratio:>8.2f}   {quartiles:17s}"
                else:
                    line += " " * 28
                line += f"{counts[name] / counts['plain']:>10.2f}"
                print(line + (f"{memory[name]:>12.0f}" if weighed else ""))


if __name__ == "__main__":
    main()
