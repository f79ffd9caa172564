"""Trials on a device that is not the CPU: the numbers of the CPU, bit for bit, and everything where it belongs.

Run by `test_second_device.py` in a process of its own: autograd must know the device before it computes anything.
Left out: the ledger, which tells tensors apart by where their memory lies; a tensor of this device has none of its own.
"""

from __future__ import annotations

import copy
import functools
from pathlib import Path

import pytest
import torch
from safetensors.torch import load
from torch import nn

from gradients.test_trunk import NETWORKS
from second_device import There, TwoDevicesError, second_device
from steelyard.balancing import clipping
from steelyard.balancing.losses_of import losses_of
from steelyard.gradients.trunk import trunk_gradients
from steelyard.method_registry import make, method_class, method_names, options_of
from steelyard.models import architecture_names
from steelyard.problems import Data, JointMetric, Split, regression
from steelyard.problems.dense import depth, normals, segmentation
from steelyard.study.storage.network_files import pack
from steelyard.study.training.diagnose_training import diagnose_training
from steelyard.study.training.ensemble import train_together
from steelyard.study.training.hardware import Hardware
from steelyard.study.training.rows_on_device import RowsOnDevice
from steelyard.study.training.train import train
from study.training import small_problem
from study.training.small_problem import same, trial

torch.set_num_threads(1)


@pytest.fixture(params=[True, False], ids=["as CUDA", "without float64, as MPS"])
def module(request, monkeypatch):
    with second_device(monkeypatch, float64=request.param) as found:
        monkeypatch.setattr(found, "free", 2**30)
        yield found


def made(**options):
    return small_problem.made(**{"joint": (JointMetric("none", lambda outputs, targets: 0.0, True),), **options})


def places(name):
    method = make(name, ["kind", "size"])
    return sorted(method.where) if method.needs_shared else [None]


METHODS = [f"{name}(main=kind)" if "main" in options_of(method_class(name)) else name for name in method_names()]
# What options make of a method, where numbers of both devices meet: stages, other looks, products along the step.
METHODS += ["log+mgda", "ema-scale+mgda", "cr-mogm+mgda", "mgda(look=last)", "mgda(every=2)", "pcgrad(heads=weighted)"]
METHODS += [f"mgda(solver=amortised,product={product})" for product in ("difference", "backward")]
# Left out: forward mode, which does not go through tensors of this kind; the lstm, whose fused cell nobody carries out;
# the resnet, a part of which is called as the device is.
LAYERS = [name for name in NETWORKS if name not in ("lstm", "resnet")]
ARMS = [(name, place) for name in METHODS for place in places(name)]
# One of each kind of state and of reading; the others are slow to carry out in Python, all of them by `make slow`.
FEW = ("equal", "uw", "gradnorm", "pcgrad", "moco", "cr-mogm+mgda", "mgda(solver=amortised,product=difference)")
every = pytest.mark.slow("a device in Python carries out a training of every method at every place")


@functools.lru_cache(maxsize=1)
def on_cpu(one):
    return train(one, made())


@pytest.mark.parametrize(
    ("name", "place"), [pytest.param(*arm, marks=[] if arm[0] in FEW else [every]) for arm in ARMS]
)
def test_every_method_gives_the_numbers_of_the_cpu(module, name, place):
    one = trial(name, shared=place, epochs=1)
    assert same(train(one, made(), hardware=Hardware.of("second")), on_cpu(one))


@pytest.mark.parametrize("name", LAYERS)
def test_every_layers_gramian_is_that_of_the_cpu(module, name):
    """Squares of the smaller gradients vanish in float32: there it is computed in float64."""

    def gramian(device):
        torch.manual_seed(0)
        build, inputs = NETWORKS[name]
        trunk, x = build(), inputs()
        heads = nn.ModuleList(nn.Linear(trunk(x).shape[-1], 3) for _ in range(3))
        trunk.to(device), heads.to(device)
        torch.manual_seed(1)
        features = trunk(x.to(device))
        losses = [1e-25 * head(features).square().mean() for head in heads]
        return trunk_gradients(["a", "b", "c"], losses, list(trunk.parameters()), at_boundary=False).gramian.cpu()

    assert torch.equal(gramian("second"), gramian("cpu"))


@pytest.mark.parametrize(
    "architecture",
    [pytest.param(name, marks=[] if name in ("hard-sharing", "mmoe") else [every]) for name in architecture_names()],
)
def test_every_architecture_too(module, architecture):
    trunk = nn.Sequential(nn.Linear(4, 6), nn.Tanh()), nn.Sequential(nn.Linear(6, 6), nn.Tanh())
    problem = made(trunk=lambda: copy.deepcopy(nn.Sequential(*trunk)))
    one = trial("uw", architecture=architecture, epochs=1)
    assert same(train(one, problem, hardware=Hardware.of("second")), train(one, problem))


def waits_of_a_step(module, name, place):
    """How often the program waits for the device, once the first steps are over."""
    torch.manual_seed(0)
    tasks = ["kind", "size", "shape"]
    trunk, heads = nn.Sequential(nn.Linear(5, 6), nn.Tanh()), nn.ModuleList(nn.Linear(6, 1) for _ in range(3))
    trunk.to("second"), heads.to("second")
    optimizer = torch.optim.SGD([*trunk.parameters(), *heads.parameters()], lr=1e-2)
    balancer = make(name, tasks, generator=torch.Generator().manual_seed(0)).attach(optimizer)

    def losses_on(call, x):
        features = call(x)
        return {task: head(features).square().mean() for task, head in zip(tasks, heads, strict=True)}

    for _ in range(4):
        x, before = torch.randn(8, 5).to("second"), module.waits
        features = trunk(x)
        losses = losses_on(lambda x, features=features: features, x)
        again = losses_of(trunk, losses_on, x, held_out=x)
        shared = {"features": features, "trunk": trunk}.get(place)
        loss = balancer(losses, shared=shared, again=again, probes=[losses, losses_on(trunk, x)])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if balancer.needs_validation:
            balancer.observe(validation={task: loss.detach() for task, loss in losses.items()})
    return module.waits - before


@every
def test_how_often_a_step_waits_for_the_device_is_on_the_site(monkeypatch):
    """Each wait stops a GPU's queue. A method that has come to wait more often has to say so in the table."""
    monkeypatch.setattr(clipping, "_STEPS", 1)
    found = {}
    with second_device(monkeypatch) as module:
        for name in METHODS:
            for place in places(name):
                found.setdefault(waits_of_a_step(module, name, place), {}).setdefault(place, []).append(name)
    site = (Path(__file__).parents[3] / "docs" / "numbers.md").read_text()
    rows = [
        f"| {waits} | " + " | ".join(named(of.get(place, [])) for place in (None, "features", "trunk")) + " |"
        for waits, of in sorted(found.items())
    ]
    assert "\n".join(rows) in site, "\n".join(rows)


def named(methods):
    return ", ".join(f"`{name.replace('(main=kind)', '')}`" for name in methods)


def test_a_step_makes_nothing_elsewhere(module):
    """What the checks rest on: one tensor on the CPU among those of a step is an error."""
    elsewhere = made(head=lambda task: Elsewhere(task.outputs))
    train(trial(epochs=1), elsewhere)
    with pytest.raises(TwoDevicesError):
        train(trial(epochs=1), elsewhere, hardware=Hardware.of("second"))


class Elsewhere(nn.Linear):
    def __init__(self, outputs):
        super().__init__(6, outputs)
        self.shift = torch.zeros(outputs)  # no buffer

    def forward(self, inputs):
        return super().forward(inputs) + self.shift


@pytest.mark.parametrize("free", [2**30, 1000], ids=["moved once", "streamed"])
def test_data_stay_there_if_they_fit(module, monkeypatch, free):
    taken = []
    original = RowsOnDevice._of

    def watched(rows, tensor, which):
        taken.append(type(tensor) is There)
        return original(rows, tensor, which)

    monkeypatch.setattr(module, "free", free)
    monkeypatch.setattr(RowsOnDevice, "_of", watched)
    assert same(train(trial(), made(), hardware=Hardware.of("second")), train(trial(), made()))
    there = taken[: taken.index(False)] if free > 1000 else taken
    assert there
    assert set(there) == {free > 1000}


def test_a_checkpoint_lies_on_the_cpu_and_goes_on_there(module, tmp_path):
    problem, hardware = made(), Hardware.of("second")
    whole, path = train(trial("uw", epochs=3), problem, hardware=hardware), tmp_path / "checkpoint.pt"

    def stop(epoch):
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(trial("uw", epochs=3), problem, path, stop, checkpoint_seconds=0, hardware=hardware)
    assert same(train(trial("uw", epochs=3), problem, path), whole)  # on the CPU
    assert same(train(trial("uw", epochs=3), problem, path, hardware=hardware), whole)


def test_networks_are_kept_on_the_cpu(module):
    kept = []
    keep = {"on_trained": lambda state: kept.append(load(pack(trial(), state)))}
    train(trial(), made(), hardware=Hardware.of("second"), **keep)
    train(trial(), made(), **keep)
    there, here = kept
    assert there.keys() == here.keys()
    assert all(torch.equal(there[name], here[name]) for name in here)


def test_stacked_networks_train_there(module):
    linear = {"trunk": lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh())}
    tasks = tuple(regression(f"task{number}") for number in range(3))

    def loaded():
        data = made().data()
        return Data(
            *(Split(s.inputs, {t.name: s.inputs[:, k] for k, t in enumerate(tasks)}) for s in data.splits().values())
        )

    problem = made(tasks=tasks, load=loaded, joint=(), **linear)
    trials = [trial("single-task", (task.name,)) for task in tasks]
    there = dict(train_together(trials, problem, hardware=Hardware.of("second")))
    here = dict(train_together(trials, problem))
    assert all(same(there[each], here[each]) for each in trials)


def test_pixels_are_judged_there(module):
    generator = torch.Generator().manual_seed(0)

    def split():
        x = torch.randn(8, 3, 4, 4, generator=generator)
        seg = torch.randint(3, (8, 4, 4), generator=generator)
        seg[:, 0, 0] = 255
        far = torch.randint(0, 200, (8, 1, 4, 4), generator=generator).to(torch.uint8)
        return Split(
            x, {"seg": seg.to(torch.uint8), "depth": far, "normal": torch.randn(8, 3, 4, 4, generator=generator)}
        )

    splits = [split() for _ in range(3)]
    problem = made(
        tasks=(segmentation("seg", 3), depth("depth", 0.05), normals("normal")),
        load=lambda: Data(*splits),
        trunk=lambda: nn.Conv2d(3, 4, 3, padding=1),
        head=lambda task: nn.Conv2d(4, task.outputs, 1),
        joint=(),
    )
    one = trial("equal", ("seg", "depth", "normal"), batch_size=4, epochs=1)
    assert same(train(one, problem, hardware=Hardware.of("second")), train(one, problem))


def test_a_diagnosis_looks_there(module):
    seen = [diagnose_training(made(), 1, device=device, affinity=True) for device in ("second", "cpu")]
    assert repr(seen[0]) == repr(seen[1])


def test_memory_is_the_devices_and_times_wait_for_it(module, monkeypatch):
    class Climbing:
        calls = 0

        def __call__(self, device):
            self.calls += 1
            return self.calls * 2**20

    monkeypatch.setattr(module, "max_memory_allocated", Climbing(), raising=False)
    module.synchronized = False
    assert train(trial(), made(), hardware=Hardware.of("second")).peak_memory == 1.0
    assert module.synchronized
