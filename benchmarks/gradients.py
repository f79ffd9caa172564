"""What reading gradients costs: step time against the plain sum, a loop of autograd.grad, and torchjd.

    python benchmarks/gradients.py                          # all trunks, one thread
    python benchmarks/gradients.py --trunks mlp --tasks 2,8 --threads 2

A step is forward + looking + backward, without the optimizer; the candidates take turns in one process, medians and
quartiles of the ratio to the plain step. torchjd is compared where it is installed (``pip install
"torchjd[quadprog_projector]"``).
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable

import torch
from timing import interleaved, machine
from torch import Tensor, nn

import steelyard


class Encoder(nn.Module):
    """Four transformer layers, mean over the tokens."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        encoded: Tensor = self.layers(x)
        return encoded.mean(1)


def mlp() -> tuple[nn.Module, Tensor, int]:
    layers: list[nn.Module] = []
    for _ in range(3):
        layers += [nn.Linear(1024, 1024), nn.ReLU()]
    return nn.Sequential(*layers), torch.randn(128, 1024), 1024


def convnet() -> tuple[nn.Module, Tensor, int]:
    def block(inside: int, outside: int) -> list[nn.Module]:
        return [nn.Conv2d(inside, outside, 3, padding=1), nn.BatchNorm2d(outside), nn.ReLU(), nn.MaxPool2d(2)]

    trunk = nn.Sequential(*block(1, 32), *block(32, 64), *block(64, 128), nn.Flatten(), nn.Linear(1152, 256), nn.ReLU())
    return trunk, torch.randn(64, 1, 28, 28), 256


def transformer() -> tuple[nn.Module, Tensor, int]:
    return Encoder(), torch.randn(32, 64, 256), 256


TRUNKS: dict[str, Callable[[], tuple[nn.Module, Tensor, int]]] = {
    "mlp": mlp,
    "convnet": convnet,
    "transformer": transformer,
}


class Setting:
    def __init__(self, trunk: str, tasks: int, device: str) -> None:
        torch.manual_seed(0)
        module, inputs, width = TRUNKS[trunk]()
        self.trunk, self.inputs = module.to(device), inputs.to(device)
        self.names = [f"task{number}" for number in range(tasks)]
        self.heads = nn.ModuleList([nn.Linear(width, 10) for _ in self.names]).to(device)
        self.labels = torch.randint(10, (tasks, len(inputs)), device=device)

    def losses(self) -> tuple[dict[str, Tensor], Tensor]:
        features = self.trunk(self.inputs)
        return {
            name: nn.functional.cross_entropy(head(features), labels)
            for name, head, labels in zip(self.names, self.heads, self.labels, strict=True)
        }, features

    def zero(self) -> None:
        for parameter in (*self.trunk.parameters(), *self.heads.parameters()):
            parameter.grad = None

    def plain(self) -> None:
        self.zero()
        losses, _ = self.losses()
        sum(losses.values(), torch.zeros((), device=self.inputs.device)).backward()

    def naive(self) -> None:
        """A loop of autograd.grad that holds the whole Jacobian, then the weighted backward."""
        self.zero()
        losses, _ = self.losses()
        parameters = list(self.trunk.parameters())
        rows = []
        for loss in losses.values():
            gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
            rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
        J = torch.stack(rows)
        shares = (1 / (J @ J.T).diagonal().sqrt()).softmax(0)  # any weights: no solver is timed here
        sum(share * loss for share, loss in zip(shares, losses.values(), strict=True)).backward()

    def balanced(self, spec: str, place: str) -> Callable[[], None]:
        balancer = steelyard.make(spec, self.names)

        def run() -> None:
            self.zero()
            losses, features = self.losses()
            balancer(losses, shared=features if place == "features" else self.trunk).backward()

        return run

    def torchjd(self) -> Callable[[], None]:
        from torchjd.aggregation import UPGrad
        from torchjd.autojac import jac_to_grad, mtl_backward

        aggregator = UPGrad()

        def run() -> None:
            self.zero()
            losses, features = self.losses()
            mtl_backward(list(losses.values()), features=features)
            jac_to_grad(self.trunk.parameters(), aggregator)

        return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trunks", default="mlp,convnet,transformer")
    parser.add_argument("--tasks", default="2,8,20,40")
    parser.add_argument("--methods", default="mgda", help="Gramian methods to time; all share one look")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(machine(), device)
    for trunk in arguments.trunks.split(","):
        print(f"\n{trunk}: step time, times the plain step (quartiles)")
        for tasks in (int(number) for number in arguments.tasks.split(",")):
            setting = Setting(trunk, tasks, device)
            candidates: dict[str, Callable[[], object]] = {"plain": setting.plain}
            for method in arguments.methods.split(","):
                candidates[f"{method}, features"] = setting.balanced(method, "features")
                candidates[f"{method}, trunk"] = setting.balanced(method, "trunk")
            candidates["loop of autograd.grad"] = setting.naive
            if importlib.util.find_spec("torchjd"):
                candidates["torchjd UPGrad"] = setting.torchjd()
            timings = interleaved(candidates, "plain", arguments.rounds, warmup=1)
            base = timings["plain"].median
            print(f"  T = {tasks}, plain {base * 1e3:.1f} ms")
            for name, timing in timings.items():
                if name != "plain":
                    print(f"    {name:24s}{timing.ratio:7.2f}   ({timing.low / base:.2f} - {timing.high / base:.2f})")


if __name__ == "__main__":
    main()
