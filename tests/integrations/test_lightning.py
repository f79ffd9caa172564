"""Lightning trains as the plain loop does, whatever its trainer is set to."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

lightning = pytest.importorskip("lightning.pytorch", reason="Lightning is not installed: make test-integrations")

import itertools

import steelyard
from steelyard.errors import OptionError, StateError
from steelyard.integrations.lightning import BalancerCallback
from steelyard.testing.toy import same_state, snapshot
from two_tasks import BATCH, TASKS, TwoTasks, data, losses_of, place, plain_loop, same

HERE = Path(__file__).parent


class Model(lightning.LightningModule):
    def __init__(self, method: str = "db-mtl", where: str = "features", **options: Any) -> None:
        super().__init__()
        self.network = TwoTasks()
        self.where = where
        torch.manual_seed(2)
        self.balancer = steelyard.make(method, TASKS, **options)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        outputs, features = self.network(batch[0])
        return self.balancer(losses_of(outputs, batch[1]), shared=place(self.network, features, self.where))

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("validation", self.balancer(losses_of(self.network(batch[0])[0], batch[1])))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def loader(batches: int = 8, repeat: int = 1) -> DataLoader:
    return DataLoader(TensorDataset(*(tensor.repeat(repeat, 1) for tensor in data(batches))), batch_size=BATCH)


def trainer(path: Path, **options: Any):
    settings = {
        "max_epochs": 2,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": path,
        "callbacks": [BalancerCallback()],
    }
    return lightning.Trainer(**{**settings, **options})


@pytest.mark.parametrize(
    ("method", "where"),
    [("uw", "features"), ("dwa", "features"), ("db-mtl", "features"), ("upgrad", "trunk"), ("gradnorm", "trunk")],
)
def test_it_trains_as_the_plain_loop_does(tmp_path: Path, method: str, where: str) -> None:
    model = Model(method, where)
    trainer(tmp_path).fit(model, loader())
    reference, balancer = plain_loop(method, where)
    assert same(model.network, reference)
    if method != "dwa":  # the callback ends an epoch as the next one begins
        assert same_state(snapshot(model.balancer), snapshot(balancer))


@pytest.mark.parametrize(("method", "where"), [("uw", "features"), ("db-mtl", "features"), ("db-mtl", "trunk")])
def test_accumulation(tmp_path: Path, method: str, where: str) -> None:
    model = Model(method, where)
    trainer(tmp_path, accumulate_grad_batches=4).fit(model, loader())
    assert model.balancer.steps == 4
    assert same(model.network, plain_loop(method, where, accumulate=4)[0])


@pytest.mark.parametrize(("method", "where"), [("uw", "features"), ("mgda", "features"), ("mgda", "trunk")])
def test_clipping(tmp_path: Path, method: str, where: str) -> None:
    model = Model(method, where)
    trainer(tmp_path, gradient_clip_val=0.1).fit(model, loader())
    assert same(model.network, plain_loop(method, where, clip=0.1)[0])


@pytest.mark.parametrize(("method", "where"), [("ema", "features"), ("upgrad", "features"), ("upgrad", "trunk")])
def test_bf16_mixed(tmp_path: Path, method: str, where: str) -> None:
    model = Model(method, where)
    trainer(tmp_path, precision="bf16-mixed").fit(model, loader())
    assert same(model.network, plain_loop(method, where, autocast=True)[0])
    assert model.balancer.last_weights.dtype == torch.float64


MOMENTS = {
    "epoch's end": {"every_n_epochs": 1, "save_on_train_epoch_end": True},
    "validation": {"every_n_epochs": 1, "save_on_train_epoch_end": False},
    "last batch": {"every_n_train_steps": 8},
    "middle": {"every_n_train_steps": 12},
}


@pytest.mark.parametrize(
    ("method", "where"),
    [
        *((name, "features") for name in ("dwa", "relobralo", "random", "uw", "famo(form=lagged)", "db-mtl")),
        ("db-mtl", "trunk"),
    ],
)
@pytest.mark.parametrize("moment", list(MOMENTS))
def test_resume_is_bit_identical(tmp_path: Path, method: str, where: str, moment: str) -> None:
    checkpoints = lightning.callbacks.ModelCheckpoint(
        tmp_path, filename="{epoch}-{step}", save_top_k=-1, **MOMENTS[moment]
    )
    # A plain loader starts its epoch afresh after a restart in the middle: let all batches be the same one there.
    train = loader(batches=1, repeat=8) if moment == "middle" else loader()
    validation = loader() if moment == "validation" else None
    callbacks = [BalancerCallback(), checkpoints]
    whole = Model(method, where)
    trainer(tmp_path, max_epochs=4, callbacks=callbacks, enable_checkpointing=True).fit(whole, train, validation)
    first = min(tmp_path.glob("*.ckpt"), key=lambda file: int(file.stem.split("step=")[1]))
    resumed = Model(method, where)
    torch.manual_seed(99)
    trainer(tmp_path, max_epochs=4).fit(resumed, train, validation, ckpt_path=first)
    assert whole.balancer.steps == 32
    assert same(whole.network, resumed.network)
    assert same_state(snapshot(whole.balancer), snapshot(resumed.balancer))
    if method == "dwa":
        assert whole.balancer.period_steps == 8, "three of four epochs have been heard to end"


def test_checkpoints_load_for_inference(tmp_path: Path) -> None:
    model, fitted = Model("uw"), trainer(tmp_path)
    fitted.fit(model, loader())
    fitted.save_checkpoint(tmp_path / "last.ckpt")
    loaded = Model.load_from_checkpoint(tmp_path / "last.ckpt", method="uw", weights_only=True)
    assert same_state(snapshot(model.balancer), snapshot(loaded.balancer))


@pytest.mark.parametrize(
    ("method", "where", "accumulate"), [("uw", "features", 1), ("db-mtl", "features", 2), ("mgda", "trunk", 1)]
)
def test_ddp_with_two_processes(tmp_path: Path, method: str, where: str, accumulate: int) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(HERE.parent)])}
    command = [sys.executable, str(HERE / "lightning_ddp.py"), str(tmp_path), method, where]
    done = subprocess.run(
        [*command, "--accumulate", str(accumulate)], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first["network"].keys() == second["network"].keys()
    assert all(torch.equal(value, second["network"][name]) for name, value in first["network"].items())
    assert str(first["balancer"]) == str(second["balancer"])


class TestCallback:
    def test_it_logs_at_the_steps_of_the_trainer(self, tmp_path: Path) -> None:
        logger = lightning.loggers.CSVLogger(tmp_path)
        model = Model("db-mtl")
        trainer(tmp_path, logger=logger, log_every_n_steps=2, accumulate_grad_batches=2).fit(model, loader())
        logger.save()
        with (Path(logger.log_dir) / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [int(row["step"]) for row in rows] == [1, 3, 5, 7]
        assert float(rows[-1]["weight/steep"]) == pytest.approx(model.balancer.metrics()["weight/steep"], rel=1e-6)
        assert {"loss/flat", "share/flat", "norm/flat", "loss/sum"} <= rows[0].keys()

    def test_it_can_leave_logging_to_you(self, tmp_path: Path) -> None:
        logger = lightning.loggers.CSVLogger(tmp_path)
        settings = {"logger": logger, "log_every_n_steps": 1, "callbacks": [BalancerCallback(log=False)]}
        trainer(tmp_path, **settings).fit(Model(), loader())
        assert logger.experiment.metrics == []

    def test_a_period_in_steps_is_left_to_the_method(self, tmp_path: Path) -> None:
        model = Model("dwa(period=3)")
        trainer(tmp_path).fit(model, loader())
        assert model.balancer.period_steps == 16 % 3

    def test_several_optimizers_need_a_choice(self, tmp_path: Path) -> None:
        model = ByHand("ema")
        with pytest.raises(OptionError, match=r"has 2 optimizers.*BalancerCallback\(optimizer=0\)"):
            trainer(tmp_path).fit(model, loader())
        with pytest.raises(OptionError, match=r"optimizer=2\): the model has 2 optimizer"):
            trainer(tmp_path, callbacks=[BalancerCallback(optimizer=2)]).fit(model, loader())
        trainer(tmp_path, callbacks=[BalancerCallback(optimizer=1)]).fit(model, loader())
        assert model.balancer.steps == 16

    def test_a_model_without_a_balancer_is_refused(self, tmp_path: Path) -> None:
        model = Model()
        del model.balancer
        with pytest.raises(StateError, match=r"finds no balancer in Model: .*self.balancer = steelyard.make"):
            trainer(tmp_path).fit(model, loader())


class ByHand(Model):
    """Manual optimization, heads and trunk with an optimizer each; what Lightning hands out are wrappers."""

    automatic_optimization = False

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        for optimizer in self.optimizers():
            optimizer.step()

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        parts = self.network.heads, self.network.encoder
        return [torch.optim.SGD(part.parameters(), lr=1e-3) for part in parts]


@pytest.mark.parametrize(("method", "where"), [("ema", "features"), ("mgda", "features"), ("mgda", "trunk")])
def test_attach_takes_the_wrapper_that_lightning_hands_out(tmp_path: Path, method: str, where: str) -> None:
    class Attached(ByHand):
        def on_train_start(self) -> None:
            self.balancer.attach(self.optimizers()[1])

    model = Attached(method, where)
    trainer(tmp_path, callbacks=[]).fit(model, loader())
    assert model.balancer.steps == 16


def test_a_skipped_step_moves_neither_momentum_nor_decay(tmp_path: Path) -> None:
    """Lightning runs the forward pass inside ``optimizer.step``."""

    class Spoiled(Model):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            before.append([p.detach().clone() for p in self.network.parameters()])
            outputs, features = self.network(batch[0])
            losses = losses_of(outputs, batch[1])
            if batch_idx == 5:
                losses["flat"] = losses["flat"] * float("nan")
            return self.balancer(losses, shared=features)

    before: list[list[Tensor]] = []
    model = Spoiled("db-mtl", on_nonfinite="skip_step")
    trainer(tmp_path, max_epochs=1).fit(model, loader())
    still = [all(map(torch.equal, first, second)) for first, second in itertools.pairwise(before)]
    assert still == [number == 5 for number in range(7)]
    assert model.balancer.steps == 7
