"""Lightning: a callback that attaches, ticks epochs and logs, and one that reports to a study.

The balancer itself stands in `training_step`.
"""

from __future__ import annotations

from typing import Any

from steelyard.balancing.balancer import Balancer
from steelyard.errors import OptionError, StateError
from steelyard.integrations.reporting import Names, Reporting, values_of

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"steelyard.integrations.lightning needs Lightning ({error.name} is not installed): "
        'pip install ".[lightning]" in a clone of Steelyard'
    ) from error


class BalancerCallback(Callback):
    """Takes care of every balancer among the modules of a `LightningModule`.

    - Attaches it to the optimizer: micro-batches of ``accumulate_grad_batches`` propose and the optimizer's step
      commits; a step that the gradient scaler skips leaves no trace.
    - Tells epoch-based methods that an epoch has ended, once the next one begins, so that a run that is resumed from a
      checkpoint of any moment hears of each end once. A method with a period in steps is left to it.
    - Logs `Balancer.metrics` each ``log_every_n_steps`` steps; reading them waits for the device then, and only then.

    The balancer's state is in the module's ``state_dict`` and thereby in every checkpoint.

    Args:
        optimizer: which of the model's optimizers steps the shared parameters; needed where there are several.
        log: whether to log the metrics.

    Errors: a model without a balancer, or with several optimizers and none chosen.

    Example::

        class Model(LightningModule):
            def __init__(self):
                ...
                self.balancer = steelyard.make("db-mtl", ["seg", "depth"])

            def training_step(self, batch, batch_idx):
                ...
                return self.balancer(losses, shared=features)

        Trainer(callbacks=[BalancerCallback()]).fit(Model(), loader)
    """

    def __init__(self, optimizer: int | None = None, *, log: bool = True) -> None:
        super().__init__()
        self.optimizer, self.log_metrics = optimizer, log
        self._balancers: dict[str, Balancer] = {}
        self._logged_at = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attach. A checkpoint has been loaded by now, the balancer's state with the module's."""
        self._balancers = {name: module for name, module in pl_module.named_modules() if isinstance(module, Balancer)}
        if not self._balancers:
            raise StateError(
                f"BalancerCallback finds no balancer in {type(pl_module).__name__}: set it in __init__, "
                "self.balancer = steelyard.make(method, tasks)"
            )
        for balancer in self._balancers.values():
            balancer.attach(self._chosen(trainer), getattr(trainer.precision_plugin, "scaler", None))
        self._logged_at = trainer.global_step

    def _chosen(self, trainer: Trainer) -> Any:
        found = len(trainer.optimizers)
        if self.optimizer is None and found > 1:
            raise OptionError(
                f"the model has {found} optimizers: say which one steps the shared parameters, "
                "BalancerCallback(optimizer=0)"
            )
        chosen = 0 if self.optimizer is None else self.optimizer
        if not 0 <= chosen < found:
            raise OptionError(
                f"BalancerCallback(optimizer={chosen}): the model has {found} optimizer(s), counted from 0"
            )
        return trainer.optimizers[chosen]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """The first batch of an epoch ends the one before."""
        if batch_idx == 0:
            for balancer in self._balancers.values():
                if balancer.period is None and balancer.period_steps > 0:
                    balancer.end_epoch()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log, at the steps at which the trainer logs."""
        step, every = trainer.global_step, trainer.log_every_n_steps
        if not self.log_metrics or every == 0 or step == self._logged_at or step % every:
            return
        self._logged_at = step
        for name, balancer in self._balancers.items():
            prefix = f"{name}/" if len(self._balancers) > 1 else ""
            pl_module.log_dict({prefix + key: value for key, value in balancer.metrics().items()})


class TrialCallback(Callback):
    """Reports every epoch's validation to the study that runs this program.

    The model logs its metrics in ``validation_step``, and a second validation loader holds the test data, whose metrics
    the trainer then names ``…/dataloader_idx_1``. Validate once an epoch, and train ``max_epochs=trial.epochs``. Where
    the study has patience, training ends when that is used up.

    Args:
        trial: from `steelyard.trial`.
        validation, test: of each task the name under which its metric is logged, or such names by metric.
        network: whether the study gets the model's weights, which it keeps under ``--keep``. Not of models above 2 GiB,
            or of parameters in shards (FSDP): it refuses these.

    Errors: a name under which nothing is logged, and all that `trial.report` refuses.

    Example::

        trial = steelyard.trial(tasks={"seg": "miou:max:1", "depth": "rmse"}, epochs=30)
        report = TrialCallback(
            trial,
            validation={task: f"{task}/dataloader_idx_0" for task in trial.tasks},
            test={task: f"{task}/dataloader_idx_1" for task in trial.tasks},
        )
        Trainer(max_epochs=trial.epochs, callbacks=[BalancerCallback(), report]).fit(model, train, [validation, test])
    """

    def __init__(
        self,
        trial: Reporting,
        *,
        validation: Names,
        test: Names,
        network: bool = True,
    ) -> None:
        super().__init__()
        self.trial, self.validation, self.test, self.network = trial, validation, test, network

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show what the network starts from, unless it goes on from a checkpoint."""
        if trainer.global_step == 0:
            self.trial.start(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the epoch."""
        if trainer.sanity_checking or trainer.state.fn != "fit":  # `trainer.validate(…)` ends no epoch
            return
        logged = trainer.callback_metrics
        validation, test = (values_of(self.trial, logged, names, _hint) for names in (self.validation, self.test))
        self.trial.report(trainer.current_epoch + 1, validation, test, network=pl_module if self.network else None)
        if self.trial.should_stop:
            trainer.should_stop = True


def _hint(name: str) -> str:
    return f"the model logs no {name!r}: self.log({name.partition('/')[0]!r}, …) in validation_step"
