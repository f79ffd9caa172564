"""Forward-mode differentiation of a network along a direction of some of its parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

_BILINEAR = {
    functional.linear,
    *(torch.conv1d, torch.conv2d, torch.conv3d),
    *(torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d),
}
"""``f(inputs, weight, bias, …)``: linear in the inputs, and in weight and bias together."""


@contextmanager
def along_a_direction() -> Iterator[None]:
    """Where tensors may be dual; fused attention, which has no formula there, runs by its plain one."""
    with forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH), _WithoutZeros():
        yield


def dual(value: Tensor, tangent: Tensor) -> Tensor:
    """A value that changes at that speed."""
    made: Tensor = forward_ad.make_dual(value, tangent)  # type: ignore[no-untyped-call]
    return made


def tangent_of(value: Tensor) -> Tensor | None:
    """``None`` of what does not depend on anything that changes."""
    return _parts(value)[1]


def _parts(value: Tensor) -> tuple[Tensor, Tensor | None]:
    primal, tangent = forward_ad.unpack_dual(value)  # type: ignore[no-untyped-call]
    return primal, tangent


class _WithoutZeros(TorchFunctionMode):
    """Layers without what torch multiplies by zero: the weight's tangent where the direction leaves a layer out, as
    each head, and the input's at the first layer.

    Not where a graph is recorded: a loss that differentiates the network (a physics-informed one) goes back through
    what the layer has saved, which must change along the direction too. Torch's own rule saves that.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = dict(kwargs or {})
        if func in _BILINEAR and len(args) > 1 and not torch.is_grad_enabled():
            bias = args[2] if len(args) > 2 else options.pop("bias", None)
            return _bilinear(func, args[0], args[1], bias, args[3:], options)
        return func(*args, **options)


def _bilinear(
    layer: Callable[..., Tensor], inputs: Tensor, weight: Tensor, bias: Tensor | None, rest: Any, options: Any
) -> Tensor:
    def at(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return layer(inputs, weight, bias, *rest, **options)

    (x, dx), (W, dW) = _parts(inputs), _parts(weight)
    b, db = (None, None) if bias is None else _parts(bias)
    if dx is None and dW is None:
        return at(inputs, weight, bias)
    if dW is None:
        assert dx is not None
        tangent = at(dx, W, db)
    else:
        tangent = at(x, dW, db)
        if dx is not None:
            tangent += at(dx, W, None)
    return dual(at(x, W, b), tangent)
