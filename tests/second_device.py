"""A second device on machines without one: its tensors lie on the CPU, and mixing them with the CPU's is an error.

``second:0`` is torch's device for other people's backends, with Python in the place of a driver: operations on its
tensors are carried out by the CPU, bit for bit, in autograd's usual way. What CUDA refuses is refused here: two devices
in one operation (but numbers without dimensions, copies, and indices from the CPU), and NumPy's view of its tensors.
With ``float64=False`` it has none, as MPS: none is made there, and no number of it is copied into the CPU's in one go.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

NAME = "second"
aten = torch.ops.aten
MIXED = {aten.copy_.default, aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._to_copy.default}
READ = {aten._local_scalar_dense.default, aten.equal.default, aten.is_same_size.default}


class There(Tensor):
    """A tensor on the second device."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> There:
        layout = {"strides": here.stride(), "storage_offset": here.storage_offset(), "dtype": here.dtype}
        made = Tensor._make_wrapper_subclass(cls, here.size(), device=torch.device(f"{NAME}:0"), **layout)
        made.here = here
        return made

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return carry_out(function, args, kwargs or {})

    def __getitem__(self, key: Any) -> Tensor:
        return super().__getitem__(_index(key))

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(_index(key), value)

    def tolist(self) -> Any:
        MODULE.waits += 1
        return self.here.tolist()

    def __repr__(self) -> str:
        return f"There({self.here!r})"


def _index(key: Any) -> Any:
    """Lists become tensors behind a dispatch mode's back."""
    return torch.tensor(key, dtype=torch.long) if isinstance(key, list) else key


class TwoDevicesError(RuntimeError):
    """Two devices in one operation."""


def carry_out(function: Any, args: Any, kwargs: Any) -> Any:
    tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
    on_cpu = [each for each in tensors if not isinstance(each, There)]
    if on_cpu and len(on_cpu) < len(tensors) and function not in MIXED:
        numbers = all(each.dim() == 0 for each in on_cpu) and torch.Tag.pointwise in function.tags
        if not numbers:
            shapes = [f"{list(each.shape)} on {each.device}" for each in tensors]
            raise TwoDevicesError(f"{function} of {', '.join(shapes)}")
    device = kwargs.get("device")
    stays = torch.device(device).type == NAME if device is not None else len(on_cpu) < len(tensors)
    if device is not None:
        kwargs = {**kwargs, "device": torch.device("cpu"), **({"pin_memory": False} if "pin_memory" in kwargs else {})}
    inner_args, inner_kwargs = tree_map(lambda each: each.here if isinstance(each, There) else each, (args, kwargs))
    found = function(*inner_args, **inner_kwargs)
    if MODULE is not None and waits(function, tensors, stays):
        MODULE.waits += 1
    if function in READ:
        return found
    if MODULE is not None and not MODULE.has_float64:
        _refuse_float64(function, tensors, found, stays)
    if not stays:
        return found
    if torch.Tag.inplace_view in function.tags:  # of shapes, which the wrapper has its own of
        with no_dispatch():
            function(*args, **kwargs)
    if function._schema.is_mutable:
        given = {id(inner): outer for outer, inner in _pairs(args, kwargs)}
        return tree_map(lambda each: given.get(id(each), each), found)
    return tree_map(lambda each: There(each) if isinstance(each, Tensor) else each, found)


def waits(function: Any, tensors: list[Tensor], stays: bool) -> bool:
    """Whether the program waits for the device: for a number, for a copy on the CPU, for a shape that numbers make."""
    if not any(isinstance(each, There) for each in tensors) or function is aten.is_same_size.default:
        return False
    if function is aten.copy_.default:
        return not isinstance(tensors[0], There)
    masks = function is aten.index.Tensor and any(each.dtype == torch.bool for each in tensors[1:])
    moved = function is aten._to_copy.default and not stays
    return function in READ or moved or masks or torch.Tag.dynamic_output_shape in function.tags


def _refuse_float64(function: Any, tensors: list[Tensor], found: Any, stays: bool) -> None:
    """As MPS does: it has none there, and copies none from there to the CPU in one go."""
    copied = function in (aten._to_copy.default, aten.copy_.default) and any(isinstance(t, There) for t in tensors)
    if (stays or copied) and any(isinstance(t, Tensor) and t.dtype == torch.float64 for t in tree_leaves(found)):
        raise TypeError(f"{function}: {NAME} has no float64")


def _pairs(args: Any, kwargs: Any) -> Iterator[tuple[There, Tensor]]:
    for each in tree_leaves((args, kwargs)):
        if isinstance(each, There):
            yield each, each.here


class Driver(TorchDispatchMode):
    """Sees what is made on the device, or moved there."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        device = kwargs.get("device")
        if device is not None and torch.device(device).type == NAME:
            return carry_out(function, args, kwargs)
        return function(*args, **kwargs)


class Literals(TorchFunctionMode):
    """``torch.tensor(…, device=)`` copies behind a dispatch mode's back."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if function in (torch.tensor, torch.as_tensor) and torch.device(kwargs.get("device") or "cpu").type == NAME:
            device = kwargs.pop("device")
            return function(*args, **kwargs).to(device)
        return function(*args, **kwargs)


class Module:
    """What `torch.cuda` is to CUDA. Dropout on this device draws from the CPU's generator, which torch keeps."""

    free, peak, drawn = 2**30, 0, 0
    has_float64, waits = True, 0

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True

    def _is_in_bad_fork(self) -> bool:
        return False

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def manual_seed_all(self, seed: int) -> None:
        self.seed = seed

    def get_rng_state(self, device: Any = 0) -> Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: Tensor, device: Any = 0) -> None:
        torch.set_rng_state(state)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return []

    def mem_get_info(self, device: Any) -> tuple[int, int]:
        return self.free, self.free

    def reset_peak_memory_stats(self, device: Any) -> None:
        self.peak = 0

    def max_memory_allocated(self, device: Any) -> int:
        return self.peak

    def synchronize(self, device: Any) -> None:
        self.synchronized = True


def _register() -> Module | None:
    """None where this torch lets nobody be a backend in Python."""
    try:
        from torch.utils.backend_registration import _setup_privateuseone_for_python_backend
    except ImportError:
        return None
    module = Module()
    _setup_privateuseone_for_python_backend(NAME, module)
    return module


MODULE = _register()
"""Before anything is differentiated: autograd starts a thread for each device that it knows then, and no more later."""


@contextlib.contextmanager
def second_device(monkeypatch: pytest.MonkeyPatch, float64: bool = True) -> Iterator[Module]:
    """Plug it in: `Hardware.of("second")` finds it."""
    if MODULE is None:
        pytest.skip(f"torch {torch.__version__} has no backends in Python")
    from steelyard.base import float64 as without
    from steelyard.study.training import hardware

    monkeypatch.setattr(MODULE, "has_float64", float64)
    if not float64:
        monkeypatch.setattr(without, "WITHOUT", {NAME})
    monkeypatch.setattr(hardware, "ACCELERATORS", (NAME,))
    monkeypatch.setattr(torch, "inference_mode", torch.no_grad)  # its tensors take no wrappers
    with Driver(), Literals():
        yield MODULE
