"""Propose and commit: forward calls propose, the optimizer's step commits.

Between two steps of the optimizer lies a *window* of one or more micro-batches. Each is weighed by the committed
state and its own observation; when the optimizer has stepped, what the window saw, averaged by label counts, is weighed
and the state moves once. A step that did not happen (a gradient scaler found an inf) leaves no trace, nor does a
micro-batch that was given up (`sent_calls.py`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from steelyard.balancing.along_call import AlongCall, Step, refuse_several
from steelyard.balancing.clipping import ClipWatch
from steelyard.balancing.closure import evaluates_often, steps_begun
from steelyard.balancing.micro_batches import Window
from steelyard.balancing.sent_calls import SentCalls, WeighedCall
from steelyard.balancing.weighing import Proposal
from steelyard.base.float64 import double
from steelyard.base.lookahead import Losses, Recompute
from steelyard.base.observation import Seen
from steelyard.base.options import Scale
from steelyard.errors import OptionError, StateError, SteelyardWarning, warn

_KEY = "steelyard"
PATIENCE = 1000
"""Calls since the last step after which the balancer says that the optimizer does not step."""
OTHERS = 25
"""As many, where another optimizer trains the model meanwhile."""


def innermost(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer inside the wrappers of Accelerate, Fabric and Lightning: its hooks see every step that happens.

    The wrappers imitate the class of what they wrap without its hooks, or do not call them.
    """
    while (inner := _wrapped(optimizer)) is not None:
        optimizer = inner
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise OptionError(
            f"attach() takes the optimizer that steps the shared parameters, got a {type(optimizer).__name__}: pass a "
            "torch.optim.Optimizer, as it is or in a trainer's wrapper"
        )
    if not _fires_hooks(optimizer):
        raise OptionError(
            f"attach() got a {type(optimizer).__name__} whose steps nobody is told of: its __init__ does not call "
            "super().__init__(params, defaults), where torch.optim.Optimizer prepares the hooks of a step. Attach the "
            "optimizer that it wraps, or let its __init__ call that of torch.optim.Optimizer"
        )
    return optimizer


def outermost(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The first optimizer on the way to the `innermost` whose steps call hooks: what it adds is a part of its step."""
    around: torch.optim.Optimizer | None = optimizer
    while around is not None and not (isinstance(around, torch.optim.Optimizer) and _fires_hooks(around)):
        around = _wrapped(around)
    return innermost(optimizer) if around is None else around


def checked_scaler(scaler: Any) -> Any:
    """A gradient scaler, torch's or a trainer's, or ``None``."""
    if scaler is not None and not all(callable(getattr(scaler, name, None)) for name in ("is_enabled", "get_scale")):
        raise OptionError(
            f"attach(scaler=) takes the gradient scaler, got a {type(scaler).__name__}: pass the torch.amp.GradScaler "
            "that scales the loss, or leave it away"
        )
    return scaler


def _fires_hooks(optimizer: torch.optim.Optimizer) -> bool:
    """Whether its steps call hooks: what torch.optim.Optimizer.__init__ sees to, which wrappers often do not call."""
    hooks = optimizer.__dict__.get("_optimizer_step_post_hooks")
    return hooks is not None and getattr(type(optimizer).step, "hooked", False) is True


def _wrapped(optimizer: object) -> torch.optim.Optimizer | None:
    """The optimizer inside a wrapper whose own steps fire no hooks, or that forwards them under ``optimizer``."""
    inner = getattr(optimizer, "optimizer", None)
    if isinstance(inner, torch.optim.Optimizer):
        return inner
    if not callable(getattr(optimizer, "step", None)):
        return None
    if isinstance(optimizer, torch.optim.Optimizer) and _fires_hooks(optimizer):
        return None
    held = [each for each in vars(optimizer).values() if isinstance(each, torch.optim.Optimizer)]
    return held[0] if len(held) == 1 else None


def base_of(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer | None:
    """The optimizer inside a sharpness-aware one (``first_step`` up the hill, losses again, ``second_step``)."""
    base = getattr(optimizer, "base_optimizer", None)
    two_steps = callable(getattr(optimizer, "first_step", None)) and callable(getattr(optimizer, "second_step", None))
    return base if two_steps and isinstance(base, torch.optim.Optimizer) else None


class Attached(Protocol):
    """What an attachment asks of its balancer."""

    tasks: tuple[str, ...]
    scale: Scale

    @property
    def name(self) -> str:
        """Registry name."""

    @property
    def constant_length(self) -> float | None:
        """Of the gradient that it sends to the shared place, where its formula gives one."""

    @property
    def needs_after(self) -> bool:
        """Whether it must see the losses again after the step."""

    @property
    def keeps_state(self) -> bool:
        """Whether it weighs by what it has seen before."""

    @property
    def steps(self) -> int:
        """Optimizer steps since the start."""

    def commit_window(self, window: Window, step: Step | None) -> None:
        """Commit what the micro-batches of one step saw together, and what the step teaches."""

    def look_along_step(self, window: Window, calls: Sequence[AlongCall]) -> Step | None:
        """Look along the gradients that the parameters hold now."""

    def hold_window(self, window: Window) -> None:
        """Hold the weights of what they saw for losses at other parameters."""

    def spoils(self, parameters: Iterator[Tensor]) -> bool:
        """Whether gradients are to be left out because they are not finite."""

    def release(self) -> None:
        """Let the weights move again after a closure."""

    def discard(self) -> None:
        """Forget the step under way."""

    def observe(self, *, after: Losses | None = None) -> None:
        """Take the losses after the step."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Restore it."""


def is_bypassed(before: tuple[int, int], parameters: Sequence[Tensor]) -> bool:
    """Whether another optimizer has stepped in each of `OTHERS` calls, and not beside one that accumulates.

    It moves what this one should, or nothing that this one moves has a gradient.

    Args:
        before: at the first of these calls, steps of all optimizers, and how often the first parameter had been
            written to.
        parameters: what this one moves.
    """
    steps, changes = before
    if steps_begun() - steps < OTHERS - 1:
        return False
    return parameters[0]._version > changes or all(parameter.grad is None for parameter in parameters)


def _place(method: str, tasks: Sequence[str], number: int) -> str:
    """Of a balancer in the checkpoint of an optimizer that may have several alike."""
    return f"{method}: {', '.join(tasks)}" + (f" ({number})" if number > 1 else "")


Kind = tuple[str, tuple[str, ...]]
"""A method and its tasks, in any order: what balancers have in common whose states could be taken for each other's."""


def _kind_of(state: Mapping[str, Any]) -> Kind:
    """Of the balancer that a checkpoint's state is of."""
    extra = state.get("_extra_state", {"method": "", "tasks": []})
    return extra["method"], tuple(sorted(extra["tasks"]))


def _was_resumed(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer goes on from a checkpoint: it counts more steps than its parameters were ever changed."""
    for parameter, state in optimizer.state.items():
        # Momentum is not counted: more than making and loading a parameter takes, and less than a warm-up.
        steps = state.get("step", 0 if state.get("momentum_buffer") is None else 16)
        if isinstance(parameter, Tensor) and float(steps) > parameter._version:
            return True
    return False


class Attachment:
    """Ties a balancer to the optimizer whose steps commit its state."""

    def __init__(self, balancer: Attached, optimizer: torch.optim.Optimizer, scaler: Any = None) -> None:
        self.balancer, self.optimizer, self.scaler = balancer, optimizer, scaler
        self.window = Window(balancer.tasks)
        self._again: list[tuple[tuple[str, ...], Tensor, Recompute | None]] = []
        self._calls: list[AlongCall] = []
        self._step: Step | None = None
        self._sent = SentCalls(self.parameters, self._count, self._clear)
        self._moves, self._unsent_told = 0, False
        self.skipping = self.empty = False
        self._before, self._told = (0, 0), False
        self.inside_step = self.evaluates_often = False
        self._clip = ClipWatch(balancer.name, len(balancer.tasks), balancer.constant_length)
        self._clip.done = balancer.scale != "paper"
        self._scale_at_start: float | None = None
        self._resumed = balancer.keeps_state and _was_resumed(base_of(optimizer) or optimizer)
        # Several balancers may share an optimizer; each has its own place in the optimizer's checkpoint.
        self._places: dict[str, Kind] = optimizer.__dict__.setdefault("_steelyard_places", {})
        self._take_place()
        # A sharpness-aware optimizer's own step is a frame around two steps, and not even called where a loop takes
        # these by hand: it is its base that steps.
        base = base_of(optimizer)
        self.stepping = optimizer if base is None else base
        self._handles: list[Any] = [
            self.stepping.register_step_pre_hook(uncompiled(self._before_step)),
            self.stepping.register_step_post_hook(uncompiled(self._after_step)),
            optimizer.register_state_dict_post_hook(self._save),
            optimizer.register_load_state_dict_pre_hook(self._load),
        ]
        if base is not None:
            self._handles.append(optimizer.register_step_pre_hook(self._before_both_steps))
            self._handles.append(_AroundCall(optimizer, "first_step", self._before_first_step, self._after_first_step))

    def _take_place(self) -> None:
        number = 1
        while (place := _place(self.balancer.name, self.balancer.tasks, number)) in self._places:
            number += 1
        self.place, self._number = place, number
        self._places[place] = self._kind

    def rename(self) -> None:
        """The balancer's tasks have changed, and with them its place in the optimizer's checkpoint."""
        self._places.pop(self.place, None)
        self._take_place()
        self.discard()

    @property
    def _kind(self) -> Kind:
        return self.balancer.name, tuple(sorted(self.balancer.tasks))

    def remove(self) -> None:
        """Take the hooks off the optimizer."""
        for handle in self._handles:
            handle.remove()
        self._places.pop(self.place, None)

    def parameters(self) -> Iterator[Tensor]:
        """What the optimizer moves."""
        return (parameter for group in self.optimizer.param_groups for parameter in group["params"])

    # --- the window -------------------------------------------------------------------------------------------------
    def before_forward(self, *, again: bool) -> None:
        """Discard a window whose step a gradient scaler skipped: plain optimizers are then not even called.

        With ``again`` the losses are those of the step under way at other parameters, and gradients may be cleared.
        """
        if self.window.calls and not again:
            self._sent.look()
        if self.scaler is None or not self.scaler.is_enabled():
            return
        if self._open() and self._scale_at_start is not None and self.scaler.get_scale() < self._scale_at_start:
            self.discard()
        if not self._open():
            self._scale_at_start = self.scaler.get_scale()

    @property
    def under_way(self) -> bool:
        """Whether a step has begun: a call counts, or may yet be sent backward."""
        return self.window.calls > 0 or self._sent.waiting

    def _open(self) -> bool:
        return self.window.calls > 0 or self.skipping or self.empty

    def add(
        self, result: Tensor, seen: Seen, proposal: Proposal, again: Recompute | None, along: AlongCall | None
    ) -> None:
        """One micro-batch has been weighed; it counts once its result is sent backward."""
        if self._resumed:
            self._warn_of_lost_state()
        self._sent.add(result, WeighedCall(seen, proposal, again, along, self._moves))
        if self._sent.called == 1:
            self._before = steps_begun(), self._changes()
        if self._sent.called == PATIENCE:
            self._warn_of_no_step("")
        elif self._sent.called == OTHERS and not self._told and self._is_bypassed():
            self._told = True
            self._warn_of_no_step(", while another optimizer has")

    def _count(self, call: WeighedCall) -> None:
        self.window.add(call.seen, call.proposal)
        if call.moves != self._moves:
            self.window.expire()
        if not self._clip.done:
            self._clip.weighed(call.proposal.weights)
        if self.balancer.needs_after:
            self._again.append((call.seen.tasks, call.seen.counts, call.again))
        if call.along is not None:
            if self._calls and call.along.products is not None:
                refuse_several(self.balancer.name)
            self._calls.append(call.along)

    def _changes(self) -> int:
        """How often the first of what the optimizer moves has been written to."""
        return next(iter(self.parameters()))._version

    def _is_bypassed(self) -> bool:
        return is_bypassed(self._before, list(self.parameters()))

    def _warn_of_no_step(self, meanwhile: str) -> None:
        warn(
            f"{self.balancer.name} is attached to an optimizer ({type(self.optimizer).__name__}) that has not "
            f"stepped in {self._sent.called:,} calls{meanwhile}, so its state stands still: attach the optimizer that "
            "trains the model now, or call balancer.discard() for steps that are left out",
            SteelyardWarning,
        )

    def _warn_of_nothing_sent(self) -> None:
        self._unsent_told = True
        warn(
            f"{type(self.optimizer).__name__} has stepped, and no result of {self.balancer.name}, which is attached to "
            "it, was sent backward: a call counts with its backward(), so the state stands still. Call backward() on "
            "what the balancer returns; or, where you read last_weights alone, do not attach it: each call then counts",
            SteelyardWarning,
        )

    def _warn_of_lost_state(self) -> None:
        self._resumed = False
        if self.balancer.steps == 0:
            warn(
                f"{self.balancer.name} was attached to an optimizer that goes on from a checkpoint, and starts afresh: "
                "torch drops the balancer's state in that checkpoint where nobody waits for it. Call attach(optimizer) "
                "first and optimizer.load_state_dict(...) after it, or load balancer.state_dict() too. Where the "
                "balancer is new, this is as it should be",
                SteelyardWarning,
            )

    def nothing_to_do(self, *, skip_step: bool) -> None:
        """A micro-batch had nothing to balance; with ``skip_step`` its whole window must not step."""
        self.skipping = self.skipping or skip_step
        self.empty = True

    def expire(self) -> None:
        """The state has moved: what calls lead to, of those that wait for the step, is asked of the new one."""
        self._moves += 1
        self.window.expire()

    def discard(self) -> None:
        """Forget the open window, and the calls whose results may yet be sent backward."""
        self._clear()
        self._sent.forget()

    def _clear(self) -> None:
        """Begin a new window."""
        self.window, self._again, self._calls, self._step = Window(self.balancer.tasks), [], [], None
        self.skipping = self.empty = False

    # --- the optimizer's hooks --------------------------------------------------------------------------------------
    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> Any:
        if self.scaler is not None and not any(group.get("lr", 1.0) for group in optimizer.param_groups):
            # torch.distributed.checkpoint prepares an optimizer by a step at rate 0: none of a window that was skipped.
            self.before_forward(again=True)
        self._withhold_gradients()
        if not self._clip.done:
            self._clip.stepping(self.parameters())
        self.evaluates_often = evaluates_often(optimizer)
        with_closure = _with_closure(args, kwargs, self._guarded)
        if with_closure is None:  # else the gradients come with the closure
            self._look_along()
        return with_closure

    def _look_along(self) -> None:
        """What the step's own direction does to every task, before it is taken."""
        if self._calls and self._step is None and not self.skipping:
            self._step = self.balancer.look_along_step(self.window, self._calls)
            self._calls = []

    def _before_both_steps(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> Any:
        return _with_closure(args, kwargs, self._discarding)

    def _before_first_step(self) -> None:
        """Let a window that is skipped climb nowhere: without any gradient the optimizer would fail."""
        self.skipping = self._is_skipped() or self._spoiled()
        if self.skipping:
            for parameter in self.parameters():
                parameter.grad = torch.zeros_like(parameter)
        self._look_along()

    def _after_first_step(self) -> None:
        """The parameters have climbed: the losses there have the weights of those before, and are not observed."""
        if self.window.calls:
            self.balancer.hold_window(self.window)

    def _withhold_gradients(self) -> None:
        """Leave a skipped window's step without gradients.

        The one place where a balancer touches ``.grad``: zero gradients would still move momentum and weight decay.
        """
        self.skipping = self._is_skipped() or self._spoiled()
        if self.skipping:
            for parameter in self.parameters():
                parameter.grad = None

    def _spoiled(self) -> bool:
        """Whether losses that were finite had gradients that are not; a gradient scaler looks for itself."""
        scaled = self.scaler is not None and self.scaler.is_enabled()
        return bool(self.window.calls) and not scaled and self.balancer.spoils(self.parameters())

    def _is_skipped(self) -> bool:
        return self.skipping or (self.empty and not self.window.calls)

    def _guarded(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """A closure that raises ends the step: its weights must not hold on. One that skips leaves no gradients."""

        closure = self._discarding(closure)

        @functools.wraps(closure)
        def guarded() -> Any:
            self.inside_step = True  # here alone: a step without a closure that fails must not seem to go on
            try:
                value = closure()
            finally:
                self.inside_step = False
            self._withhold_gradients()
            self._look_along()
            return value

        return guarded

    def _discarding(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        @functools.wraps(closure)
        def discarding() -> Any:
            try:
                return closure()
            except BaseException:
                self.balancer.discard()
                raise

        return discarding

    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self.balancer.release()
        called = self._sent.called
        self._sent.begin()
        # Fused optimizers are called on overflow too, and skip inside.
        found_inf = getattr(optimizer, "found_inf", None)
        if self.skipping or (isinstance(found_inf, Tensor) and bool(found_inf.item())):
            self._clear()
            return
        if not self.window.calls:
            if called and not self._unsent_told:
                self._warn_of_nothing_sent()
            return
        window, again, step = self.window, self._again, self._step
        self._clear()
        self._moves += 1
        self.balancer.commit_window(window, step)
        if again and all(recompute is not None for *_, recompute in again):
            self._look_again(again)

    def _look_again(self, window: list[tuple[tuple[str, ...], Tensor, Recompute | None]]) -> None:
        """Recompute the window's losses at the new parameters, averaged like the observations before the step."""
        total: dict[str, Tensor] = {}
        labels: dict[str, Tensor] = {}
        with torch.no_grad():
            for tasks, counts, again in window:
                assert again is not None
                losses: Mapping[str, Tensor | None] = again()
                for name, count in zip(tasks, counts, strict=True):
                    loss = losses.get(name)
                    if loss is not None:
                        total[name] = total.get(name, 0) + count * double(loss.detach())
                        labels[name] = labels.get(name, 0) + count
            if total:
                self.balancer.observe(after={name: total[name] / labels[name] for name in total})

    def _save(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        state.setdefault(_KEY, {})[self.place] = self.balancer.state_dict()

    def _held_place(self, held: Mapping[str, Any]) -> str | None:
        """Where the balancer's state is in a checkpoint: under its tasks, or under the same in another order.

        Raises:
            StateError: the checkpoint has more balancers of this method and these tasks than are attached.
        """
        alike = [place for place, state in held.items() if _kind_of(state) == self._kind]
        attached = list(self._places.values()).count(self._kind)
        if len(alike) > attached:
            last = alike[-1]
            raise StateError(
                f"the optimizer's checkpoint holds the states of {len(alike)} balancers of {self.balancer.name} with "
                f"these tasks ({'; '.join(f'{place!r}' for place in alike)}), and {attached} attached here: attach "
                "as many, in the same order; or, where one of them took the place of another, keep the state that is "
                f"meant, checkpoint[{_KEY!r}] = {{{self.place!r}: checkpoint[{_KEY!r}][{last!r}]}}"
            )
        if self.place in held:
            return self.place
        for place in alike:
            extra = held[place]["_extra_state"]
            if place == _place(extra["method"], extra["tasks"], self._number):
                return place
        return None

    def _load(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        held = state.get(_KEY, {})
        self._resumed = False
        place = self._held_place(held)
        if place is not None:
            self.balancer.load_state_dict(held[place])
        elif held:
            raise StateError(
                f"the optimizer's checkpoint holds the balancer state of {'; '.join(held)}, and this balancer is "
                f"{self.place}: make the balancer of the checkpoint, or attach this one after loading"
            )
        elif self.balancer.steps == 0:
            warn(
                "the optimizer's checkpoint holds no balancer state (saved before the balancer was attached, or by a "
                "tool that drops foreign entries): load balancer.state_dict() too, or the balancer starts afresh",
                SteelyardWarning,
            )


def uncompiled(hook: Callable[..., Any]) -> Callable[..., Any]:
    """A hook that runs as it is within a step that is compiled: what it counts would have the step compiled anew."""

    @functools.wraps(hook)
    def run(*args: Any) -> Any:
        if torch.compiler.is_compiling():
            uncompiled: Callable[..., Any] = torch.compiler.disable(hook)  # type: ignore[no-untyped-call]
            return uncompiled(*args)
        return hook(*args)

    return run


class _AroundCall:
    """Calls back around a method of one object, for optimizers without a hook there; removed as hooks are."""

    def __init__(self, owner: Any, name: str, before: Callable[[], None], after: Callable[[], None]) -> None:
        self._owner, self._name = owner, name
        self._covered = vars(owner).get(name)  # another balancer's
        method = getattr(owner, name)

        @functools.wraps(method)
        def calling(*args: Any, **kwargs: Any) -> Any:
            if self._removed:
                return method(*args, **kwargs)
            before()
            result = method(*args, **kwargs)
            after()
            return result

        self._removed = False
        self._calling = calling
        setattr(owner, name, calling)

    def remove(self) -> None:
        """Take it off; where another one lies over it, it stays and does nothing."""
        self._removed = True
        if vars(self._owner).get(self._name) is self._calling:
            delattr(self._owner, self._name)
            if self._covered is not None:
                setattr(self._owner, self._name, self._covered)


def _with_closure(args: Any, kwargs: Any, wrap: Callable[[Callable[[], Any]], Callable[[], Any]]) -> Any:
    """The arguments of an optimizer's step, its closure wrapped; ``None`` where it has none."""
    # The first argument is the optimizer itself.
    if len(args) > 1 and callable(args[1]):
        return (args[0], wrap(args[1]), *args[2:]), kwargs
    if callable(kwargs.get("closure")):
        return args, {**kwargs, "closure": wrap(kwargs["closure"])}
    return None
