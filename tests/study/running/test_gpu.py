"""Studies on a GPU: what only one can show. `pytest -m gpu` runs these where there is one."""

import dataclasses

import pytest
import torch

from steelyard.study import compare, network
from steelyard.study.storage.store import Store
from steelyard.study.training.hardware import Hardware
from steelyard.study.training.rows_on_device import RowsOnDevice
from steelyard.study.training.train import train
from study.training.small_problem import made, trial

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        torch.cuda.device_count() == 0, reason=f"no CUDA device is here (torch {torch.__version__}): run it on one"
    ),
]
STUDY = {"methods": ["single-task", "equal", "uw", "mgda"], "seeds": 3, "epochs": 5, "progress": False}


def test_a_study_says_what_it_says_on_the_cpu_within_its_intervals(tmp_path):
    """Dropout draws other numbers and sums round otherwise: means agree within the sum of both half-widths."""
    there, here = (compare("digits", store=tmp_path / f"{d}.sqlite", device=d, **STUDY) for d in ("cuda", "cpu"))
    assert there.complete
    assert there.hardware == torch.cuda.get_device_name(0)
    for one, other in zip(there.cells, here.cells, strict=True):
        assert (one.method, one.task) == (other.method, other.task)
        if one.difference is not None:
            reach = (one.difference.high - one.difference.low + other.difference.high - other.difference.low) / 2
            assert abs(one.difference.mean - other.difference.mean) <= reach


@pytest.mark.parametrize("per_device", [1, 2])
def test_trials_share_a_device_if_they_are_told_to(tmp_path, per_device):
    found = compare("digits", store=tmp_path / "store.sqlite", device="auto", per_device=per_device, **STUDY)
    assert found.complete
    assert found.device == "cuda"


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
@pytest.mark.parametrize("method", ["equal", "uw", "mgda", "famo", "single-task"])
def test_a_trial_learns_what_it_learns_on_the_cpu(method, precision):
    tasks = ("kind",) if method == "single-task" else ("kind", "size")
    one = trial(method, tasks, shared="features" if method == "mgda" else None, precision=precision)
    # Without dropout, whose draws are the device's own.
    problem = made(trunk=lambda: torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh()))
    there, here = train(one, problem, hardware=Hardware.of("cuda", precision)), train(one, problem)
    for task in tasks:
        tolerance = 1e-3 if precision == "float32" else 0.05
        assert there.curves.losses[task] == pytest.approx(here.curves.losses[task], rel=tolerance)


def test_streamed_batches_come_from_pinned_memory_and_are_the_same():
    problem, hardware = made(), Hardware.of("cuda")
    split, rows = problem.data().train, torch.tensor([5, 0, 7])
    streamed, moved = (RowsOnDevice(split, problem.tasks, hardware, stays) for stays in (False, True))
    assert streamed.inputs(rows).device.type == "cuda"
    assert torch.equal(streamed.inputs(rows), moved.inputs(rows))
    assert torch.equal(streamed.inputs(slice(2, 9)), moved.inputs(slice(2, 9)))
    assert torch.equal(streamed.targets("kind", rows), moved.targets("kind", rows))


def test_memory_is_the_devices():
    wide = made(trunk=lambda: torch.nn.Linear(4, 2**20), head=lambda task: torch.nn.Linear(2**20, task.outputs))
    peak = train(dataclasses.replace(trial(), epochs=1), wide, hardware=Hardware.of("cuda")).peak_memory
    weights = 4 * 2**20 * (4 + 1 + 3 + 1) / 2**20
    assert peak >= 3 * weights  # with gradients and Adam's two moments four times that, before activations


def test_a_network_that_was_trained_there_predicts_anywhere(tmp_path):
    store = tmp_path / "store.sqlite"
    compare("digits", store=store, device="cuda", keep="best", **{**STUDY, "seeds": 1})
    here, there = (network(store, "uw", device=device) for device in ("cpu", "cuda"))
    inputs = here.problem.data().test.inputs[:16]
    for task, outputs in here.predict(inputs).items():
        torch.testing.assert_close(there.predict(inputs)[task].cpu(), outputs, rtol=1e-3, atol=1e-3)
    with Store(store) as opened:
        assert len(opened.finished()) == 5
