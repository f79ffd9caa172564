"""Which device a trial gets: round-robin on one machine, the cluster's choice elsewhere."""

import dataclasses

import pytest
import torch

from steelyard.errors import OptionError, PlanError
from steelyard.study import compare, plan, run
from steelyard.study.planning.plan import Plan
from steelyard.study.running.engines.interface import Job, device_for, device_of_cluster
from steelyard.study.running.engines.local import Pool, places_on
from steelyard.study.running.worker import Work
from steelyard.study.storage.store import Store
from steelyard.study.trial import Trial
from study import made_up
from study.in_process import InProcess


@pytest.fixture
def two_cards(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.parametrize(
    ("devices", "per_device", "workers", "expected"),
    [
        (["cpu"], 1, None, ["cpu"] * 4),
        (["cpu"], 3, None, ["cpu"] * 4),  # a core is not shared
        (["cpu"], 1, 2, ["cpu"] * 2),
        (["cuda:0", "cuda:1"], 1, None, ["cuda:0", "cuda:1"]),
        (["cuda:0", "cuda:1"], 2, None, ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]),
        (["cuda:0", "cuda:1"], 2, 3, ["cuda:0", "cuda:1", "cuda:0"]),
        (["cuda:1"], 2, None, ["cuda:1", "cuda:1"]),
    ],
)
def test_places_go_round_the_devices(devices, per_device, workers, expected):
    assert places_on(devices, per_device, workers, cores=4) == expected


class Process:
    """A worker that does nothing, and is no more once its pipe is read."""

    exitcode = 0

    def __init__(self, target, args, daemon):
        self.work = args[1]

    def start(self):
        pass

    join = kill = start


def test_a_worker_gets_a_device_that_nobody_has(two_cards, monkeypatch, tmp_path):
    """Of six pieces of work on two cards with one place each, the third waits for a card that became free."""
    pool = Pool(Job("digits", None, tmp_path, False, tmp_path, None, device="cuda"))
    started = []
    monkeypatch.setattr(pool.context, "Process", lambda **given: started.append(Process(**given)) or started[-1])
    trial = Trial("p", "equal", ("a",), 0, (("a", 1.0),), 1, 8, device="cuda")
    pool._start((trial,))
    pool._start((trial,))
    assert [process.work.device for process in started] == ["cuda:0", "cuda:1"]
    assert not pool.free
    second = list(pool.running)[1]
    list(pool._received(second))  # its end of the pipe is closed: lost
    assert pool.free == ["cuda:1"]
    pool._start((trial,))
    assert started[2].work.device == "cuda:1"
    for connection in pool.running:
        connection.close()


@pytest.mark.parametrize(("asked", "gpus", "expected"), [
    ("auto", None, "cpu"), ("auto", 0, "cpu"), ("auto", 0.5, "cuda"), ("cuda", None, "cuda"), ("cuda", 2, "cuda"),
    ("cpu", 1, "cpu"), ("mps", None, "mps"),
])  # fmt: skip
def test_a_cluster_hands_out_its_gpus(asked, gpus, expected):
    assert device_of_cluster("ray", asked, gpus) == expected


def test_what_a_cluster_cannot_do_says_what_to_write():
    with pytest.raises(OptionError, match="ray says which of its GPUs a trial gets; write --device cuda"):
        device_of_cluster("ray", "cuda:1", None)
    with pytest.raises(OptionError, match=r"write --on 'slurm\(gpus=1\)'"):
        device_of_cluster("slurm", "cuda", 0)


def test_an_engine_of_ones_own_need_not_know_devices():
    assert device_for(object(), "auto") == "cpu"
    assert device_for(object(), "cuda") == "cuda"
    with pytest.raises(OptionError, match="no device called 'gpu'"):
        device_for(object(), "gpu")


def test_a_worker_trains_where_its_trial_says_unless_told(two_cards, monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    trial = Trial("p", "equal", ("a",), 0, (("a", 1.0),), 1, 8, device="cuda")
    assert str(Work("p", (trial,), None).hardware.device) == "cuda:0"
    assert str(Work("p", (trial,), None, device="cuda:1").hardware.device) == "cuda:1"
    assert [str(device) for device in chosen] == ["cuda:0", "cuda:1"]  # what the problem puts on "cuda" goes there too


def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


@pytest.mark.takes("the server that forks workers imports torch for the first test that needs it")
def test_a_device_that_is_not_here_is_refused_before_anything_is_planned_or_stored(monkeypatch, tmp_path):
    no_gpu(monkeypatch)
    store = tmp_path / "store.sqlite"
    with pytest.raises(OptionError, match="no device cuda on this machine, only cpu"):
        compare("no such problem", ["equal"], store=store, device="cuda")
    with pytest.raises(OptionError, match="no device cuda on this machine, only cpu"):
        run(dataclasses.replace(made_up.plan(), device="cuda"), store)
    with pytest.raises(PlanError, match="per_device=0 must be a whole number of at least 1"):
        compare("digits", ["equal"], store=store, per_device=0)
    assert not store.exists()


def test_trials_of_another_device_or_precision_are_others(monkeypatch):
    """And those of the CPU in float32 are known as they were before there was a choice."""
    no_gpu(monkeypatch)
    usual = plan("digits", ["equal"], seeds=1, epochs=1)
    assert "device" not in usual.trials[0].canonical()
    assert "precision" not in usual.trials[0].canonical()
    others = [usual, *(plan("digits", ["equal"], seeds=1, epochs=1, **given) for given in (
        {"device": "cuda"}, {"precision": "bf16"}, {"device": "cuda", "precision": "bf16"},
    ))]  # fmt: skip
    assert len({each.trials[0].key for each in others}) == 4
    same = plan("digits", ["equal"], seeds=1, epochs=1, device="cuda:1")
    assert same.trials[0].key == others[1].trials[0].key  # one card is as good as another
    assert plan("digits", ["equal"], seeds=1, epochs=1, device="auto").trials[0].key == usual.trials[0].key


def test_plans_from_before_devices_are_the_cpus():
    values = made_up.plan().to_dict()
    for name in ("device", "precision", "hardware"):
        del values[name]
    old = Plan.from_dict(values)
    assert (old.device, old.precision) == ("cpu", "float32")
    assert [trial.key for trial in old.trials] == [trial.key for trial in made_up.plan().trials]


def test_a_study_in_bf16_does_not_reuse_that_in_float32_and_says_what_it_is(tmp_path):
    settings = {"seeds": 1, "epochs": 1, "progress": False, "store": tmp_path / "store.sqlite", "on": InProcess()}
    full = compare("digits", ["single-task", "equal"], **settings)
    half = compare("digits", ["single-task", "equal"], **settings, precision="bf16")
    assert (full.device, full.precision, half.precision) == ("cpu", "float32", "bf16")
    assert full.finished == half.finished == 3
    with Store(tmp_path / "store.sqlite") as opened:
        assert len(opened.finished()) == 6
    for one, other in zip(full.cells, half.cells, strict=True):
        assert one.mean != other.mean
        assert one.mean == pytest.approx(other.mean, abs=0.1)
