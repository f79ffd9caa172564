"""`Balancer`: the call that takes losses by task name and returns one scalar.

A published method is a subclass that implements `Method.weigh`, mathematics on small tensors. Everything around it
is done once, in this order: take the losses that are there; settle the non-finite ones and read gradients where the
method asks for them (`look.py`); weigh (`weighing.py`); build the scalar (`gradients/carrier.py`); commit the state,
now or when the optimizer steps (`attachment.py`).
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from steelyard.balancing.checkpoint import Persistent
from steelyard.balancing.closure import Hold, refusal, step_under_way, warn_of_moving_closure
from steelyard.balancing.global_batch import announce_change, look_together, losses_together, recompute_together
from steelyard.balancing.heads_inside import watch_sharing
from steelyard.balancing.history import Record, WeightSummary
from steelyard.balancing.idle import has_count, idle_losses
from steelyard.balancing.losses import check_not_freed, present_losses
from steelyard.balancing.micro_batches import Window
from steelyard.balancing.observe import Batch, Look, finite_losses, label_counts, look
from steelyard.balancing.watch import (
    disjoint,
    lone,
    refused_lone_tasks,
    warn_of_disjoint_samples,
    warn_of_lone_tasks,
    warn_of_training_in_eval,
    warn_of_unreached_tasks,
)
from steelyard.balancing.weighing import Proposal, propose
from steelyard.balancing.window import Attachment, innermost
from steelyard.base.lookahead import Losses, Recompute
from steelyard.base.method import SUMS
from steelyard.base.observation import Seen
from steelyard.base.options import checked_priorities, checked_tasks
from steelyard.distributed.pace import Counts, expect_all, leave_alone
from steelyard.distributed.ranks import Ranks, is_initialised, ranks_of
from steelyard.distributed.replicas import fingerprint
from steelyard.distributed.states import meet
from steelyard.errors import MissingInputError, PeriodWarning, SharedError, StateError, warn
from steelyard.gradients.carrier import (
    InGraph,
    Redirection,
    arriving_at_depths,
    carry,
    combined_in_graph,
    rounding_bound,
)
from steelyard.gradients.graph import sparsely_used
from steelyard.gradients.left_out import fully_sharded, only_reached_by
from steelyard.gradients.place import Place, Shared, place_of
from steelyard.gradients.reading import Reading
from steelyard.gradients.rows import Rows
from steelyard.gradients.wrappers import unnoticed

_PATIENCE = 10_000
"""Steps without the end of an epoch after which an epoch-based method says so."""
_ANGLE_LOOKS = 10
"""First steps in which a method that uses angles checks whether tasks share samples."""
_REACH_LOOKS = 10
"""First steps that a task may go without a gradient at `shared=`, as behind a last layer that starts at zero."""


class Balancer(Persistent):
    """Base of all methods: ``loss = balancer(losses, shared=features)`` returns one scalar to call ``backward`` on.

    Args:
        tasks: task names, in the order of every ``[T]`` tensor.
        priorities: how much each task matters to you, 1 where not named. They multiply the resulting weights, since
            multiplying losses first would do nothing for scale-invariant methods; methods with a native preference
            use that.
        every: refresh the weights each ``every``-th step and hold them in between.
        on_nonfinite: what an inf or NaN loss (or task gradient) does: ``"raise"``; ``"drop_task"`` leaves the task
            out of the step; ``"skip_step"`` returns a scalar that moves nothing; ``"ignore"`` does not look, which
            spares a CUDA sync.
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
        learning_rate: of weights that are learnt; ``None`` follows the attached optimizer, else 1e-3.
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
    """

    def __init__(self, tasks: Sequence[str], **options: Any) -> None:
        super().__init__(tasks, **options)
        self._known = frozenset(self.tasks)

    @property
    def steps(self) -> int:
        """Optimizer steps (calls, where no optimizer is attached) since the start."""
        return self._now.steps

    @property
    def period_steps(self) -> int:
        """Those since the last end of an epoch; 0 for a method that does not wait for one."""
        return self._now.period_steps

    # --- the call -----------------------------------------------------------------------------------------------------
    def forward(
        self,
        losses: Losses,
        shared: Shared | None = None,
        *,
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
            again: ``f(params=None, batch=None) -> losses``, recomputes the losses, for methods that look ahead or
                back; see `losses_of`.
            probes: ``[losses_1, losses_2]`` of two independent batches, for methods that read a cross Gramian.
            counts: labels behind each mean, where micro-batches hold different numbers of them. A loss made by
                `masked_mean` brings its own.

        Arguments that a method does not declare are an offer, and ignored: the same line calls every method.
        """
        if torch.compiler.is_compiling():
            # A compiled step is cut here, once: looks at gradients and decisions of the host are no part of a graph.
            return self._cut(losses, shared, again, probes, counts)
        return self._call(losses, shared, again, probes, counts)

    def _cut(self, *given: Any) -> Tensor:
        uncompiled: Callable[..., Tensor] = torch.compiler.disable(self._call)  # type: ignore[no-untyped-call]
        return uncompiled(*given)

    # What torch.compiler.disable would set, without the import of the compiler that it costs: fullgraph=True says why.
    _cut._torchdynamo_disable = True  # type: ignore[attr-defined]
    _cut._torchdynamo_disable_msg = (  # type: ignore[attr-defined]
        "a balancer decides on the host by what the losses are, which is no part of a graph: compile the model, and "
        "call the balancer outside; or leave out fullgraph=True, and the step is cut once, at the balancer"
    )

    def _call(
        self,
        losses: Losses,
        shared: Shared | None,
        again: Recompute | None,
        probes: Sequence[Losses] | None,
        counts: Mapping[str, float] | None,
    ) -> Tensor:
        ranks = ranks_of(self.sync, self.process_group) if self.training else None
        positions, found = present_losses(self.tasks, self._known, losses, self.training, ranks is not None)
        names = self.tasks if positions is None else tuple(self.tasks[position] for position in positions)
        if not self.training:
            return self._plain_sum(names, found)
        if self.sync == "off" and not self._now.met and is_initialised():
            leave_alone()
            self._now.met = True
        self._check_after()
        if self._now.steps == 0:
            check_not_freed(names, found)
        if self._attachment is not None:
            self._attachment.before_forward()
        device = found[0].device if found else self._device_without_losses(ranks)
        with torch.no_grad(), _full_precision(device.type):
            return self._balance(names, positions, found, shared, again, probes, counts, ranks)

    def _balance(
        self,
        names: tuple[str, ...],
        positions: list[int] | None,
        found: list[Tensor],
        shared: Shared | None,
        again: Recompute | None,
        probes: Sequence[Losses] | None,
        counts: Mapping[str, float] | None,
        ranks: Ranks | None,
    ) -> Tensor:
        device = _compute_device(found[0].device) if found else self._device_without_losses(ranks)
        self._follow(device)
        place = place_of(self, self.trunk if shared is None else shared)
        if ranks is not None and not self._now.met:
            self._meet(ranks, place, device)
        if self._now.held is not None and self._now.held.refusal:
            held = self._now.held
            self.discard()
            held.check()
        if self._now.held is not None or not (self._refreshing() or self.heads == "plain"):
            place = None  # nothing is read in this step
        if self._now.sharing is not None and place is not None and place.is_trunk and len(self.tasks) > 1:
            given = self.trunk if shared is None else shared
            self._now.sharing = watch_sharing(self, self._now.sharing, names, found, place.tensors, given)
        values = _stacked(found, device)
        # Without a window there is nothing to average.
        labels = None
        if counts is not None or self._attachment is not None or is_initialised():
            labels = label_counts(names, found, counts, self.tasks)
        optimizer = None if self._attachment is None else self._attachment.stepping
        numbers = None if self.on_nonfinite == "ignore" else values.tolist()
        idle = self._idle(names, found, numbers, labels, counts, ranks)
        batch = Batch(names, positions, found, values, labels, probes, again, optimizer, numbers, idle)
        refresh = self._now.held is None and self._refreshing()
        guarded = place is not None and self._now.unnoticed and is_initialised()
        with unnoticed(found) if guarded else nullcontext(False) as waiting:
            if ranks is None:
                shown = look(self, batch, place, self._now.workspace, refresh, len(self.tasks))
            else:
                shown = self._look_together(ranks, batch, place, refresh)
        if guarded:
            self._now.unnoticed = waiting  # once it has averaged, it stays out of the way
        if ranks is not None:
            again = again and recompute_together(ranks, self.tasks, again, counts, device, self._now.idle)
        if shown is None:
            return self._nothing(names, found, values, ranks)
        seen, index, reading = shown.seen, shown.index, shown.reading
        self._check_angles(seen, reading)
        self._check_reach(seen)
        taking_part = [loss for loss, kept in zip(found, shown.kept, strict=True) if kept]
        others = {} if all(shown.kept) else self._left_out(names, found, shown.kept, ranks, seen.tasks)

        if self._now.held is not None:
            weights = self._now.held.weights_of(self.name, seen, index)
            value = (weights * seen.losses).sum() + self._now.held.offset
            self._now.record = Record(seen, weights, index)
            return carry(_as_result(value, found), taking_part, shown.own(weights), **others)

        proposal = propose(self, seen, index, self._refreshing())
        value, hold = proposal.value, None
        if self._now.holding or (self._attachment is not None and self._attachment.inside_step):
            value, hold = self._held_from_here(seen, proposal)
        if self._now.alone is not None and len(self.tasks) > 1 and self.memory == "none":
            self._check_alone(seen, proposal.weights, at_trunk=place is not None and place.is_trunk)
        self._now.record = Record(seen, proposal.weights, index)
        redirection = None if reading is None else self._redirection(shown, reading, proposal, taking_part)
        if reading is not None and isinstance(reading.rows, Rows) and seen.rows is None:
            self._now.workspace = reading.rows.matrix
        result = carry(
            _as_result(value, found),
            taking_part,
            shown.own(proposal.head_weights),
            [*self._outside_gradients(proposal), *self._reached(shown, reading, proposal, found)],
            redirection,
            **others,
        )
        if redirection is not None and reading is not None:
            redirection.install(reading.targets)
        self._now.held = hold
        self._observed(seen, proposal, again)
        return result

    def _plain_sum(self, names: tuple[str, ...], found: list[Tensor]) -> Tensor:
        terms = [
            loss if self.priorities[name] == 1.0 else loss * self.priorities[name]
            for name, loss in zip(names, found, strict=True)
        ]
        total = functools.reduce(torch.add, terms)
        if total.requires_grad and torch.is_grad_enabled() and not self._now.eval_said:
            total = total.clone() if total is found[0] else total  # the user's own tensor keeps no hook of ours
            total.register_hook(functools.partial(_trained_in_eval, weakref.ref(self)))  # type: ignore[no-untyped-call]
        return total

    def trained_in_eval(self) -> None:
        """The backward of an `eval()` call has run: say once that nothing is balanced."""
        if not self._now.eval_said and self.name != "equal":
            warn_of_training_in_eval(self)
        self._now.eval_said = True

    def _check_after(self) -> None:
        if self._now.awaiting_after and self.needs_after:
            raise MissingInputError(
                f"{self.name} compares the losses before and after each step, and never saw the last step's: call "
                "balancer.observe(after=losses) after optimizer.step(), or attach the optimizer and pass "
                "again=lambda params=None, batch=None: losses"
            )

    def _refreshing(self) -> bool:
        return self._now.steps % self.every == 0

    def _look_together(self, ranks: Ranks, batch: Batch, place: Place | None, refresh: bool) -> Look | None:
        """A look at the batch that the ranks share."""
        mark, steps = 0, self.steps
        if steps > 0 and steps & (steps - 1) == 0:  # ever more seldom: what drifts has drifted after one step
            if self._attachment is not None:
                mark = fingerprint(self._attachment.parameters())
            elif place is not None and place.is_trunk:
                mark = fingerprint(place.tensors)
        workspace = self._now.workspace
        return look_together(ranks, self, batch, place, workspace, refresh, self.tasks, mark, self._counts())

    def _meet(self, ranks: Ranks, place: Place | None, device: torch.device) -> None:
        """Before anything is decided by the state, which may come from another rank."""
        now = self._now
        if now.agreed == 0:
            expect_all(ranks, self.sync)
        else:  # the others may be on their way to an ordinary step
            reading = self._refreshing() or self.heads == "plain"
            where = place if reading else None
            announce_change(ranks, self, where, self._refreshing(), now.agreed, self._counts(), device)
        meet(ranks, self, place)
        now.met, now.agreed, now.ends = True, len(self.tasks), 0

    def _counts(self) -> Counts:
        return self._now.steps, self._now.period_steps, self._now.ends

    def _check_angles(self, seen: Seen, reading: Reading | None) -> None:
        """Warn, in the first steps, of a Gramian that cannot show conflict."""
        if reading is None or seen.gramian is None or not self.uses_angles or self._now.angle_looks >= _ANGLE_LOOKS:
            return
        if len(seen.tasks) > 1:
            self._now.angle_looks += 1
            if not reading.angles_hold and disjoint(seen.gramian):
                self._now.angle_looks = _ANGLE_LOOKS
                warn_of_disjoint_samples(self)

    def _check_reach(self, seen: Seen) -> None:
        """Warn, in the first steps, of a task that `shared=` does not reach, where it reaches others."""
        now = self._now
        if seen.squared_norms is None or len(seen.tasks) < 2 or now.reach_looks >= _REACH_LOOKS:
            return
        still = frozenset(
            task for task, squared in zip(seen.tasks, seen.squared_norms.tolist(), strict=True) if squared == 0
        )
        now.unreached = still if now.reach_looks == 0 else now.unreached & still
        now.reach_looks = now.reach_looks + 1 if now.unreached else _REACH_LOOKS
        if now.unreached and now.reach_looks == _REACH_LOOKS and len(now.unreached) < len(seen.tasks):
            warn_of_unreached_tasks(self, sorted(now.unreached), _REACH_LOOKS)

    def _check_alone(self, seen: Seen, weights: Tensor, at_trunk: bool) -> None:
        """One task per batch where tasks are weighed against each other: every weight says nothing, in silence."""
        means_something = self.looks_at_nothing or (self.independent and self.scale == "paper")
        if len(seen.tasks) > 1 or self._now.alone is None or means_something:
            self._now.alone = None
            return
        self._now.alone = alone = (*self._now.alone, (seen.tasks[0], float(weights)))
        if len(alone) < _ANGLE_LOOKS:
            return
        if len({task for task, _ in alone}) == 1:
            self._now.alone = alone[1:]
        elif lone(self, at_trunk):
            raise refused_lone_tasks(self, len(alone))
        else:
            self._now.alone = None
            weights_seen = [weight for _, weight in alone]
            if max(weights_seen) - min(weights_seen) <= 1e-9 * max(weights_seen):
                warn_of_lone_tasks(self, len(alone), alone[0][1])

    def _nothing(self, names: tuple[str, ...], found: list[Tensor], values: Tensor, ranks: Ranks | None) -> Tensor:
        """A scalar with a graph whose backward moves nothing."""
        if self._attachment is not None:
            self._attachment.nothing_to_do(skip_step=self.on_nonfinite == "skip_step")
        self._now.record = None
        others = self._left_out(names, found, [False] * len(found), ranks)
        return carry(_as_result(values.new_zeros(()), found), [], values.new_zeros(0), **others)

    def _idle(
        self,
        names: tuple[str, ...],
        found: list[Tensor],
        numbers: list[float] | None,
        labels: list[float] | None,
        counts: Mapping[str, float] | None,
        ranks: Ranks | None,
    ) -> frozenset[int]:
        """Which losses are exactly zero and move nothing; those that nobody counts have no labels here."""
        now = self._now
        if now.held is not None:  # one function within a step: what was idle in its first evaluation stays out
            return frozenset(k for k, name in enumerate(names) if name in now.idle)
        if numbers is None or 0.0 not in numbers:
            now.idle = frozenset()
            return frozenset()
        idle = idle_losses(names, found, numbers, labels, now.idle_said)
        now.idle_said |= {names[k] for k, number in enumerate(numbers) if number == 0.0}
        uncounted = idle
        if ranks is not None and labels is not None:
            uncounted = [k for k in idle if not has_count(names[k], found[k], counts)]
            for k in uncounted:
                labels[k] = 0.0
        now.idle = frozenset(names[k] for k in uncounted)
        return frozenset(idle)

    def _left_out(
        self,
        names: tuple[str, ...],
        found: list[Tensor],
        kept: list[bool],
        ranks: Ranks | None,
        weighed: tuple[str, ...] = (),
    ) -> dict[str, Any]:
        """What `carry` does for those who wait for the gradients of losses that take no part here."""
        if not is_initialised():
            return {}
        chosen = [loss for loss, keep in zip(found, kept, strict=True) if keep]
        rest = [k for k, keep in enumerate(kept) if not keep]
        waiting: dict[str, Any] = {"zeros": only_reached_by([found[k] for k in rest], chosen)}
        if fully_sharded():
            # Other ranks exchange parameters as they go through these heads, and so must this one.
            waiting["untouched"] = [found[k] for k in rest if ranks is None or names[k] in weighed]
        return waiting

    # --- the scalar ---------------------------------------------------------------------------------------------------
    def _redirection(
        self, shown: Look, reading: Reading, proposal: Proposal, losses: list[Tensor]
    ) -> Redirection | None:
        """What must replace the gradient that arrives at the features, if anything must."""
        if self.heads == "weighted" and proposal.direction is None:
            return None
        rows = reading.rows
        assert rows is not None
        # At features the squared norms are those of these very rows; at the trunk the rows are where it ends.
        squared_norms = rows.squared_norms() if reading.angles_hold and len(rows) else reading.squared_norms
        on_heads, weights = shown.own(proposal.head_weights), shown.own(proposal.weights)
        if proposal.direction is None:
            direction, sent = rows.combine(torch.stack((weights, on_heads)))
        else:
            direction, sent = proposal.direction * shown.spread, rows.combine(on_heads)
        towards, away = rows.shaped(direction), rows.shaped(sent)
        largest = on_heads
        if reading.at_depths and losses:
            with unnoticed(losses) if is_initialised() else nullcontext():
                away = arriving_at_depths(losses, on_heads, reading.edges, towards)
            largest = torch.maximum(on_heads.abs(), weights.abs())
        if proposal.direction is not None or reading.at_depths:
            in_graph: InGraph = functools.partial(_refuse_create_graph, self.name, reading.at_depths)
        else:
            in_graph = functools.partial(combined_in_graph, losses, reading.targets, weights, on_heads)
        rounding = rounding_bound(rows.coarsest, largest, squared_norms, rows)
        return Redirection(towards, away, rounding, in_graph)

    def _reached(
        self, shown: Look, reading: Reading | None, proposal: Proposal, found: list[Tensor]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Zeros for the trunk: the ranks' common direction must arrive also where this one has no labels."""
        if shown.mine is not None and reading is not None and reading.angles_hold and proposal.direction is not None:
            sparse = sparsely_used(loss.grad_fn for loss in found)  # a dense zero would make a sparse gradient dense
            for parameter in reading.targets:
                if isinstance(parameter, Tensor):
                    zero = parameter.new_zeros(()).expand_as(parameter)
                    yield parameter, zero.to_sparse(1) if parameter in sparse else zero

    def _outside_gradients(self, proposal: Proposal) -> Iterator[tuple[Tensor, Tensor]]:
        """Gradients of Parameters over all tasks, zero for the absent."""
        for name, gradient in proposal.parameter_gradients.items():
            if proposal.index is not None:
                gradient = gradient.new_zeros(len(self.tasks)).index_copy_(0, proposal.index, gradient)
            yield getattr(self, name), gradient

    # --- propose and commit -------------------------------------------------------------------------------------------
    def _observed(self, seen: Seen, proposal: Proposal, again: Recompute | None) -> None:
        attachment = self._attachment
        if self._now.held is None and (step := step_under_way()):
            self._check_closure(step, proposal)
        if attachment is not None:
            attachment.add(seen, proposal, again)
        elif self._now.holding:
            self._now.pending = proposal
        else:
            self._commit(proposal)

    def _held_from_here(self, seen: Seen, proposal: Proposal) -> tuple[Tensor, Hold]:
        """The value of the first evaluation in a step, and what it leaves to the others."""
        function = (proposal.weights * seen.losses).sum()
        often = self._now.holding or (self._attachment is not None and self._attachment.evaluates_often)
        value = function if often else proposal.value
        hold = self._hold(seen.tasks, proposal, value - function)
        if often:
            hold.check()
        return value, hold

    def _hold(self, tasks: Sequence[str], proposal: Proposal, offset: Tensor) -> Hold:
        weights = proposal.weights
        if proposal.index is not None:
            weights = weights.new_zeros(len(self.tasks)).index_copy_(0, proposal.index, weights)
        return Hold(frozenset(tasks), weights, offset, refusal(self, proposal))

    def hold_window(self, window: Window) -> None:
        """Hold the weights of what the micro-batches of a step saw together, for losses at other parameters."""
        proposal = self._proposed(window)
        index = proposal.index
        tasks = self.tasks if index is None else [self.tasks[k] for k in index.tolist()]
        self._now.held = self._hold(tasks, proposal, torch.zeros_like(proposal.value))

    def _check_closure(self, step: int, proposal: Proposal) -> None:
        """Say once that weights move between the evaluations within a step of an optimizer that is not attached."""
        before, self._now.closure = self._now.closure, (step, proposal.weights)
        if self._now.closure_said or before is None or before[0] != step:
            return
        if proposal.direction is not None or not torch.equal(before[1], proposal.weights):
            self._now.closure_said = warn_of_moving_closure(self)

    def commit_window(self, window: Window) -> None:
        """Commit what the micro-batches of one optimizer step saw together."""
        self._commit(self._proposed(window))

    def _proposed(self, window: Window) -> Proposal:
        """What follows from all that the micro-batches saw."""
        if window.only is not None:
            return window.only
        with torch.no_grad():
            return propose(self, *window.observation(), self._refreshing())

    def _commit(self, proposal: Proposal) -> None:
        for module, state, index in proposal.commits:
            module.commit(state, index)
        if proposal.generator_state is not None and self.generator is not None:
            self.generator.set_state(proposal.generator_state)
        self._now.steps += 1
        self._now.awaiting_after = self.needs_after
        if not self._periodic_parts():
            return
        self._now.period_steps += 1
        if self.period is not None and self._now.period_steps >= self.period:
            self.end_epoch()
        elif self.period is None and self._now.period_steps == _PATIENCE:
            warn(
                f"{self.name} waits for the end of an epoch and has seen none in {_PATIENCE:,} steps: call "
                "balancer.end_epoch() after each epoch, or give a period in steps where the method has that option",
                PeriodWarning,
            )

    def _periodic_parts(self) -> list[Any]:
        return [part for part in (*self.loss_stages(), self) if part.periodic]

    def end_epoch(self) -> None:
        """Tell epoch-based methods and stages that an epoch (a period) has ended; others are not affected."""
        with torch.no_grad():
            for part in self._periodic_parts():
                state = part.working_state()
                part.period_ended(state)
                part.commit(state)
            self._now.ends += bool(self._periodic_parts())
        self._now.period_steps = 0

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
        ranks = ranks_of(self.sync, self.process_group)
        if after is not None:
            # What had no labels before the step has none behind it; its 0 would pass for a perfect one.
            after = {name: loss for name, loss in after.items() if name not in self._now.idle}
            after = after if after or ranks is not None else None
            self._now.awaiting_after = False
        for losses, method in ((after, self.after_step), (validation, self.validated)):
            if losses is not None and ranks is not None:
                present_losses(self.tasks, self._known, losses, needs_graph=False, may_be_empty=True)
                device = self._device_without_losses(ranks)
                losses = losses_together(ranks, self.tasks, losses, counts, device)
            if losses is not None:
                self._observe(losses, method)

    def _observe(self, losses: Losses, method: Callable[[Tensor, Any], None]) -> None:
        positions, found = present_losses(self.tasks, self._known, losses, needs_graph=False)
        positions = list(range(len(found))) if positions is None else positions
        names = tuple(self.tasks[position] for position in positions)
        device = _compute_device(found[0].device)
        self._follow(device)
        with torch.no_grad():
            values = _stacked(found, device)
            numbers = None if self.on_nonfinite == "ignore" else values.tolist()
            live = finite_losses(self, names, numbers, list(range(len(names))))
            if not live:
                return
            index = torch.tensor([positions[k] for k in live], device=device)
            state = self.working_state(index)
            method(values[live], state)
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
        waiting = self._attachment is not None and self._attachment.window.calls
        if waiting or self._now.holding or self._now.held is not None:
            raise StateError(
                "set_tasks() in the middle of a step: call it after optimizer.step(), or call balancer.discard() "
                "first, and outside of balancer.frozen()"
            )
        if self._parameters:
            raise StateError(
                f"the weights {', '.join(self._parameters)} are Parameters that an outside optimizer holds "
                "(learn='external'), one per task: make a new balancer and give its Parameters to the optimizer"
            )
        old = self.tasks
        given = checked_priorities(priorities, names)
        self.priorities = {
            task: given[task] if task in (priorities or {}) else self.priorities.get(task, 1.0) for task in names
        }
        self.tasks, self._known = names, frozenset(names)
        kept = [old.index(task) if task in old else None for task in names]
        for part in (*self.loss_stages(), self):
            part.rebind(kept)
        self._now = self._now.lasting()
        if self._attachment is not None:
            self._attachment.rename()

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
            OptionError: what is given is no `torch.optim.Optimizer`, nor a wrapper of one.
        """
        optimizer = innermost(optimizer)
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
        self._now.holding = True
        try:
            yield
            if self._now.pending is not None:
                self._commit(self._now.pending)
        finally:
            self._now.holding, self._now.held, self._now.pending = False, None, None

    def release(self) -> None:
        """Let the weights move again after a closure."""
        self._now.held = None

    def current_learning_rate(self) -> float:
        """The rate of learned weights: the option, else the attached optimizer's, else 1e-3."""
        if self.learning_rate is None and self._attachment is not None:
            return float(self._attachment.optimizer.param_groups[0]["lr"])
        return super().current_learning_rate()

    # --- what happened ------------------------------------------------------------------------------------------------
    @property
    def last_weights(self) -> Tensor:
        """``[T]`` float64, the multipliers of the task gradients in the last call; 0 for tasks that were absent."""
        if self._now.record is None:
            raise StateError("there are no weights: the balancer has not been called yet, or skipped its last step")
        return self._now.record.all_weights(len(self.tasks))

    def metrics(self) -> dict[str, float]:
        """The last call as a flat dict for any logger; reading it waits for the device, the call does not.

        ``loss/<task>``, ``loss/sum`` (always the plain sum), ``weight/<task>``, ``share/<task>`` (the fraction of
        ``Σ|w L|``), and where gradients were read ``norm/<task>`` and ``cosine/<task>,<task>``. Empty before the
        first call and after a skipped step.
        """
        return {} if self._now.record is None else self._now.record.metrics()

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

    # --- devices ------------------------------------------------------------------------------------------------------
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        self._now.device = None
        return super()._apply(fn, recurse)

    def _device_without_losses(self, ranks: Ranks | None) -> torch.device:
        """Where the losses were so far; before the first, where the ranks that have some must have them."""
        return self._now.device or (torch.device("cpu") if ranks is None else ranks.device)

    def _follow(self, device: torch.device) -> None:
        """Keep the state where the losses are."""
        if self._now.device != device:
            self.to(device)
            self._now.device = device


def _trained_in_eval(this: weakref.ref[Balancer], gradient: Tensor) -> None:
    if (balancer := this()) is not None:
        balancer.trained_in_eval()


def _refuse_create_graph(method: str, at_depths: bool, incoming: Tensor) -> list[tuple[Tensor, Tensor]]:
    """What replaces the gradient is a constant, and would be differentiated as one."""
    if at_depths:
        why, fix = "with plain heads, and losses that read the trunk at several depths,", "use heads='weighted'"
    else:
        why, fix = "sends a direction of its own to shared=, which", "choose a method that weighs the losses"
    raise SharedError(
        f"{method} {why} cannot be differentiated twice (create_graph=True): {fix}, or take the second derivative of "
        "the losses themselves"
    )


def _full_precision(device: str) -> AbstractContextManager[Any]:
    """The look and its products keep their precision when the call stands inside an autocast region."""
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def _compute_device(device: torch.device) -> torch.device:
    """Where the small mathematics runs: with the losses, except on devices without float64."""
    return torch.device("cpu") if device.type == "mps" else device


def _stacked(losses: list[Tensor], device: torch.device) -> Tensor:
    """``[T]`` float64."""
    if not losses:
        return torch.zeros(0, dtype=torch.float64, device=device)
    dtypes = {loss.dtype for loss in losses}
    if len(dtypes) > 1:
        common = functools.reduce(torch.promote_types, dtypes)
        losses = [loss.to(common) for loss in losses]
    return torch.stack(losses).to(device=device, dtype=torch.float64)


def _as_result(value: Tensor, found: list[Tensor]) -> Tensor:
    """The value in the losses' precision, float32 at least."""
    dtypes = {loss.dtype for loss in found}
    dtype = torch.float32 if dtypes == {torch.float32} else functools.reduce(torch.promote_types, dtypes, torch.float32)
    return value.to(device=found[0].device, dtype=dtype)
