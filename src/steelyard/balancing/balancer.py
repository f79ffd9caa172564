"""`Balancer`: the call that takes losses by task name and returns one scalar.

A published method is a subclass that implements `Method.weigh`, mathematics on small tensors. Everything around it is
done once: one call, from losses to the scalar, is `step.py`; this is its face.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from steelyard.balancing.along_call import AlongCall, Step
from steelyard.balancing.along_step import learn, look_along
from steelyard.balancing.attachment import Attachment
from steelyard.balancing.check_losses import present_losses
from steelyard.balancing.closure import hold_of
from steelyard.balancing.commit import commit, end_period, proposed
from steelyard.balancing.devices import follow, stacked, without_losses
from steelyard.balancing.distributed.finite import gradients_finite
from steelyard.balancing.distributed.ranks import ranks_of
from steelyard.balancing.global_batch.losses_together import losses_together
from steelyard.balancing.history import Record, WeightSummary
from steelyard.balancing.micro_batches import Window
from steelyard.balancing.observe import finite_losses
from steelyard.balancing.optimizers.wrapped import base_of, checked_scaler, innermost
from steelyard.balancing.state_dict import Persistent
from steelyard.balancing.step import Given, balance, plain_sum
from steelyard.balancing.weighing import hold_unless
from steelyard.base.float64 import float64_device
from steelyard.base.lookahead import Losses, Recompute
from steelyard.base.method import SUMS, Look
from steelyard.base.options import checked_priorities, checked_tasks
from steelyard.errors import MissingInputError, StateError
from steelyard.gradients.retained import left_as_it_was, retaining
from steelyard.gradients.shared_option import Shared


class Balancer(Persistent):
    """Base of all methods: ``loss = balancer(losses, shared=features)`` returns one scalar to call ``backward`` on.

    Args:
        tasks: task names, in the order of every ``[T]`` tensor.
        priorities: how much each task matters to you, 1 where not named. They multiply the resulting weights, since
            multiplying losses first would do nothing for scale-invariant methods; methods with a native preference
            use that.
        every: refresh the weights each ``every``-th step and hold them in between.
        on_nonfinite: what an inf or NaN loss does, and where a method reads gradients an inf or NaN task gradient:
            ``"raise"``; ``"drop_task"`` leaves the task out of the step; ``"skip_step"`` returns a scalar that moves
            nothing; ``"ignore"`` does not look, which spares a CUDA sync: weights that may depend on it are NaN, no
            state moves, and a gradient scaler leaves the step out. Methods that read losses only do not see the
            gradients of a finite loss (``sqrt`` at 0): with ``"drop_task"`` or ``"skip_step"`` and `attach`, a step
            whose gradients are not finite is left out (one look at each, and a CUDA sync a step).
        heads: ``"weighted"`` scales the gradients of the task heads like those of the trunk, ``"plain"`` leaves
            them; the default is the method's own. ``"plain"`` needs ``shared=``.
        scale: ``"paper"`` keeps the method's formula, ``"sum"`` rescales them to sum to the number of tasks weighed;
            where a method's weights may be negative, their sizes do, since their sum may vanish.
        floor, cap, max_change: limits on the weights; see `Guards`.
        memory: how tasks that are absent from a batch have a part in the weights of the others. ``"none"``: not at
            all. ``"numbers"``, for methods that read losses or norms: by the loss and gradient norm last seen of them.
            ``"rows"``, for methods that read angles or rows, at the trunk: by their last gradient too, ``T x P``
            numbers in the state.
        shared: the trunk, a module (several in a list) or its parameters, for calls that do not say where gradients
            are read. It does not become a submodule, and neither checkpoints nor copies hold it.
        look: where task gradients are read, if not where ``shared=`` points (the balanced gradient is sent there all
            the same). ``"last"``: at the last layers in front of the features (of the trunk), which a walk of the graph
            finds: exact products between all samples, for a small part of the trunk's price. ``"trunk"``: at every
            parameter in front of the features. Or at layers: modules, their parameters, several in a list, or their
            names in a module given as ``shared=``. Not for methods that make a direction of the task gradients
            themselves.
        learning_rate: of weights that are learnt; ``None`` follows the attached optimizer's first group, else 1e-3.
        generator: a CPU generator for methods that draw random numbers.
        sync: how several ranks make one balance, where `torch.distributed` is initialised: ``"exact"``, the weights of
            the global batch, for which gradients read at the trunk are summed over the ranks (``T x P`` numbers a
            step; losses, and gradients read at features, travel in ``T`` or ``T²``); ``"local-mean"``, at the trunk
            the mean of the ranks' own Gramians, ``T²`` numbers, which overstates its diagonal; ``"off"``, every rank
            for itself.
        process_group: the ranks that share a batch, over which gradients are averaged; all where it is not given.

    In ``eval()`` mode the call returns the plain sum, weighted by the priorities alone.

    Weights stay within ±2^108 (3e32), what the backward pass of a float32 loss can multiply: a method that gives all
    gradients one length would otherwise ask for more at a gradient of 1e-38, and spoil every parameter.

    Example:
        >>> w = nn.Parameter(torch.ones(2))  # what the tasks share
        >>> losses = {"a": 1 * w[0], "b": 3 * w[1]}  # gradients (1, 0) and (0, 3)
        >>> balancer = steelyard.MGDA(["a", "b"])
        >>> balancer(losses, shared=[w]).backward()
        >>> w.grad  # of 0.9 a + 0.1 b
        tensor([0.9000, 0.3000])
    """

    def __init__(self, tasks: Sequence[str], **options: Any) -> None:
        super().__init__(tasks, **options)
        self.known = frozenset(self.tasks)

    @property
    def steps(self) -> int:
        """Optimizer steps (calls, where no optimizer is attached) since the start."""
        return self._now.counters.steps

    @property
    def period_steps(self) -> int:
        """Those since the last end of an epoch; 0 for a method that does not wait for one."""
        return self._now.counters.period_steps

    # --- the call -----------------------------------------------------------------------------------------------------
    def forward(
        self,
        losses: Losses,
        shared: Shared | None = None,
        *,
        look: Look | None = None,
        again: Recompute | None = None,
        probes: Sequence[Losses] | None = None,
        counts: Mapping[str, float] | None = None,
    ) -> Tensor:
        """One scalar whose backward is the balanced update.

        Args:
            losses: scalar loss tensors by task name; a task may be absent or ``None``. A loss of exactly 0 whose
                gradient is exactly 0 counts as absent too (not looked for under ``on_nonfinite="ignore"``).
            shared: where task gradients are read: the tensor, or tuple of tensors, that the heads read (features: one
                cheap pass through the heads), or the shared module, several in a list, or its parameters (the trunk:
                exact). Not needed by methods that read losses only.
            look: see the class; for this call.
            again: ``f(params=None, batch=None) -> losses``, recomputes the losses, for methods that look ahead or
                back; see `losses_of`.
            probes: ``[losses_1, losses_2]`` of two independent batches, for methods that read a cross Gramian.
            counts: labels behind each mean, where micro-batches hold different numbers of them. A loss made by
                `masked_mean` brings its own.

        Arguments that a method does not declare are an offer, and ignored: the same line calls every method.
        """
        if torch.compiler.is_compiling():
            # A compiled step is cut here, once: looks at gradients and decisions of the host are no part of a graph.
            return self._cut(Given(losses, shared, again, probes, counts, look))
        return self._call(Given(losses, shared, again, probes, counts, look))

    def _cut(self, given: Given) -> Tensor:
        uncompiled: Callable[..., Tensor] = torch.compiler.disable(self._call)  # type: ignore[no-untyped-call]
        return uncompiled(given)

    # What torch.compiler.disable would set, without the import of the compiler that it costs: fullgraph=True says why.
    _cut._torchdynamo_disable = True  # type: ignore[attr-defined]
    _cut._torchdynamo_disable_msg = (  # type: ignore[attr-defined]
        "a balancer decides on the host by what the losses are, which is no part of a graph: compile the model, and "
        "call the balancer outside; or leave out fullgraph=True, and the step is cut once, at the balancer"
    )

    def _call(self, given: Given) -> Tensor:
        if not self.training:
            return plain_sum(self, given.losses)
        if "_is_replica" in self.__dict__:
            raise _replica_error(self.name)
        retained = retaining(given.shared)
        with left_as_it_was(retained) if retained else nullcontext():
            result = balance(self, given)
            if self._ledger is not None:
                self._ledger.saw(given.losses, given.counts, result)
        return result

    # --- what the optimizer's step does -------------------------------------------------------------------------------
    def commit_window(self, window: Window, step: Step | None) -> None:
        """Commit what the micro-batches of one optimizer step saw together, and what the step teaches."""
        commit(self, proposed(self, window))
        if step is not None:
            learn(self, step)

    def look_along_step(self, window: Window, calls: Sequence[AlongCall]) -> Step | None:
        """Look along the gradients that the parameters hold now."""
        return look_along(self, window, calls)

    def hold_window(self, window: Window) -> None:
        """Hold the weights of what the micro-batches of a step saw together, for losses at other parameters."""
        proposal = proposed(self, window)
        index = proposal.index
        tasks = self.tasks if index is None else [self.tasks[k] for k in index.tolist()]
        self._now.closure.held = hold_of(self, tasks, proposal, torch.zeros_like(proposal.value))

    def spoils(self, parameters: Iterator[Tensor]) -> bool:
        """Whether the policy leaves out a step with these parameters' gradients, which is said once."""
        if self.on_nonfinite not in ("drop_task", "skip_step"):
            return False
        if gradients_finite(parameters, ranks_of(self.sync, self.process_group)):
            return False
        self._now.watch.spoiled(self)
        return True

    def release(self) -> None:
        """Let the weights move again after a closure."""
        self._now.closure.held = None

    # --- what a loop tells it -----------------------------------------------------------------------------------------
    def end_epoch(self) -> None:
        """Tell epoch-based methods and stages that an epoch (a period) has ended; others are not affected.

        What has been called and not yet stepped counts in the next one.
        """
        end_period(self)
        if self._attachment is not None:
            self._attachment.expire()

    def observe(
        self,
        *,
        after: Losses | None = None,
        validation: Losses | None = None,
        counts: Mapping[str, float] | None = None,
    ) -> None:
        """Show a method what it declares besides the training losses.

        Args:
            after: the losses of the same batch, recomputed once the optimizer has stepped.
            validation: losses on validation data.
            counts: labels behind each, by which several ranks average what they show.
        """
        if after is None and validation is None:
            raise MissingInputError(
                "observe() was shown nothing: write observe(after=losses) or observe(validation=losses)"
            )
        ranks = ranks_of(self.sync, self.process_group)
        if after is not None:
            # What had no labels before the step has none behind it; its 0 would pass for a perfect one.
            after = {name: loss for name, loss in after.items() if name not in self._now.idle.tasks}
            after = after if after or ranks is not None else None
            self._now.counters.awaiting_after = False
        if validation is not None and self.needs_validation and self.on_nonfinite != "ignore":
            there = self._now.idle.shown(validation, counts)
            validation = there if there or ranks is not None else None
        for losses, method, staged in ((after, self.after_step, True), (validation, self.validated, False)):
            if losses is not None and ranks is not None:
                present_losses(self.tasks, self.known, losses, needs_graph=False, may_be_empty=True)
                device = without_losses(self, ranks)
                losses = losses_together(ranks, self.tasks, losses, counts, device)
            if losses is not None:
                self._show(losses, method, staged)

    def _show(self, losses: Losses, method: Callable[[Tensor, Any], None], staged: bool) -> None:
        """Hand losses to the method, `staged` as those of the step were that they are compared to."""
        positions, found = present_losses(self.tasks, self.known, losses, needs_graph=False)
        positions = list(range(len(found))) if positions is None else positions
        names = tuple(self.tasks[position] for position in positions)
        device = float64_device(found[0].device)
        follow(self, device)
        with torch.no_grad():
            values = stacked(found, device)
            numbers = None if self.on_nonfinite == "ignore" else values.tolist()
            live = finite_losses(self, names, numbers, list(range(len(names))))
            if not live:
                return
            index = torch.tensor([positions[k] for k in live], device=device)
            state = self.working_state(index)
            values = values[live]
            for stage in self.loss_stages() if staged else ():
                values = stage.again(values, stage.working_state(index))
            method(values, state)
            if numbers is None:
                hold_unless(values.isfinite().all(), self, state, index)
            self.commit(state, index)

    def set_tasks(self, tasks: Sequence[str], *, priorities: Mapping[str, float] | None = None) -> None:
        """Change the tasks half way: kept ones keep their state and priority, new ones start afresh.

        Args:
            tasks: the names from now on, in the order of every ``[T]`` tensor.
            priorities: those of new tasks, and new ones of kept tasks.

        Raises:
            OptionError: an option of the method (its main task, its schedule) does not fit these tasks.
            StateError: micro-batches are waiting for the optimizer's step, or weights are Parameters that an outside
                optimizer holds.
        """
        names = checked_tasks(tasks)
        self.check_tasks(names)
        self._check_between_steps()
        old = self.tasks
        given = checked_priorities(priorities, names)
        self.priorities = {
            task: given[task] if task in (priorities or {}) else self.priorities.get(task, 1.0) for task in names
        }
        self.tasks, self.known = names, frozenset(names)
        kept = [old.index(task) if task in old else None for task in names]
        for part in (*self.loss_stages(), self):
            part.rebind(kept)
        self._now = self._now.lasting(self._now.company.agreed)
        if self._attachment is not None:
            self._attachment.rename()

    def _check_between_steps(self) -> None:
        if self._attachment is not None:
            # A step that was skipped, or given up, is over, as the next call would find.
            self._attachment.before_forward(again=self._now.closure.held is not None)
        waiting = self._attachment is not None and self._attachment.under_way
        if waiting or self._now.closure.frozen or self._now.closure.held is not None:
            raise StateError(
                "set_tasks() in the middle of a step: call it after optimizer.step(), or call balancer.discard() "
                "first, and outside of balancer.frozen()"
            )
        if self._parameters:
            raise StateError(
                f"the weights {', '.join(self._parameters)} are Parameters that an outside optimizer holds "
                "(learn='external'), one per task: make a new balancer and give its Parameters to the optimizer"
            )

    def attach(self, optimizer: torch.optim.Optimizer, scaler: Any = None) -> Balancer:
        """Let the optimizer's steps commit what forward calls propose; returns the balancer.

        The micro-batches between two optimizer steps are averaged into one observation, a step that a gradient
        scaler skips is discarded, learned weights follow the optimizer's learning rate, and the state also rides in
        ``optimizer.state_dict()``. Attach first, then load the optimizer's checkpoint:
        torch drops what nobody waits for. A sharpness-aware optimizer (``first_step``, ``second_step``) evaluates the
        losses twice: the second time the weights of the first hold, which alone is committed.

        Args:
            optimizer: the one that steps the shared parameters, as it is or in a trainer's wrapper.
            scaler: the gradient scaler, if one is used.

        Raises:
            OptionError: what is given is no `torch.optim.Optimizer`, nor a wrapper of one; or no gradient scaler; or
                the method sends steps (`adatask`) that this optimizer would not take as they are.
        """
        optimizer, scaler = innermost(optimizer), checked_scaler(scaler)
        self.check_optimizer(base_of(optimizer) or optimizer)
        if self._attachment is not None:
            self._attachment.remove()
        self._attachment = Attachment(self, optimizer, scaler)
        return self

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Hold the weights of the first evaluation inside the block (an LBFGS closure); commit it when the block ends.

        Every evaluation inside returns ``Σ w_k L_k`` with these weights, the first one too, and its gradient.

        Raises:
            OptionError: what the method sends is no such gradient: plain heads, directions of rows (``graddrop``,
                ``moco``, averages of ``max-norm`` and ``db-mtl`` at the trunk), weights of an outside optimizer.
        """
        closure = self._now.closure
        closure.frozen = True
        try:
            yield
            if closure.pending is not None:
                commit(self, closure.pending)
            if closure.pending_step is not None:
                learn(self, closure.pending_step)
        finally:
            closure.frozen, closure.held, closure.pending, closure.pending_step = False, None, None, None

    def current_learning_rate(self) -> float:
        """The rate of learned weights: the option, else that of the attached optimizer's first group, else 1e-3."""
        if self.learning_rate is None and self._attachment is not None:
            groups = self._attachment.optimizer.param_groups
            rate = float(groups[0]["lr"])
            if rate == 0:
                self._now.watch.rate_of_zero(self, self._now.counters.steps, groups)
            return rate
        return super().current_learning_rate()

    # --- what happened ------------------------------------------------------------------------------------------------
    @property
    def last_weights(self) -> Tensor:
        """``[T]`` float64, the multipliers of the task gradients in the last call; 0 for tasks that were absent.

        The last call is that of `metrics`: after one in ``eval()`` mode, and still there, these are the priorities.
        """
        if (last := self._last) is None:
            raise StateError("there are no weights: the balancer has not been called yet, or skipped its last step")
        return last.all_weights(len(self.tasks))

    @property
    def _last(self) -> Record | None:
        """The last call; back in training, the last one there."""
        return self._now.record if self.training or self._now.evaluated is None else self._now.evaluated.record()

    def metrics(self) -> dict[str, float]:
        """The last call as a flat dict for any logger; reading it waits for the device, the call does not.

        ``loss/<task>``, ``loss/sum`` (the plain sum; ``loss`` where a task is called ``sum``), ``weight/<task>``,
        ``share/<task>`` (the fraction of ``Σ|w L|``), and where gradients were read ``norm/<task>`` and
        ``cosine/<task>,<task>``. Empty before the first call and after a skipped step.

        A call in ``eval()`` mode counts as the last one as long as the balancer is there: its losses are the ones given
        and its weights the priorities. Back in ``train()``, the last call is that in training again.
        """
        return {} if (last := self._last) is None else last.metrics(self.tasks)

    def summary(self) -> WeightSummary:
        """Mean and deviation of each task's weights over the run, since the start or `reset`; prints as a table."""
        return WeightSummary.of(self.tasks, self.committed(SUMS))

    def freeze(self) -> Balancer:
        """A `Fixed` balancer of the run's mean weights: train again with it, and see whether the dynamics mattered.

        The means are those of the final multipliers, so they hold the rescaling of ``scale`` and the guards already,
        and the new balancer keeps them as they are (``scale="paper"``). Priorities, ``heads`` and ``on_nonfinite``
        are taken over. Plain heads stay plain, and receive the gradient of their loss itself, also where a loss stage
        was in front. Nothing is attached.

        Raises:
            StateError: a task had no step yet.
        """
        # Reached by its name, as the registry reaches classes: `Fixed` is a method, and methods stand on this file.
        frozen: Balancer = import_module("steelyard.methods.fixed").freeze(self)
        return frozen

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        self._now.caches.device = None
        return super()._apply(fn, recurse)


def _replica_error(name: str) -> StateError:
    """What a replica learns would be thrown away with it, step by step and without a word."""
    return StateError(
        f"{name} was called in a replica of nn.DataParallel, which is gone after the step with all that it has seen: "
        "let the model return its losses or outputs and call the balancer outside of it, on the whole batch, or train "
        "with torch.nn.parallel.DistributedDataParallel"
    )
