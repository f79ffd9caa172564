"""Losses once more: the function that methods which look ahead or back call as ``again``."""

from __future__ import annotations

import pickle
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrize

from steelyard.base.lookahead import Losses


class Again:
    """``f(params=None, batch=None) -> losses``, made by `losses_of`.

    Attributes:
        held_out: the further batch on which the effect of a step may be judged; ``None``: none was given.
        replays: whether a call draws what the losses at hand drew (dropout, skipped layers), as its maker says.
        drew: whether the last call drew random numbers.
    """

    replays = False
    drew = False

    def __init__(
        self, model: nn.Module, fn: Callable[[Callable[..., Any], Any], Losses], batch: Any, held_out: Any = None
    ) -> None:
        self._model, self._fn, self._batch = model, fn, batch
        self.held_out = held_out

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The trainable parameters by the names under which ``f`` takes others in their place."""
        return {name: parameter for name, parameter in self._model.named_parameters() if parameter.requires_grad}

    def __call__(self, params: Mapping[str, Tensor] | None = None, batch: Any = None) -> Losses:
        # Running statistics move on copies, and the draws of dropout are taken back: two calls draw the same. What a
        # module keeps besides (a hidden state, a counter) is put back.
        buffers = {name: buffer.clone() for name, buffer in self._model.named_buffers()}
        devices = sorted({tensor.device.index for tensor in self._model.parameters() if tensor.is_cuda})

        def call(*args: Any, **kwargs: Any) -> Any:
            return functional_call(self._model, {**buffers, **(params or {})}, args, kwargs)

        torchs, others = _torchs_states(devices), _other_states()
        with torch.random.fork_rng(devices=devices), _attributes_put_back(self._model), _own_cache():
            try:
                return self._fn(call, self._batch if batch is None else batch)
            finally:
                self.drew = _put_back(others) or any(
                    not torch.equal(now, before) for now, before in zip(_torchs_states(devices), torchs, strict=True)
                )


@contextmanager
def _attributes_put_back(model: nn.Module) -> Iterator[None]:
    """What modules hold as attributes and buffers, or nothing in their place, is afterwards what it was."""
    tables = [table for module in _modules(model) for table in (vars(module), module._buffers)]
    before = [table.copy() for table in tables]
    try:
        yield
    finally:
        for now, then in zip(tables, before, strict=True):
            now.update(then)  # all of them: to ask which are others takes as long as the layers themselves
            if len(now) > len(then):
                for name in now.keys() - then.keys():
                    del now[name]


@contextmanager
def _own_cache() -> Iterator[None]:
    """Within `parametrize.cached()` weights are computed once, from the model's parameters: here from those lent to it.

    Switched off, it would compute anew what two uses share, and draw or move it twice (spectral norm).
    """
    if not getattr(parametrize, "_cache_enabled", False):  # torch's own names since 1.9; a test holds them
        yield
        return
    kept, parametrize._cache = parametrize._cache, {}
    try:
        yield
    finally:
        parametrize._cache = kept


def _modules(model: nn.Module) -> list[nn.Module]:
    """Each once, in a fraction of the time of `nn.Module.modules`, which names them on the way."""
    found = {id(model): model}
    stack = [model]
    while stack:
        for child in stack.pop()._modules.values():
            if child is not None and id(child) not in found:
                found[id(child)] = child
                stack.append(child)
    return list(found.values())


def _torchs_states(devices: list[int]) -> list[Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in devices)]


def _other_states() -> tuple[Any, bytes | None]:
    """Of Python's generator and of numpy's, by which some models choose the layers that they skip."""
    numpy = sys.modules.get("numpy")
    return random.getstate(), None if numpy is None else pickle.dumps(numpy.random.get_state(legacy=False))


def _put_back(before: tuple[Any, bytes | None]) -> bool:
    """Whether they had moved."""
    pythons, numpys = (now != then for now, then in zip(_other_states(), before, strict=True))
    if pythons:
        random.setstate(before[0])
    if numpys and before[1] is not None:
        sys.modules["numpy"].random.set_state(pickle.loads(before[1]))
    return pythons or (numpys and before[1] is not None)


def losses_of(
    model: nn.Module, fn: Callable[[Callable[..., Any], Any], Losses], batch: Any, held_out: Any = None
) -> Again:
    """Build the ``again`` argument of a balancer: ``f(params=None, batch=None) -> losses``.

    The model stays as it is: other parameters are lent to it for the call alone, running statistics are moved on
    copies, attributes that its modules set (a hidden state, a counter) are put back, and the random generators of
    torch, Python and numpy are left where they were, so that every call draws the same dropout and skips the same
    layers. What is changed in place is not seen: a list that grows, a tensor that is no buffer and is written into.
    A state that goes from batch to batch is what the forward pass at hand left behind, in every call.

    Args:
        model: evaluated with its own parameters, or with the ones handed to ``f`` in their place. Under
            `DistributedDataParallel`, the module inside it.
        fn: ``fn(call, batch) -> losses``, where ``call(*inputs)`` stands for ``model(*inputs)``.
        batch: the batch that ``f`` uses unless it is given another.
        held_out: a second batch, for methods that judge a step on samples that it was not made from.

    Example::

        def losses_on(call, batch):
            seg, depth = call(batch["image"])
            return {"seg": cross_entropy(seg, batch["seg"]), "depth": l1_loss(depth, batch["depth"])}

        loss = balancer(losses, again=losses_of(model, losses_on, batch))

    Example:
        >>> model, x = nn.Linear(1, 1, bias=False), torch.ones(1, 1)
        >>> again = steelyard.losses_of(model, lambda call, x: {"a": call(x).sum()}, x)
        >>> zero = {"weight": torch.zeros(1, 1)}
        >>> again(zero)["a"].item()  # at other parameters; the model stays as it is
        0.0
    """
    return Again(model, fn, batch, held_out)
