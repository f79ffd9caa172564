"""Hugging Face `Trainer`: a mixin that balances the losses by name that a model returns, and a callback that reports to
a study."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steelyard.balancing.balancer import Balancer
from steelyard.balancing.features_of import RememberedFeatures, features_of
from steelyard.errors import LossError, OptionError
from steelyard.integrations.reporting import Names, Reporting, values_of
from steelyard.io.writing import replacing

try:
    from transformers import Trainer, TrainerCallback
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"steelyard.integrations.transformers needs transformers and accelerate ({error.name} is not installed): "
        'pip install ".[transformers]" in a clone of Steelyard'
    ) from error

STATE_FILE = "balancer.pt"
"""The balancer's state in each checkpoint's folder."""


class BalancerMixin:
    """Put before `Trainer`, or a subclass of it: ``class MyTrainer(BalancerMixin, Trainer)``.

    The model returns its losses by task name, ``{"losses": {"tone": …, "length": …}, "logits": …}``; override
    `task_losses` to compute them otherwise. Evaluation reports their plain, priority-weighted sum as ``eval_loss``.
    The balancer is attached to the optimizer (accumulation, skipped steps), hears of the end of epochs, adds its
    `metrics` to what is logged, and its state is saved and loaded with every checkpoint. It is no part of the model:
    weight decay does not touch it, and the model's own files stay as they were.

    Args:
        balancer: the balancer.
        features: the name of the submodule whose output the task heads read ("encoder", "bert.pooler"), where
            gradients are to be read at features; see `features_of`.
        trunk: the name of the shared submodule, where they are to be read at the trunk.
        args, kwargs: those of `Trainer`.

    Errors: both places given; a setting of the trainer that would replace or change the losses
    (``compute_loss_func``, ``label_smoothing_factor``); several GPUs in one process.
    """

    # The balanced loss is that of one micro-batch: the trainer divides it by their number.
    loss_is_scaled_for_ga = False

    def __init__(
        self, *args: Any, balancer: Balancer, features: str | None = None, trunk: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        if features is not None and trunk is not None:
            raise OptionError(f"gradients are read at one place: leave out features={features!r} or trunk={trunk!r}")
        trainer: Any = self
        if trainer.compute_loss_func is not None:
            raise OptionError(
                "compute_loss_func would replace the balanced loss: leave it out, or override task_losses"
            )
        if trainer.args.label_smoothing_factor:
            raise OptionError(
                f"label_smoothing_factor={trainer.args.label_smoothing_factor:g} works on the one loss that a Trainer "
                "computes itself: set it to 0, and smooth where the model computes its losses"
            )
        if trainer.args.n_gpu > 1:
            raise OptionError(
                f"DataParallel over {trainer.args.n_gpu} GPUs of one process hands back several losses per task: "
                "launch one process per GPU (torchrun, accelerate launch), or set CUDA_VISIBLE_DEVICES to one GPU"
            )
        trainer.model_accepts_loss_kwargs = False  # means over the micro-batch, in older versions of the trainer too
        self.balancer = balancer
        self._features: RememberedFeatures | None = None
        self._trunk = None if trunk is None else trainer.model.get_submodule(trunk)
        if features is not None:
            self._features = features_of(trainer.model.get_submodule(features))
        trainer.add_callback(_EpochTicks(balancer))

    def task_losses(self, outputs: Any, inputs: Mapping[str, Any]) -> Mapping[str, Tensor | None]:
        """The losses by task name, from the model's outputs and inputs; override where it does not return them."""
        try:
            losses: Mapping[str, Tensor | None] = outputs["losses"]
        except (KeyError, TypeError) as error:
            raise LossError(
                f"the model's output ({type(outputs).__name__}) has no entry 'losses': return the losses by task name "
                "there, or override task_losses(outputs, inputs)"
            ) from error
        return losses

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The balanced loss in training, the plain sum in evaluation."""
        outputs = model(**inputs)
        losses = self.task_losses(outputs, inputs)
        self.balancer.train(model.training)
        shared = self._trunk if self._features is None or not model.training else self._features()
        loss = self.balancer(losses, shared=shared)
        if not return_outputs:
            return loss
        # The losses are no predictions for the trainer to gather.
        return loss, {name: value for name, value in outputs.items() if name != "losses"} if isinstance(
            outputs, Mapping
        ) else outputs

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """The trainer's optimizer, with the balancer attached."""
        trainer: Any = super()
        optimizer: torch.optim.Optimizer = trainer.create_optimizer(*args, **kwargs)
        self.balancer.attach(optimizer, self.accelerator.scaler)  # type: ignore[attr-defined]
        return optimizer

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """The training loss brings the balancer's metrics along."""
        if "loss" in logs:
            logs |= {name: value for name, value in self.balancer.metrics().items() if name not in logs}
        trainer: Any = super()
        trainer.log(logs, *args, **kwargs)

    # The state also rides in the optimizer's, but DeepSpeed and FSDP drop foreign entries from that.
    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        trainer: Any = super()
        trainer._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save:  # type: ignore[attr-defined]
            with replacing(Path(output_dir) / STATE_FILE) as file:
                torch.save(self.balancer.state_dict(), file)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None and (file := Path(checkpoint) / STATE_FILE).is_file():
            self.balancer.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        trainer: Any = super()
        trainer._load_optimizer_and_scheduler(checkpoint)


class BalancedTrainer(BalancerMixin, Trainer):
    """`Trainer` with `BalancerMixin`: ``BalancedTrainer(model, args, balancer=balancer, features="encoder")``."""


class _EpochTicks(TrainerCallback):
    """The beginning of an epoch ends the one before: a run resumed from any checkpoint hears of each end once."""

    def __init__(self, balancer: Balancer) -> None:
        self.balancer = balancer
        self._begun = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._begun = False

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        balancer = self.balancer
        # After a restart in the middle of an epoch, the trainer begins that epoch again. Later ones are whole, also
        # where data have no length and the trainer counts in parts of max_steps.
        at_boundary = self._begun or (state.epoch is not None and float(state.epoch).is_integer())
        self._begun = True
        if balancer.period is None and balancer.period_steps > 0 and at_boundary:
            balancer.end_epoch()


class TrialCallback(TrainerCallback):
    """Reports every epoch's evaluation to the study that runs this program.

    The trainer evaluates at the end of epochs (``eval_strategy="epoch"``) two data sets,
    ``eval_dataset={"validation": …, "test": …}``, with ``compute_metrics``. Train ``num_train_epochs=trial.epochs``.
    Where the study has patience, training ends when that is used up.

    Args:
        trial: from `steelyard.trial`.
        metrics: of each task the name that ``compute_metrics`` gives to its metric, or such names by metric.
        network: whether the study gets the model's weights, which it keeps under ``--keep``. Not of models above 2 GiB,
            or of parameters in shards (FSDP): it refuses these.

    Errors: a name that ``compute_metrics`` does not give, and all that `trial.report` refuses.

    Example::

        trial = steelyard.trial(tasks={"tone": "accuracy", "length": "rmse"}, epochs=3)
        report = TrialCallback(trial, metrics={"tone": "tone_accuracy", "length": "length_rmse"})
        trainer = BalancedTrainer(model, args, balancer=trial.balancer(), callbacks=[report], …)
    """

    def __init__(self, trial: Reporting, *, metrics: Names, network: bool = True) -> None:
        self.trial, self.metrics, self.network = trial, metrics, network
        self._found: dict[str, Mapping[str, Any]] = {}
        self._reported = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Show what the network starts from, unless it goes on from a checkpoint."""
        if state.global_step == 0:
            self.trial.start(kwargs["model"])

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Report the epoch once both data sets are evaluated."""
        epoch = state.epoch
        if epoch is None or not float(epoch).is_integer() or epoch <= self._reported:
            return
        for part in ("validation", "test"):
            prefix = f"eval_{part}_"
            given = {name.removeprefix(prefix): each for name, each in kwargs["metrics"].items() if prefix in name}
            if given:
                self._found[part] = values_of(self.trial, given, self.metrics, "compute_metrics gives no {!r}".format)
        if len(self._found) == 2:
            self._reported = int(epoch)
            found, self._found = self._found, {}
            network = kwargs["model"] if self.network else None
            self.trial.report(self._reported, found["validation"], found["test"], network=network)
            if self.trial.should_stop:
                control.should_training_stop = True
