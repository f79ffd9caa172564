"""The function that methods which look ahead or back call to recompute losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

Losses = Mapping[str, Tensor | None]


def losses_of(model: nn.Module, fn: Callable[[Callable[..., Any], Any], Losses], batch: Any) -> Callable[..., Losses]:
    """Build the ``again`` argument of a balancer: ``f(params=None, batch=None) -> losses``.

    Args:
        model: evaluated with its own parameters, or with the ones handed to ``f``, which leave the module untouched.
        fn: ``fn(call, batch) -> losses``, where ``call(*inputs)`` stands for ``model(*inputs)``.
        batch: the batch that ``f`` uses unless it is given another.

    Example::

        def losses_on(call, batch):
            seg, depth = call(batch["image"])
            return {"seg": cross_entropy(seg, batch["seg"]), "depth": l1_loss(depth, batch["depth"])}

        loss = balancer(losses, again=losses_of(model, losses_on, batch))
    """
    default = batch

    def again(params: Mapping[str, Tensor] | None = None, batch: Any = None) -> Losses:
        def call(*args: Any, **kwargs: Any) -> Any:
            if params is None:
                return model(*args, **kwargs)
            return functional_call(model, dict(params), args, kwargs)

        return fn(call, default if batch is None else batch)

    return again
