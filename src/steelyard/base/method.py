"""`Method`: what a published method declares and implements, and the options that every method takes."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from steelyard.base.absent_option import Memory, declare_memory
from steelyard.base.learned import adam, declare_learned
from steelyard.base.observation import Along, Balance, Reads, Seen
from steelyard.base.options import (
    Guards,
    Heads,
    NonFinite,
    Scale,
    Sync,
    at_least,
    checked_priorities,
    checked_tasks,
    one_of,
)
from steelyard.base.process_group import GroupHandle
from steelyard.base.stage import Stage
from steelyard.base.state import TASKS, State, Stateful
from steelyard.errors import MissingInputError, OptionError

if TYPE_CHECKING:
    from steelyard.base.lookahead import LookAhead


Trunk = nn.Module | Iterable[nn.Parameter | nn.Module]
Look = str | nn.Module | Iterable[nn.Parameter | nn.Module | str]
"""Where gradients are read: ``"features"``, ``"last"``, ``"trunk"``, or layers."""
Product = Literal["auto", "difference", "forward", "backward"]
"""How ``⟨∇L_k, d⟩`` of all tasks is found: one more forward pass a little further along ``d``, one in forward mode, or
two backward passes, for which nothing else must be known."""


def checked_trunk(shared: Trunk | None) -> tuple[Trunk] | None:
    """A trunk for every call, in a tuple: as a plain attribute it would become a submodule, saved and trained."""
    if shared is None or isinstance(shared, nn.Module):
        return None if shared is None else (shared,)
    parts = list(shared) if isinstance(shared, Iterable) and not isinstance(shared, str | Tensor) else []
    if not parts or not all(isinstance(part, nn.Parameter | nn.Module) for part in parts):
        raise OptionError(
            "shared= at construction is the trunk, a module, several in a list, or its parameters, not a "
            f"{type(shared).__name__}: features change with every batch, so pass them in the call, "
            "balancer(losses, shared=features)"
        )
    return (parts,)


def checked_look(look: Look | None, name: str, reads: Reads) -> tuple[Look] | None:
    """A place for every call, in a tuple: as a plain attribute a layer would become a submodule, saved and trained."""
    if look is None:
        return None
    if reads in ("losses", "lookahead"):
        raise OptionError(f"look= says where task gradients are read, and {name} reads {reads} only: leave it out")
    parts = list(look) if isinstance(look, Iterable) and not isinstance(look, str | nn.Module | Tensor) else [look]
    if not parts or not all(isinstance(part, str | nn.Parameter | nn.Module) for part in parts):
        raise OptionError(
            f"look= is 'features', 'last', 'trunk', or layers (modules, their parameters, or names of modules), not a "
            f"{type(look).__name__}"
        )
    return (look if isinstance(look, str | nn.Module) else [*parts],)


def tensors_of(shared: Any) -> tuple[Any, ...]:
    """What ``shared=`` stands for, each once: tensors as they are, modules as their parameters."""
    parts = shared if isinstance(shared, Iterable) and not isinstance(shared, nn.Module | Tensor | str) else [shared]
    found = (each for part in parts for each in (part.parameters() if isinstance(part, nn.Module) else [part]))
    return tuple({id(each): each for each in found}.values())


class Method(Stateful):
    """The declarations of a method; `Balancer` adds the call."""

    name: ClassVar[str] = ""
    """Registry name."""
    paper: ClassVar[str] = ""
    """Authors (year), arXiv id."""
    revision: ClassVar[int] = 0
    """One more whenever the same options give other weights than before under one version: stored results are known by
    it, so that a study trains them anew instead of taking those of the earlier default or formula."""
    reads: Reads = "losses"
    where: ClassVar[frozenset[str]] = frozenset({"features", "trunk"})
    """Where its gradients are defined: ``"features"``, ``"trunk"``."""
    uses_angles: bool = False
    """Whether inner products of different tasks matter to it."""
    default_heads: ClassVar[Heads] = "weighted"
    positive_losses: bool = False
    """Whether it is defined for losses of at least zero only."""
    rescaling: str = "none"
    """What multiplying loss k by a constant from the first step on does: ``"weights"`` leaves the weights as they are,
    ``"contribution"`` leaves each w_k L_k, ``"proportion"`` leaves them up to a common factor, ``"none"`` promises
    nothing."""
    signed_weights: ClassVar[bool] = False
    """Whether weights may be negative; ``scale="sum"`` then makes their sizes sum to the number of tasks."""
    native_priorities: bool = False
    """Whether `weigh` uses ``self.priorities`` itself."""
    draws: ClassVar[bool] = False
    """Whether `weigh` draws random numbers from ``self.generator``."""
    periodic: bool = False
    """Whether it waits for `end_epoch` or a period in steps."""
    looks_at_nothing: ClassVar[bool] = False
    """Whether its weights are chosen beforehand, whatever the losses are."""
    weighs: ClassVar[bool] = True
    """Whether its weights describe the direction: not where gradients are masked element by element."""
    independent: bool = False
    """Whether a task's weight follows from that task's losses alone, so that it means something alone in a batch."""
    needs_validation: bool = False
    """Whether it must see validation losses, `Balancer.observe`, before each end of an epoch."""
    needs_after: bool = False
    """Whether it must see the losses again after the optimizer's step."""
    needs_along: bool = False
    """Whether it learns from how fast the losses fall along the step's own direction, `look_along`."""
    product: Product = "auto"
    """How that is found; see `Product`."""
    whole_network: ClassVar[bool] = False
    """Whether its paper reads gradients with respect to all parameters, the heads' included."""
    sends_steps: ClassVar[bool] = False
    """Whether it sends steps for plain SGD where others send gradients, at all parameters if it is given them."""
    needs_held_out: bool = False
    """Whether its look ahead is judged on a second batch."""
    look_cost: ClassVar[str] = ""
    """What its look ahead costs, for the table of methods."""

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
        memory: Memory = "none",
        shared: Trunk | None = None,
        look: Look | None = None,
        learning_rate: float | None = None,
        generator: torch.Generator | None = None,
        sync: Sync = "exact",
        process_group: Any = None,
    ) -> None:
        super().__init__()
        self._trunk = checked_trunk(shared)
        self._look = checked_look(look, self.name, self.reads)
        self.tasks = checked_tasks(tasks)
        self.bind(len(self.tasks))
        self.priorities = checked_priorities(priorities, self.tasks)
        if not isinstance(every, int) or every < 1:
            raise OptionError(f"every must be a whole number of at least 1, got {every!r}")
        if every > 1 and not self.weighs:
            raise OptionError(
                f"{self.name} sends a direction that no weights describe, and has none to hold in between: leave "
                f"every={every} out"
            )
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
        one_of("sync", sync, Sync)
        if sync == "local-mean" and self.reads == "losses":
            raise OptionError(
                f"sync='local-mean' says how the ranks' Gramians are joined, and {self.name} reads losses only: leave "
                "it out"
            )
        self.sync = sync
        self.process_group = None if process_group is None else GroupHandle(process_group)
        self.period: int | None = None
        self._stages: list[Stage] = []
        self.stages = nn.ModuleList()
        self.declare(SUMS, (3, TASKS), reduce="mean")
        if every > 1:
            self.declare("held_weights", default=float("nan"), reduce="mean")
        if max_change is not None:
            self.declare("guarded_weights", default=float("nan"), reduce="mean")
        one_of("memory", memory, Memory)
        self.memory: Memory = declare_memory(
            self, memory, name=self.name, reads=self.reads, where=self.where, every=every
        )

    @property
    def needs_shared(self) -> bool:
        """Whether gradients are read, or heads told apart from the trunk, at a place that ``shared=`` must name."""
        return self.heads == "plain" or self.reads not in ("losses", "lookahead")

    @property
    def recomputes(self) -> bool:
        """Whether it has a use for the function that computes the losses once more, ``again=``."""
        return self.needs_after or self.needs_along or self.reads == "lookahead"

    def reads_at(self, trunk: bool) -> Reads:
        """What it reads at the trunk, or at features, where that differs."""
        return self.reads

    @property
    def trunk(self) -> Trunk | None:
        """The shared module, or its parameters, given at construction: where gradients are read by default."""
        return None if self._trunk is None else self._trunk[0]

    @property
    def look(self) -> Look | None:
        """Where gradients are read, given at construction: ``None`` for where ``shared=`` points."""
        return None if self._look is None else self._look[0]

    def elements(self) -> tuple[int, torch.dtype]:
        """Known from the start with a trunk given at construction: distributed checkpoints load into what is there."""
        trunk = self.trunk
        if trunk is None:
            return super().elements()
        trainable = [parameter for parameter in tensors_of(trunk) if parameter.requires_grad]
        dtype = functools.reduce(torch.promote_types, (parameter.dtype for parameter in trainable), torch.float32)
        return sum(parameter.numel() for parameter in trainable), dtype

    @property
    def keeps_state(self) -> bool:
        """Whether it weighs by what it has seen before, or draws."""
        declared = [each.name for part in (*self.loss_stages(), self) for each in part.declarations()]
        return self.draws or any(name != SUMS for name in declared)

    def check_tasks(self, tasks: Sequence[str]) -> None:
        """Refuse a list of tasks, before `Balancer.set_tasks` changes to it, that the method's options do not fit."""

    def check_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Refuse an optimizer, before `Balancer.attach` ties the balancer to it, that undoes what the method sends."""

    def optimizer_for(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """What is to step what it sends, in place of the optimizer of a loop: that one, for all but a few methods.

        Raises:
            OptionError: this one, with these options, cannot be replaced.
        """
        return optimizer

    def looks_for(self, trunk: bool) -> Reads:
        """What is read at the trunk, or at features, for the method and its memory."""
        return "rows" if trunk and self.memory == "rows" else self.reads_at(trunk)

    # --- what a method implements -----------------------------------------------------------------------------------
    def weigh(self, seen: Seen, state: State) -> Tensor | Balance:
        """The weights ``[T]`` of the present tasks; rebinds what changes of ``state``. Called under ``no_grad``."""
        raise NotImplementedError(f"{type(self).__name__} has no weigh(self, seen, state): it is what a method is")

    def look_ahead(self, ahead: LookAhead, state: State) -> Tensor | None:
        """What it wants to know of steps that are not taken, ``[T]``: `weigh` sees it as ``seen.outlook``.

        ``None``: this batch does not tell. Called before `weigh` where it reads the ``lookahead``; ``state`` is only
        read.
        """
        raise NotImplementedError

    def look_along(self, along: Along, state: State) -> None:
        """Learn from how fast the losses fall along a step that is taken; `weigh` sees the state in the next one."""
        raise NotImplementedError(f"{type(self).__name__} asks for products along its steps and has no look_along")

    def period_ended(self, state: State) -> None:
        """A period has ended; ``state`` covers all tasks."""

    def after_step(self, losses: Tensor, state: State) -> None:
        """The losses ``[T]`` of the same batch after the optimizer's step."""
        raise MissingInputError(f"{self.name} has no use for losses after the step: leave out observe(after=...)")

    def validated(self, losses: Tensor, state: State) -> None:
        """Validation losses ``[T]``."""
        raise MissingInputError(f"{self.name} has no use for validation losses: leave out observe(validation=...)")

    # --- what a method may use ----------------------------------------------------------------------------------------
    def declare_learned(self, name: str, default: float = 0.0, learn: str = "inside") -> None:
        """Declare a learned vector over tasks, trained here or (``"external"``) a Parameter for your own optimizer."""
        if learn not in ("inside", "external"):
            raise OptionError(f"learn must be 'inside' or 'external', got {learn!r}")
        if learn == "inside":
            declare_learned(self, name, default)
        else:
            self.declare_parameter(name, default)

    def learn(self, state: State, name: str, gradient: Tensor, decay: float = 0.0) -> None:
        """Descend the learned ``name`` along its closed-form ``gradient [T]``, once it has been used."""
        if name in self._parameters:
            state.parameter_gradients[name] = gradient
        else:
            adam(state, name, gradient, self.current_learning_rate(), decay)

    def current_learning_rate(self) -> float:
        """The rate of learned weights: the option, else 1e-3."""
        return 1e-3 if self.learning_rate is None else self.learning_rate

    def set_period(self, period: int | None) -> None:
        """Length of a period in optimizer steps; ``None`` waits for `end_epoch`."""
        if period is not None and (not isinstance(period, int) or period < 1):
            raise OptionError(
                f"period must be a whole number of steps of at least 1, or None for epochs, got {period!r}"
            )
        self.period = period

    @property
    def constant_length(self) -> float | None:
        """The length of the gradient that it sends to the shared place, where its formula gives one in all steps."""
        return None

    def loss_stages(self) -> list[Stage]:
        """The stages in front, from left to right."""
        return self._stages

    @property
    def is_blind(self) -> bool:
        """Whether its weights are those chosen beforehand, with no stage in front that looks at losses."""
        return self.looks_at_nothing and all(stage.reweighs for stage in self.loss_stages())

    def prepend_stages(self, stages: Sequence[Stage]) -> None:
        """Put loss stages in front; see `Chain`. What rescaling does is then no longer the method's own promise."""
        check_order(self, [*stages, *self._stages])
        for place, stage in enumerate(stages):
            if stage._task_count or any(stage is other for other in stages[:place]):
                raise OptionError(
                    f"this {type(stage).__name__} stands in a Chain already, and would have one state for both: make "
                    "one for each"
                )
        self.rescaling = "none"
        for stage in stages:
            stage.bind(len(self.tasks))
        self._stages = [*stages, *self._stages]
        self.stages = nn.ModuleList(self._stages)

    def positive_reader(self) -> str | None:
        """Who needs losses of at least zero, if anybody does."""
        for stage in self.loss_stages():
            if stage.positive_losses:
                return type(stage).__name__
        return self.name if self.positive_losses else None

    def reset(self) -> None:
        """Return to the state of a fresh instance (the generator keeps its own)."""
        super().reset()
        for stage in getattr(self, "stages", ()):
            stage.reset()

    def extra_repr(self) -> str:
        shown = ", ".join(self.tasks[:4]) + (f", … {len(self.tasks)} tasks" if len(self.tasks) > 4 else "")
        return f"{shown}; heads={self.heads!r}, scale={self.scale!r}"


def check_order(method: Method, stages: Sequence[Stage]) -> None:
    """Refuse stages that reweigh where there are no weights, or not yet those of the whole line."""
    for before, stage in zip([None, *stages], stages, strict=False):
        if not stage.reweighs:
            continue
        name = type(stage).__name__
        if not method.weighs:
            raise OptionError(f"{method.name} sends a direction that no weights describe: {name} has nothing to change")
        if before is not None and not before.reweighs:
            raise OptionError(
                f"{name} changes the weights that all of the line gives, and {type(before).__name__} stands in front "
                f"of it: put {name} first"
            )


SUMS = "weight_sums"
"""The declared value ``[3, T]`` behind a summary: the number of steps, ``Σ w`` and ``Σ w²``."""
