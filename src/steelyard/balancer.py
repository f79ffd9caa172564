"""`Balancer`: the call, the tasks, the options, and the one scalar that comes back.

A published method is a subclass that implements `Balancer.weigh`, mathematics on small tensors. Everything around it is done
here, once, in this order: take the losses that are there; settle non-finite ones; pass the rest through the loss stages; read
gradients where the method asks for them; weigh; rescale, guard and prioritise; build the scalar; commit the state.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from steelyard.attachment import Attachment
from steelyard.checks import check_positive, checked_tasks, non_finite_error, not_finite, present_losses
from steelyard.errors import (
    AngleWarning,
    LossError,
    MissingInputError,
    OptionError,
    PeriodWarning,
    SharedError,
    StateError,
)
from steelyard.gradients.carrier import Redirection, carry, rounding_bound
from steelyard.gradients.features import FeatureRows, feature_rows
from steelyard.learned import adam, declare_learned
from steelyard.observation import Balance, Reads, Seen, merge
from steelyard.options import Guards, Heads, NonFinite, Scale, at_least, checked_priorities, one_of
from steelyard.state import State, Stateful
from steelyard.warn import warn

Shared = Tensor | Sequence[Tensor]
Recompute = Callable[..., Mapping[str, Tensor | None]]


class Stage(Stateful):
    """A map ``L_k → f(L_k)`` in front of a method, with state of its own."""

    positive_losses: ClassVar[bool] = False
    """Whether the stage is defined for losses of at least zero only."""
    periodic: bool = False
    """Whether the stage waits for the end of an epoch."""

    def transform(self, losses: Tensor, state: State) -> tuple[Tensor, Tensor]:
        """``f(L) [T]`` and ``f'(L) [T]`` for the losses ``[T]`` of the present tasks; rebinds ``state``."""
        raise NotImplementedError

    def period_ended(self, state: State) -> None:
        """An epoch has ended; ``state`` covers all tasks."""


@dataclass(frozen=True)
class Proposal:
    """What one observation leads to; nothing of it is committed yet."""

    index: Tensor | None
    weights: Tensor
    head_weights: Tensor
    value: Tensor
    direction: tuple[Tensor, ...] | None
    states: tuple[State, ...]
    parameter_gradients: dict[str, Tensor]
    generator_state: Tensor | None


class Balancer(Stateful):
    """Base of all methods: ``loss = balancer(losses, shared=features)`` returns one scalar to call ``backward`` on.

    Args:
        tasks: task names, in the order of every ``[T]`` tensor.
        priorities: how much each task matters to you, 1 where not named. They multiply the resulting weights, since multiplying
            losses first would do nothing for scale-invariant methods; methods with a native preference use that instead.
        every: refresh the weights each ``every``-th step and hold them in between.
        on_nonfinite: what an inf or NaN loss (or task gradient) does: ``"raise"``; ``"drop_task"`` leaves the task out of the
            step; ``"skip_step"`` returns a scalar that moves nothing; ``"ignore"`` does not look, which spares a CUDA sync.
        heads: ``"weighted"`` scales the gradients of the task heads like those of the trunk, ``"plain"`` leaves them; the default is
            the method's own. ``"plain"`` needs ``shared=``.
        scale: ``"paper"`` keeps the method's formula, ``"sum"`` rescales the weights to sum to the number of present tasks.
        floor, cap, max_change: limits on the weights; see `Guards`.
        learning_rate: of weights that are learnt; ``None`` follows the attached optimizer, else 1e-3.
        generator: a CPU generator for methods that draw random numbers.

    Attributes:
        last_weights: ``[T]``, the multipliers of the task gradients in the last call, 0 for absent tasks.
    """

    # --- what a method declares -------------------------------------------------------------------------------------------
    name: ClassVar[str] = ""
    """Registry name."""
    paper: ClassVar[str] = ""
    """Authors (year), arXiv id."""
    reads: ClassVar[Reads] = "losses"
    where: ClassVar[frozenset[str]] = frozenset({"features", "trunk"})
    """Where its gradients are defined: ``"features"``, ``"trunk"``."""
    uses_angles: ClassVar[bool] = False
    """Whether inner products of different tasks matter to it."""
    default_heads: ClassVar[Heads] = "weighted"
    positive_losses: ClassVar[bool] = False
    """Whether it is defined for losses of at least zero only."""
    rescaling: str = "none"
    """What multiplying loss k by a constant from the first step on does: ``"weights"`` leaves the weights as they are, ``"contribution"``
    leaves each w_k L_k, ``"proportion"`` leaves them up to a common factor, ``"none"`` promises nothing."""
    native_priorities: ClassVar[bool] = False
    """Whether `weigh` uses ``self.priorities`` itself."""
    draws: ClassVar[bool] = False
    """Whether `weigh` draws random numbers from ``self.generator``."""
    periodic: bool = False
    """Whether it waits for `end_epoch` or a period in steps."""
    needs_after: bool = False
    """Whether it must see the losses again after the optimizer's step."""

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        priorities: Mapping[str, float] | None = None,
        every: int = 1,
        on_nonfinite: NonFinite = "raise",
        heads: Heads | None = None,
        scale: Scale = "paper",
        floor: float | None = None,
        cap: float | None = None,
        max_change: float | None = None,
        learning_rate: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.tasks = checked_tasks(tasks)
        self._known = frozenset(self.tasks)
        self.priorities = checked_priorities(priorities, self.tasks)
        self._priority = torch.tensor([self.priorities[task] for task in self.tasks], dtype=torch.float64)
        self._prioritised = any(value != 1.0 for value in self.priorities.values())
        if not isinstance(every, int) or every < 1:
            raise OptionError(f"every must be a whole number of at least 1, got {every!r}")
        one_of("on_nonfinite", on_nonfinite, NonFinite)
        one_of("scale", scale, Scale)
        if heads is not None:
            one_of("heads", heads, Heads)
        if learning_rate is not None:
            at_least("learning_rate", learning_rate, 0.0, strictly=True)
        if generator is not None and generator.device.type != "cpu":
            raise OptionError(f"generator must be a CPU generator, got one on {generator.device}")
        self.every, self.on_nonfinite, self.scale = every, on_nonfinite, scale
        self.heads: Heads = heads or self.default_heads
        self.guards = Guards(floor, cap, max_change)
        self.learning_rate = learning_rate
        self.generator = generator
        if self.draws and generator is None:
            # Drawn from torch's own stream, so torch.manual_seed makes it reproducible.
            self.generator = torch.Generator().manual_seed(int(torch.randint(2**62, ()).item()))
        self.period: int | None = None

        self.stages = nn.ModuleList()
        self._external: set[str] = set()
        self._task_count = len(self.tasks)
        if every > 1:
            self.declare("held_weights", default=1.0, reduce="mean")
        if max_change is not None:
            self.declare("guarded_weights", default=float("nan"), reduce="mean")

        self.steps = 0
        """Optimizer steps (calls, where no optimizer is attached) since the start."""
        self._period_steps = 0
        self._awaiting_after = False
        self._reset_call()

    # --- what a method implements -----------------------------------------------------------------------------------------
    def weigh(self, seen: Seen, state: State) -> Tensor | Balance:
        """The weights ``[T]`` of the present tasks; rebinds what changes of ``state``. Called under ``no_grad``."""
        raise NotImplementedError

    def period_ended(self, state: State) -> None:
        """A period has ended; ``state`` covers all tasks."""

    def after_step(self, losses: Tensor, state: State) -> None:
        """The losses ``[T]`` of the same batch after the step."""
        raise MissingInputError(f"{self.name} has no use for losses after the step")

    def validated(self, losses: Tensor, state: State) -> None:
        """Validation losses ``[T]``."""
        raise MissingInputError(f"{self.name} has no use for validation losses")

    def declare_learned(self, name: str, default: float = 0.0, learn: str = "inside") -> None:
        """Declare a learned vector over tasks: trained here, or (``learn="external"``) a Parameter for the user's optimizer."""
        if learn not in ("inside", "external"):
            raise OptionError(f"learn must be 'inside' or 'external', got {learn!r}")
        if learn == "inside":
            declare_learned(self, name, default)
        else:
            self.declare(name, default=default)
            initial = self._buffers.pop(name)
            assert initial is not None
            self.register_parameter(name, nn.Parameter(initial.to(torch.get_default_dtype())))
            self._external.add(name)

    def learn(self, state: State, name: str, gradient: Tensor, decay: float = 0.0) -> None:
        """Descend the learned ``name`` along its closed-form ``gradient [T]``, once it has been used."""
        if name in self._external:
            self._parameter_gradients[name] = gradient
        else:
            adam(state, name, gradient, self.current_learning_rate(), decay)

    def current_learning_rate(self) -> float:
        """The rate of learned weights: the option, else the attached optimizer's, else 1e-3."""
        if self.learning_rate is not None:
            return self.learning_rate
        if self._attachment is not None:
            return float(self._attachment.optimizer.param_groups[0]["lr"])
        return 1e-3

    def set_period(self, period: int | None) -> None:
        """Length of a period in optimizer steps; ``None`` waits for `end_epoch`."""
        if period is not None and (not isinstance(period, int) or period < 1):
            raise OptionError(
                f"period must be a whole number of steps of at least 1, or None for epochs, got {period!r}"
            )
        self.period = period

    # --- the call ---------------------------------------------------------------------------------------------------------
    def forward(
        self,
        losses: Mapping[str, Tensor | None],
        shared: Shared | nn.Module | None = None,
        *,
        again: Recompute | None = None,
        probes: Sequence[Mapping[str, Tensor | None]] | None = None,
        counts: Mapping[str, float] | None = None,
    ) -> Tensor:
        """One scalar whose backward is the balanced update.

        Args:
            losses: scalar loss tensors by task name; a task may be absent or ``None``.
            shared: where task gradients are read: the tensor, or tuple of tensors, that the heads read. Not needed by methods
                that read losses only.
            again: ``f(params=None, batch=None) -> losses``, recomputes the losses; used by methods that look ahead or back.
            probes: the losses of independent batches, for methods that declare a cross Gramian.
            counts: labels behind each mean, where batches or micro-batches hold different numbers of them. A loss made by
                `masked_mean` brings its own.

        Arguments that a method does not declare are an offer, and ignored: the same line calls every method.
        """
        positions, found = present_losses(self.tasks, self._known, losses, needs_graph=self.training)
        if not self.training:
            return self._plain_sum(positions, found)
        if self._awaiting_after and self.needs_after:
            raise MissingInputError(
                f"{self.name} compares the losses before and after each step, and never saw the last step's: call "
                "balancer.observe(after=losses) after optimizer.step(), or attach the optimizer and pass "
                "again=lambda params=None, batch=None: losses"
            )
        if self._attachment is not None:
            self._attachment.before_forward()
        with torch.no_grad():
            return self._balance(positions, found, shared, again, counts)

    def _balance(
        self,
        positions: list[int] | None,
        found: list[Tensor],
        shared: Shared | nn.Module | None,
        again: Recompute | None,
        counts: Mapping[str, float] | None,
    ) -> Tensor:
        device = _compute_device(found[0].device)
        if self._priority.device != device:
            self.to(device)
            self._priority = self._priority.to(device)
        raw = _stack(found).to(device=device, dtype=torch.float64)
        names = self.tasks if positions is None else tuple(self.tasks[position] for position in positions)
        sizes = self._label_counts(names, found, counts, device)

        frozen = self._frozen_weights
        dropped = self._settle(names, raw)
        features = self._features(shared)
        rows = None
        if features is not None and frozen is None and (not dropped or self.on_nonfinite == "drop_task"):
            live = [position for position in range(len(found)) if position not in dropped]
            if live and (self._refreshing() or self._needs_redirection()):
                with torch.enable_grad():
                    rows = feature_rows([names[k] for k in live], [found[k] for k in live], features)
        elif frozen is not None and features is not None and self._needs_redirection():
            raise OptionError(
                f"{self.name} with plain heads cannot hold its weights while an optimizer evaluates the loss several times in a "
                "step: its trunk and head gradients are not those of one function. Use heads='weighted'"
            )

        squared = gramian = None
        if rows is not None and self.reads != "losses":
            gramian = rows.gramian() if self.reads in ("gramian", "rows") else None
            squared = rows.squared_norms() if gramian is None else gramian.diagonal()
            live = [position for position in range(len(found)) if position not in dropped]
            bad = self._settle_rows([names[k] for k in live], squared)
            if bad:
                keep = [k for k in range(len(live)) if k not in bad]
                dropped |= {live[k] for k in bad}
                rows = rows.select(keep)
                squared = squared[keep]
                gramian = None if gramian is None else gramian[keep][:, keep]
            if gramian is not None and self.uses_angles:
                self._warn_if_disjoint(gramian)

        kept = [position not in dropped for position in range(len(found))]
        if dropped and (self.on_nonfinite == "skip_step" or not any(kept)):
            return self._skipped(found, kept, raw, names)

        live = [position for position in range(len(found)) if kept[position]]
        index = self._index(positions, live, device)
        if dropped:
            raw_live, sizes_live = raw[live], sizes[live]
        else:
            raw_live, sizes_live = raw, sizes
        seen = Seen(
            tuple(names[k] for k in live) if dropped else names,
            raw_live,
            sizes_live,
            squared,
            gramian,
            rows.per_task() if rows is not None and self.reads == "rows" else None,
        )
        if frozen is not None:
            weights = frozen if index is None else frozen[index]
            self._remember(seen, weights, index)
            return carry(_as_result((weights * raw_live).sum(), found), found, kept, weights)

        proposal = self._propose(seen, index)
        self._remember(seen, proposal.weights, index)
        redirection = None
        if rows is not None and (self._needs_redirection() or proposal.direction is not None):
            redirection = self._redirect(rows, proposal, squared)
        result = carry(
            _as_result(proposal.value, found),
            found,
            kept,
            proposal.weights if redirection is None else proposal.head_weights,
            [(getattr(self, name), gradient) for name, gradient in proposal.parameter_gradients.items()],
            redirection,
        )
        if redirection is not None:
            assert rows is not None
            redirection.install(rows.features)
        self._observed(seen, proposal, again)
        return result

    def _plain_sum(self, positions: list[int] | None, found: list[Tensor]) -> Tensor:
        total = None
        for position, loss in zip(positions or range(len(found)), found, strict=True):
            term = loss * self.priorities[self.tasks[position]] if self._prioritised else loss
            total = term if total is None else total + term
        assert total is not None
        return total

    def _label_counts(
        self, names: tuple[str, ...], found: list[Tensor], counts: Mapping[str, float] | None, device: torch.device
    ) -> Tensor:
        if self._attachment is None:  # without a window there is nothing to average
            return torch.ones(len(found), dtype=torch.float64, device=device)
        carried = [getattr(loss, "label_count", None) for loss in found]
        given = [
            (counts or {}).get(name, 1.0 if own is None else float(own))
            for name, own in zip(names, carried, strict=True)
        ]
        for name, value in zip(names, given, strict=True):
            if not value > 0:
                raise LossError(
                    f"counts says that {name!r} has {value} labels: leave the task out of a batch without labels"
                )
        return torch.tensor(given, dtype=torch.float64, device=device)

    # --- non-finite losses ------------------------------------------------------------------------------------------------
    def _settle(self, names: tuple[str, ...], raw: Tensor) -> set[int]:
        """Positions of losses that the policy leaves out."""
        if self.on_nonfinite == "ignore":
            return set()
        values = raw.tolist()
        bad = not_finite(values)
        if bad and self.on_nonfinite == "raise":
            raise non_finite_error([names[k] for k in bad], [values[k] for k in bad], "the loss")
        reader = next((type(stage).__name__ for stage in self.stages if getattr(stage, "positive_losses", False)), None)
        if reader or self.positive_losses:
            check_positive(names, values, reader or self.name)
        return set(bad)

    def _settle_rows(self, names: list[str], squared: Tensor) -> set[int]:
        if self.on_nonfinite == "ignore":
            return set()
        values = squared.tolist()
        bad = not_finite(values)
        if bad and self.on_nonfinite == "raise":
            raise non_finite_error([names[k] for k in bad], [values[k] for k in bad], "the squared gradient norm")
        return set(bad)

    def _skipped(self, found: list[Tensor], kept: list[bool], raw: Tensor, names: tuple[str, ...]) -> Tensor:
        """A scalar with a graph whose backward moves nothing."""
        if self._attachment is not None:
            self._attachment.nothing_to_do(skip_step=self.on_nonfinite == "skip_step")
        self._last = (names, raw, torch.zeros_like(raw), None)
        zeros = torch.zeros(sum(kept), dtype=torch.float64, device=raw.device)
        return carry(_as_result(raw.new_zeros(()), found), found, kept, zeros)

    # --- gradients --------------------------------------------------------------------------------------------------------
    def _needs_redirection(self) -> bool:
        return self.heads == "plain"

    def _features(self, shared: Shared | nn.Module | None) -> tuple[Tensor, ...] | None:
        if self.reads == "losses" and self.heads == "weighted":
            return None
        if shared is None:
            reason = (
                f"reads the tasks' {self.reads}" if self.reads != "losses" else "leaves the heads plain (heads='plain')"
            )
            raise SharedError(
                f"{self.name} {reason} and needs to know where: write balancer(losses, shared=features), with the tensor (or tuple "
                "of tensors) that the task heads read"
            )
        if isinstance(shared, nn.Module):
            raise SharedError(
                f"{self.name} got a module as shared=; gradients are read at features: pass the tensor that "
                f"{type(shared).__name__} returned and the task heads read"
            )
        features = (shared,) if isinstance(shared, Tensor) else tuple(shared)
        if not features:
            raise SharedError("shared= is an empty tuple: pass the tensors that the task heads read")
        if "features" not in self.where:
            raise SharedError(f"{self.name} is not defined on features, only on the {', '.join(sorted(self.where))}")
        for position, feature in enumerate(features):
            if not isinstance(feature, Tensor):
                raise SharedError(f"shared[{position}] is a {type(feature).__name__}, not a tensor")
            if isinstance(feature, nn.Parameter):
                raise SharedError(
                    f"shared[{position}] is a Parameter of shape {tuple(feature.shape)}; gradients are read at features: pass the "
                    "tensor that the task heads read"
                )
            if not feature.requires_grad:
                raise SharedError(
                    f"shared[{position}] has no graph (requires_grad=False): the trunk is frozen or ran under no_grad, so "
                    "there is no shared gradient to balance"
                )
        return features

    def _redirect(self, rows: FeatureRows, proposal: Proposal, squared: Tensor | None) -> Redirection:
        direction = proposal.direction or rows.combine(proposal.weights)
        norms = rows.squared_norms() if squared is None else squared
        return Redirection(
            direction,
            rows.combine(proposal.head_weights),
            tuple(rounding_bound(feature, proposal.head_weights, norms) for feature in rows.features),
        )

    def _warn_if_disjoint(self, gramian: Tensor) -> None:
        if self._angle_checks >= 10 or len(gramian) < 2:
            return
        self._angle_checks += 1
        norms = gramian.diagonal()
        apart = (gramian == 0) & (norms[:, None] > 0) & (norms > 0)
        if bool(apart.any()):
            self._angle_checks = 10
            warn(
                f"{self.name} uses the angles between task gradients, but at the features some tasks share no samples (their own "
                "inputs, disjoint labels, one task per batch): their inner products are exactly zero there, and conflict is "
                "invisible. Read the gradients at the trunk, or choose a method that reads losses or norms",
                AngleWarning,
            )

    # --- weighing ---------------------------------------------------------------------------------------------------------
    def _refreshing(self) -> bool:
        return self.steps % self.every == 0

    def _propose(self, seen: Seen, index: Tensor | None) -> Proposal:
        """A pure function of the committed state and one observation."""
        losses, factor, states = seen.losses, None, []
        for stage in self.stages:
            assert isinstance(stage, Stage)
            state = stage.working_state(index)
            losses, slope = stage.transform(losses, state)
            factor = slope if factor is None else factor * slope
            states.append(state)
        state = self.working_state(index)
        states.append(state)

        self._parameter_gradients: dict[str, Tensor] = {}
        before = self.generator.get_state() if self.draws and self.generator is not None else None
        if self._refreshing():
            answer = self.weigh(seen.transformed(losses, factor), state)
            balance = answer if isinstance(answer, Balance) else Balance(answer)
            if self.every > 1:
                state.held_weights = balance.weights
        else:
            balance = Balance(state.held_weights)
        after = None
        if before is not None and self.generator is not None:
            after = self.generator.get_state()
            self.generator.set_state(before)

        weights = balance.weights if factor is None else balance.weights * factor
        plain = torch.ones_like(weights) if factor is None else factor
        touched = False
        if self.scale == "sum":
            weights, plain, touched = self._to_sum(weights), self._to_sum(plain), True
        if self.guards:
            previous = state.guarded_weights if self.guards.max_change is not None else None
            weights, touched = self.guards.apply(weights, previous), True
            if previous is not None:
                state.guarded_weights = weights
        if self._prioritised:
            priority = self._priority if index is None else self._priority[index]
            plain = plain * priority
            if not self.native_priorities:
                weights, touched = weights * priority, True

        if self.heads == "plain" or balance.direction is not None:
            value = (seen.losses * (self._priority if index is None else self._priority[index])).sum()
        elif balance.value is not None and not touched:
            value = balance.value
        else:
            value = ((weights if factor is None else weights / factor) * losses).sum()
        return Proposal(
            index, weights, plain, value, balance.direction, tuple(states), self._parameter_gradients, after
        )

    def _to_sum(self, weights: Tensor) -> Tensor:
        total = weights.sum()
        if self._weights_may_cancel and not total.item() > 0:
            raise OptionError(
                f"scale='sum' is undefined for {self.name} here: its weights sum to {total.item():.4g}. Use scale='paper'"
            )
        return weights * (len(weights) / total)

    _weights_may_cancel: ClassVar[bool] = False

    # --- propose and commit -----------------------------------------------------------------------------------------------
    def _observed(self, seen: Seen, proposal: Proposal, again: Recompute | None) -> None:
        if self._holding or (self._attachment is not None and self._attachment.inside_step):
            # A closure may be evaluated many times within a step; its weights hold still, or a line search would compare
            # the values of different functions.
            self._frozen_weights = self._spread(proposal.weights, proposal.index)
        if self._attachment is not None:
            self._attachment.add(seen, proposal, again)
        elif self._holding:
            self._pending = proposal
        else:
            self._commit(proposal)

    def _commit_window(self, window: Sequence[tuple[Seen, Proposal]]) -> None:
        """Commit what the micro-batches of one optimizer step saw together."""
        if len(window) == 1:
            self._commit(window[0][1])
            return
        with torch.no_grad():
            seen, index = merge([(seen, proposal.index) for seen, proposal in window], self.tasks)
            self._commit(self._propose(seen, index))

    def _commit(self, proposal: Proposal) -> None:
        for module, state in zip((*self.stages, self), proposal.states, strict=True):
            assert isinstance(module, Stateful)
            module.commit(state, proposal.index)
        if proposal.generator_state is not None and self.generator is not None:
            self.generator.set_state(proposal.generator_state)
        self.steps += 1
        self._awaiting_after = self.needs_after
        if self.periodic or any(getattr(stage, "periodic", False) for stage in self.stages):
            self._period_steps += 1
            if self.period is not None and self._period_steps >= self.period:
                self.end_epoch()
            elif self.period is None and self._period_steps == 10_000:
                warn(
                    f"{self.name} waits for the end of an epoch and has seen none in 10,000 steps: call balancer.end_epoch() "
                    "after each epoch, or give a period in steps where the method has that option",
                    PeriodWarning,
                )

    def end_epoch(self) -> None:
        """Tell epoch-based methods and stages that an epoch (a period) has ended; others are not affected."""
        with torch.no_grad():
            for module in (*self.stages, self):
                if getattr(module, "periodic", False):
                    assert isinstance(module, Stage | Balancer)
                    state = module.working_state()
                    module.period_ended(state)
                    module.commit(state)
        self._period_steps = 0

    def observe(
        self,
        *,
        after: Mapping[str, Tensor | None] | None = None,
        validation: Mapping[str, Tensor | None] | None = None,
    ) -> None:
        """Show a method what it declares besides the training losses.

        Args:
            after: the losses of the same batch, recomputed once the optimizer has stepped.
            validation: losses on validation data.
        """
        for given, method in ((after, self.after_step), (validation, self.validated)):
            if given is None:
                continue
            positions, found = present_losses(self.tasks, self._known, given, needs_graph=False)
            device = _compute_device(found[0].device)
            with torch.no_grad():
                values = torch.stack([loss.detach().to(device, torch.float64) for loss in found])
                finite = torch.isfinite(values)
                if not bool(finite.all()):
                    bad = (~finite).nonzero().squeeze(1).tolist()
                    if self.on_nonfinite == "raise":
                        names = [self.tasks[(positions or range(len(found)))[k]] for k in bad]
                        raise non_finite_error(names, values[bad].tolist(), "the observed loss")
                    live = finite.nonzero().squeeze(1).tolist()
                else:
                    live = list(range(len(found)))
                if live:
                    index = self._index(positions, live, device)
                    state = self.working_state(index)
                    method(values[live], state)
                    self.commit(state, index)
        if after is not None:
            self._awaiting_after = False

    def attach(self, optimizer: torch.optim.Optimizer, scaler: Any = None) -> Balancer:
        """Let the optimizer's steps commit what forward calls propose; returns the balancer.

        The micro-batches between two optimizer steps are averaged into one observation, a step that a gradient scaler skips is
        discarded, learned weights follow the optimizer's learning rate, and the state also rides in ``optimizer.state_dict()``.

        Args:
            optimizer: the one that steps the shared parameters.
            scaler: the gradient scaler, if one is used.
        """
        if self._attachment is not None:
            self._attachment.remove()
        self._attachment = Attachment(self, optimizer, scaler)
        return self

    def discard(self) -> None:
        """Forget what was observed since the last optimizer step (a step that was skipped by hand)."""
        if self._attachment is not None:
            self._attachment.discard()
        self._pending = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Hold the weights after the first evaluation inside the block (an LBFGS closure); commit when it ends."""
        self._holding = True
        try:
            yield
            if self._pending is not None:
                self._commit(self._pending)
        finally:
            self._holding, self._frozen_weights, self._pending = False, None, None

    # --- what happened ----------------------------------------------------------------------------------------------------
    @property
    def last_weights(self) -> Tensor:
        """``[T]`` float64, the multipliers of the task gradients in the last call; 0 for tasks that were absent."""
        if self._last is None:
            raise StateError("the balancer has not been called yet: there are no weights")
        names, _, weights, _ = self._last
        if len(names) == len(self.tasks):
            return weights
        index = torch.tensor([self.tasks.index(name) for name in names], device=weights.device)
        return torch.zeros(len(self.tasks), dtype=weights.dtype, device=weights.device).index_copy_(0, index, weights)

    def metrics(self) -> dict[str, float]:
        """The last call as a flat dict for any logger; reading it is what waits for the device, the call does not.

        ``loss/<task>``, ``loss/sum`` (always the plain sum), ``weight/<task>``, ``share/<task>`` (the fraction of ``Σ|w L|``), and
        where gradients were read ``norm/<task>`` and ``cosine/<task>,<task>``.
        """
        if self._last is None:
            return {}
        names, losses, weights, seen = self._last
        contribution = (weights * losses).abs()
        share = contribution / contribution.sum().clamp(min=torch.finfo(torch.float64).tiny)
        result = {"loss/sum": float(losses.sum())}
        for label, values in (("loss", losses), ("weight", weights), ("share", share)):
            result.update({f"{label}/{name}": value for name, value in zip(names, values.tolist(), strict=True)})
        if seen is not None and seen.squared_norms is not None:
            norms = seen.norms
            result.update({f"norm/{name}": value for name, value in zip(names, norms.tolist(), strict=True)})
            if seen.gramian is not None:
                scale = torch.where(norms > 0, 1 / norms, torch.zeros_like(norms))
                cosines = (seen.gramian * scale[:, None] * scale).tolist()
                for i, first in enumerate(names):
                    for j in range(i + 1, len(names)):
                        result[f"cosine/{first},{names[j]}"] = cosines[i][j]
        return result

    # --- state ------------------------------------------------------------------------------------------------------------
    def prepend_stages(self, stages: Sequence[Stage]) -> None:
        """Put loss stages in front; see `Chain`."""
        for stage in stages:
            stage.bind(len(self.tasks))
        self.stages = nn.ModuleList([*stages, *self.stages])

    def reset(self) -> None:
        """Return to the state of a fresh instance (the generator keeps its own)."""
        super().reset()
        for stage in self.stages:
            assert isinstance(stage, Stage)
            stage.reset()
        self.steps = self._period_steps = 0
        self._awaiting_after = False
        self._reset_call()

    def _reset_call(self) -> None:
        self._attachment: Attachment | None = getattr(self, "_attachment", None)
        self._last: tuple[tuple[str, ...], Tensor, Tensor, Seen | None] | None = None
        self._frozen_weights: Tensor | None = None
        self._pending: Proposal | None = None
        self._holding = False
        self._angle_checks = 0

    def _committed(self, name: str) -> Tensor:
        if name in self._external:
            parameter: Tensor = getattr(self, name)
            return parameter.detach().double()
        return super()._committed(name)

    def _store(self, name: str, value: Tensor) -> None:
        if name not in self._external:
            super()._store(name, value)

    def get_extra_state(self) -> dict[str, Any]:
        """What a checkpoint holds besides the declared values: whose state it is, the counters, the generator."""
        return {
            "method": self.name,
            "tasks": list(self.tasks),
            "steps": self.steps,
            "period_steps": self._period_steps,
            "awaiting_after": self._awaiting_after,
            "generator": self.generator.get_state() if self.draws and self.generator is not None else None,
        }

    def set_extra_state(self, state: Any) -> None:
        if state["method"] != self.name:
            raise StateError(f"the checkpoint holds the state of {state['method']!r}, this balancer is {self.name!r}")
        if tuple(state["tasks"]) != self.tasks:
            raise StateError(
                f"the checkpoint balances the tasks {', '.join(state['tasks'])}, this balancer {', '.join(self.tasks)}"
            )
        self.steps, self._period_steps = state["steps"], state["period_steps"]
        self._awaiting_after = state["awaiting_after"]
        if state["generator"] is not None and self.generator is not None:
            self.generator.set_state(state["generator"].cpu())

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        # Whose state it is comes first: a wrong method or task list is named before any tensor is touched.
        if (extra := state_dict.get(f"{prefix}_extra_state")) is not None:
            self.set_extra_state(extra)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self.discard()
        self._reset_call()

    def __getstate__(self) -> dict[str, Any]:
        # A copy or pickle of the model must not drag the optimizer along: a copy is not attached.
        state = dict(self.__dict__)
        state.update(_attachment=None, _last=None, _pending=None, _frozen_weights=None, _holding=False)
        state["generator"] = None if self.generator is None else self.generator.get_state()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        saved = state.pop("generator")
        super().__setstate__(state)
        self.generator = None
        if saved is not None:
            self.generator = torch.Generator()
            self.generator.set_state(saved)

    def extra_repr(self) -> str:
        names = ", ".join(self.tasks[:4]) + (f", … {len(self.tasks)} tasks" if len(self.tasks) > 4 else "")
        return f"{names}; heads={self.heads!r}, scale={self.scale!r}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        self._priority = self._priority.to(fn(torch.zeros(())).device)
        return self

    # --- small helpers ----------------------------------------------------------------------------------------------------
    def _index(self, positions: list[int] | None, live: list[int], device: torch.device) -> Tensor | None:
        """Where the live losses stand among all tasks; ``None`` when every task is there."""
        if len(live) == len(self.tasks):
            return None
        return torch.tensor(
            [live[k] if positions is None else positions[live[k]] for k in range(len(live))], device=device
        )

    def _spread(self, weights: Tensor, index: Tensor | None) -> Tensor:
        if index is None:
            return weights
        return torch.zeros(len(self.tasks), dtype=weights.dtype, device=weights.device).index_copy_(0, index, weights)

    def _remember(self, seen: Seen, weights: Tensor, index: Tensor | None) -> None:
        self._last = (seen.tasks, seen.losses, weights, seen)


def _compute_device(device: torch.device) -> torch.device:
    """Where the small mathematics runs: with the losses, except on devices without float64."""
    return torch.device("cpu") if device.type == "mps" else device


def _stack(losses: list[Tensor]) -> Tensor:
    dtypes = {loss.dtype for loss in losses}
    if len(dtypes) == 1:
        return torch.stack(losses)
    common = functools.reduce(torch.promote_types, dtypes)
    return torch.stack([loss.to(common) for loss in losses])


def _as_result(value: Tensor, found: list[Tensor]) -> Tensor:
    """The value in the losses' precision, float32 at least."""
    dtype = torch.float32
    for loss in found:
        dtype = torch.promote_types(dtype, loss.dtype)
    return value.to(device=found[0].device, dtype=dtype)
