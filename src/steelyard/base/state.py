"""Declared state: named once, with its default and its reduction over ranks, and thereby reset, saved and restored.

A method never assigns buffers. It receives a `State`, a working copy of the declared values, rebinds what changes and
leaves the rest; the balancer decides whether that proposal is committed. Values are replaced, never written in place,
so a proposal that is thrown away leaves no trace and a state dict taken earlier stays what it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from steelyard.base.option_types import ConstructorSignature, check_types

Reduction = Literal["same", "mean", "sum", "max", "first"]
"""How `synchronise` of `balancing/distributed` makes one value of the ranks'; ``"same"``: they never differ."""

TASKS = "T"
"""Stands in a declared shape for the number of tasks."""
ELEMENTS = "P"
"""Stands in a declared shape for the number of elements of a task gradient: known when the trunk is, else once the
first has been read."""


@dataclass(frozen=True)
class Declaration:
    """One declared value: its name, shape (with `TASKS` for an axis over tasks), default and rank reduction."""

    name: str
    shape: tuple[int | str, ...]
    default: float
    reduce: Reduction

    @property
    def by_element(self) -> bool:
        """Whether it is as large as the task gradients: float32 or better, and empty while their size is unknown."""
        return ELEMENTS in self.shape

    @property
    def task_axes(self) -> tuple[int, ...]:
        return tuple(axis for axis, size in enumerate(self.shape) if size == TASKS)

    def initial(self, tasks: int, elements: int, dtype: torch.dtype) -> Tensor:
        """The default, for so many tasks and elements of a task gradient, which is read in ``dtype``."""
        shape = [tasks if size == TASKS else elements if size == ELEMENTS else int(size) for size in self.shape]
        return torch.full(shape, float(self.default), dtype=dtype if self.by_element else torch.float64, device="cpu")


class State:
    """Working copy of declared values; only declared names can be set, so a typing error cannot lose state.

    Example:
        >>> balancer = steelyard.EMA(["a", "b"])
        >>> state = balancer.working_state()  # a copy: what is set in it moves nothing until it is committed
        >>> state.average = torch.tensor([1.0, 2.0], dtype=torch.float64)
        >>> balancer.commit(state)
        >>> balancer.committed("average")
        tensor([1., 2.], dtype=torch.float64)
    """

    _values: dict[str, Tensor]
    _rebound: set[str]
    parameter_gradients: dict[str, Tensor]
    """Closed-form gradients of values that an outside optimizer learns, by name."""

    def __init__(self, values: dict[str, Tensor]) -> None:
        object.__setattr__(self, "_values", values)
        object.__setattr__(self, "_rebound", set())
        object.__setattr__(self, "parameter_gradients", {})

    def __getattr__(self, name: str) -> Tensor:
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(f"no state {name!r} was declared; declared: {', '.join(self._values)}") from None

    def __setattr__(self, name: str, value: Tensor) -> None:
        if name not in self._values:
            raise AttributeError(f"no state {name!r} was declared; declared: {', '.join(self._values)}")
        self._values[name] = value
        self._rebound.add(name)

    def only(self, name: str) -> State:
        """One of the values, as set."""
        part = State({name: self._values[name]})
        part._rebound.update(self._rebound & {name})
        return part

    def rebound(self) -> list[tuple[str, Tensor]]:
        """The values that were set since the copy was made."""
        return [(name, value) for name, value in self._values.items() if name in self._rebound]


class Stateful(nn.Module):
    """A module whose state is declared; buffers hold the committed values in float64, wherever the losses live."""

    __signature__ = ConstructorSignature()

    def __new__(cls, *arguments: Any, **options: Any) -> Any:
        # Here, so that every method and stage, of other packages too, is spared values of the wrong type.
        check_types(cls, arguments, options)
        return super().__new__(cls)

    def __init__(self) -> None:
        super().__init__()
        self._declared: dict[str, Declaration] = {}
        self._task_count = 0

    def elements(self) -> tuple[int, torch.dtype]:
        """Elements of a task gradient and the dtype that they are read in, as far as is known before the first."""
        return 0, torch.float32

    def declare(
        self,
        name: str,
        shape: Sequence[int | str] = (TASKS,),
        default: float = 0.0,
        reduce: Reduction = "same",
    ) -> None:
        """Declare one value of the state, e.g. ``declare("average")`` or ``declare("history", (2, "T"))``."""
        if name in self._declared:
            raise ValueError(f"the state {name!r} is declared twice")
        self._declared[name] = Declaration(name, tuple(shape), default, reduce)
        if self._task_count:
            self.register_buffer(name, self._declared[name].initial(self._task_count, *self.elements()))

    def declare_parameter(self, name: str, default: float = 0.0) -> None:
        """Declare one value per task as a Parameter: an outside optimizer trains it, commits leave it alone."""
        self._declared[name] = Declaration(name, (TASKS,), default, "same")
        self.register_parameter(name, nn.Parameter(torch.full((self._task_count,), float(default), device="cpu")))

    def bind(self, tasks: int) -> None:
        """Give every declared value its shape, now that the number of tasks is known."""
        self._task_count = tasks
        self.reset()

    def rebind(self, kept: Sequence[int | None]) -> None:
        """Change the tasks: where each comes from among the old ones, ``None`` for one that starts at its default."""
        self._task_count = len(kept)
        new = [place for place, old in enumerate(kept) if old is not None]
        for name, declaration in self._declared.items():
            value, axes = self.committed(name), declaration.task_axes
            if not axes:
                continue
            initial = declaration.initial(len(kept), *self.elements()).to(value.device)
            if declaration.by_element:
                initial = value.new_zeros(len(kept), *value.shape[1:])
            places = torch.tensor([kept[place] for place in new], dtype=torch.long, device=value.device)
            for axis in axes:
                value = value.index_select(axis, places)
            grid: list[Any] = [slice(None)] * value.dim()
            if len(axes) == 1:
                grid[axes[0]] = new
            else:
                there = torch.tensor(new, dtype=torch.long, device="cpu")
                grid = list(torch.meshgrid(*[there for _ in axes], indexing="ij"))
            initial[tuple(grid)] = value
            self._buffers[name] = initial

    def reset(self) -> None:
        """Return every declared value to its default; what an outside optimizer learns is left to it."""
        for name, declaration in self._declared.items():
            if name in self._parameters:
                continue
            current = self._buffers.get(name)
            initial = declaration.initial(self._task_count, *self.elements())
            self.register_buffer(name, initial if current is None else initial.to(current.device))

    def working_state(self, index: Tensor | None = None) -> State:
        """The committed values, restricted to the tasks at ``index`` along every task axis."""
        values: dict[str, Tensor] = {}
        for name, declaration in self._declared.items():
            value = self.committed(name)
            if index is not None:
                for axis in declaration.task_axes:
                    value = value.index_select(axis, index)
            values[name] = value
        return State(values)

    def commit(self, state: State, index: Tensor | None = None) -> None:
        """Commit what a working state has rebound; tasks that are not at ``index`` keep what they had.

        Values that were left alone stay as they are *now*: something else (`Balancer.observe`, the end of an epoch)
        may have moved them since the working copy was made.
        """
        for name, value in state.rebound():
            if name in self._parameters:
                continue
            axes = self._declared[name].task_axes
            if index is not None and axes:
                whole = self.committed(name).clone()
                if self._declared[name].by_element and whole.shape[1:] != value.shape[1:]:
                    whole = value.new_zeros(self._task_count, *value.shape[1:])
                if len(axes) == 1:
                    whole.index_copy_(axes[0], index, value)
                else:
                    grid = torch.meshgrid(*[index for _ in axes], indexing="ij")
                    whole[tuple(grid)] = value
                value = whole
            self._buffers[name] = value

    def narrowed(self, state: State, positions: Tensor, leave: str = "") -> State:
        """What a working state has rebound, restricted to the tasks at ``positions`` of it, but for ``leave``."""
        rebound = {}
        for name, value in state.rebound():
            if name != leave:
                for axis in self._declared[name].task_axes:
                    value = value.index_select(axis, positions)
                rebound[name] = value
        narrow = State(rebound)
        narrow._rebound.update(rebound)
        narrow.parameter_gradients.update((name, each[positions]) for name, each in state.parameter_gradients.items())
        return narrow

    def committed(self, name: str) -> Tensor:
        """The value of one declared name."""
        if name in self._parameters:
            parameter: Tensor = getattr(self, name)
            return parameter.detach().double()
        value = self._buffers[name]
        assert value is not None
        return value

    def declarations(self) -> tuple[Declaration, ...]:
        """What was declared, in order."""
        return tuple(self._declared.values())

    def reordered(self, saved: dict[str, Any], prefix: str, order: Sequence[int]) -> None:
        """Bring the saved values under ``prefix`` into another order of the tasks, from where each comes."""
        for name, declaration in self._declared.items():
            value = saved.get(prefix + name)
            if isinstance(value, Tensor):
                places = torch.tensor(order, dtype=torch.long, device=value.device)
                for axis in declaration.task_axes:
                    value = value.index_select(axis, places)
                saved[prefix + name] = value

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # `.half()` and `.bfloat16()` on a whole model would round the state, and `.to_empty()`, which brings a model
        # from the meta device, would leave what the memory held: follow the device, keep the numbers.
        before = {name: self._buffers[name] for name in self._declared if name in self._buffers}
        for name, value in before.items():
            self._buffers[name] = None if value is None else value.new_empty(0)
        try:
            super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        finally:
            for name, value in before.items():
                moved = self._buffers[name]
                if value is not None and moved is not None:
                    value = self._on(moved.device, name, value)
                self._buffers[name] = value
        return self

    def _on(self, device: torch.device, name: str, value: Tensor) -> Tensor:
        """A value on a device; on the meta device it had none but its default."""
        if value.is_meta and device.type != "meta":
            return self._declared[name].initial(self._task_count, *self.elements()).to(device)
        return value.to(device)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        # Loading writes in place: give each value storage of its own first, so that nothing aliases.
        for name, declaration in self._declared.items():
            if (value := self._buffers.get(name)) is not None:
                saved = state_dict.get(prefix + name)
                if saved is not None and declaration.by_element and saved.shape != value.shape:
                    value = torch.empty_like(saved, device=value.device)
                self._buffers[name] = value.clone()
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
