"""Devices by name, precisions, and trials in half precision, which the CPU has too."""

import pytest
import torch

from steelyard.errors import OptionError, UnknownNameError
from steelyard.method_registry import make, method_class, method_names, options_of
from steelyard.study.training import hardware
from steelyard.study.training.batch import Forward
from steelyard.study.training.ensemble import train_together
from steelyard.study.training.hardware import Hardware, check_device, devices_here, kind_of_device, named_devices
from steelyard.study.training.train import train
from steelyard.study.trial import SINGLE_TASK
from study.training.small_problem import made, same, trial

BF16, FP16 = (Hardware.of("cpu", precision) for precision in ("bf16", "fp16"))


def readers():
    """For each thing that methods read, and for a look after the step, one that does."""
    found = {}
    for name in method_names():
        cls = method_class(name)
        text = f"{name}(main=kind)" if "main" in options_of(cls) else name
        found.setdefault((cls.reads, make(text, ["kind", "size"]).needs_after), text)
    return list(found.values())


READERS = readers()


@pytest.fixture
def cards(monkeypatch):
    """Two GPUs that nothing is computed on."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def test_a_kind_stands_for_all_of_a_machines_devices_of_it(cards):
    assert devices_here() == ["cuda:0", "cuda:1", "cpu"]
    assert named_devices("cuda") == ["cuda:0", "cuda:1"]
    assert named_devices("cuda:1") == ["cuda:1"]
    assert named_devices("auto") == ["cuda:0", "cuda:1"]
    assert named_devices("cpu") == ["cpu"]
    assert kind_of_device("cuda:1") == "cuda"


def test_auto_takes_cuda_before_mps_and_mps_before_the_cpu(cards, monkeypatch):
    monkeypatch.setattr(torch.mps, "device_count", lambda: 1)
    assert devices_here() == ["cuda:0", "cuda:1", "mps:0", "cpu"]
    assert named_devices("auto") == ["cuda:0", "cuda:1"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert named_devices("auto") == named_devices("mps") == ["mps:0"]


def test_auto_is_the_cpu_where_nothing_else_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.mps, "device_count", lambda: 0)
    assert named_devices("auto") == ["cpu"]


def test_a_device_that_is_not_there_is_refused_with_what_is(cards):
    with pytest.raises(OptionError, match="no device cuda:2 on this machine, only cuda:0, cuda:1, cpu"):
        named_devices("cuda:2")
    with pytest.raises(OptionError, match="no device mps on this machine, only"):
        Hardware.of("mps")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cpu:0", "", "CUDA"])
def test_what_is_no_device_is_refused_with_what_there_could_be(name):
    with pytest.raises(OptionError, match="take one of auto, cpu, cuda, mps"):
        check_device(name)


def test_a_precision_that_nobody_knows():
    with pytest.raises(UnknownNameError, match=r"unknown precision 'bf61'\. Did you mean 'bf16'"):
        Hardware.of("cpu", "bf61")


def test_a_precision_that_the_device_does_not_have(monkeypatch):
    """As of a torch that does not compute in float16 on the CPU: it warns and goes on in float32."""

    class Refused:
        def __init__(self, *args, **options):
            pass

        def __enter__(self):
            raise UserWarning("the target dtype is not supported")

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(hardware.torch, "autocast", Refused)
    with pytest.raises(OptionError, match="CPU does not compute in fp16: the target dtype is not supported"):
        Hardware.of("cpu", "fp16")


@pytest.mark.parametrize("half", [BF16, FP16], ids=["bf16", "fp16"])
def test_forward_passes_are_in_half_precision_and_losses_in_float32(half):
    problem, seen = made(), []
    rows = problem.data().train
    network = problem.trunk()
    network[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))

    def both(inputs):
        z = network(inputs)
        return {"kind": z[:, :3], "size": z[:, 3:4]}, z

    wanted = {"kind": (rows.targets["kind"], None), "size": (torch.ones(len(rows)), None)}
    forward = Forward(both, problem.tasks, rows.inputs, wanted, half)
    assert seen == [{"bf16": torch.bfloat16, "fp16": torch.float16}[half.precision]]
    assert {loss.dtype for loss in (*forward.losses.values(), *forward.outputs.values())} == {torch.float32}


@pytest.mark.parametrize("method", [SINGLE_TASK, *READERS])
@pytest.mark.parametrize("half", [BF16, FP16], ids=["bf16", "fp16"])
def test_a_trial_in_half_precision_goes_on_bit_for_bit_and_is_near_float32(half, method, tmp_path):
    tasks = ("kind",) if method == SINGLE_TASK else ("kind", "size")
    made_of = None if method == SINGLE_TASK else make(method, tasks)
    place = max(made_of.where) if made_of is not None and made_of.needs_shared else None
    one = trial(method, tasks, shared=place, precision=half.precision, epochs=3)
    problem, path = made(), tmp_path / "checkpoint.pt"
    whole = train(one, problem, hardware=half)

    def stop(epoch):
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(one, problem, path, stop, checkpoint_seconds=0, hardware=half)
    assert same(train(one, problem, path, hardware=half), whole)
    full = train(one, problem)
    assert not same(whole, full)
    for task in tasks:
        assert whole.curves.losses[task] == pytest.approx(full.curves.losses[task], rel=0.05)


def test_the_scale_of_gradients_goes_on_too(tmp_path, monkeypatch):
    """Steps that overflow are left out and halve the scale; a trial that goes on starts with the scale that it had."""
    scales = []

    class Watched(torch.amp.GradScaler):
        def update(self, new_scale=None):
            super().update(new_scale)
            scales.append(self.get_scale())

    monkeypatch.setattr(torch.amp, "GradScaler", lambda device: Watched(device, init_scale=2.0**40))
    one, path = trial("uw", precision="fp16", epochs=2), tmp_path / "checkpoint.pt"
    whole = train(one, made(), hardware=FP16)
    watched = list(scales)
    assert watched[0] < 2.0**40

    def stop(epoch):
        raise KeyboardInterrupt

    scales.clear()
    with pytest.raises(KeyboardInterrupt):
        train(one, made(), path, stop, checkpoint_seconds=0, hardware=FP16)
    assert same(train(one, made(), path, hardware=FP16), whole)
    assert scales == watched


def test_networks_in_half_precision_are_not_stacked():
    trials = [trial("single-task", (task,), precision="bf16") for task in ("kind", "size")]
    problem = made()
    assert [ending for _, ending in train_together(trials, problem, hardware=BF16)] == [None, None]


def test_what_is_drawn_for_a_check_is_not_missed():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with hardware.ON_CPU.drawing_from(0):
        torch.rand(5)
    assert torch.equal(torch.rand(2), expected)
