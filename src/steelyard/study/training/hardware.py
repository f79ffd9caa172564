"""What a trial computes with: a device, and a precision."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from steelyard.errors import OptionError, UnknownNameError

ACCELERATORS = ("cuda", "mps")
"""Kinds of devices besides the CPU, the one that ``auto`` prefers first."""
CPU = "cpu"
AUTO = "auto"
FULL = "float32"
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
PRECISIONS = (FULL, *HALVES)

RandomState = tuple[Tensor, ...]


def kind_of_device(name: str) -> str:
    """``cuda`` of ``cuda:1``: trials are known by it, since one card of a kind is as good as another."""
    return name.partition(":")[0]


def devices_here() -> list[str]:
    """All that a trial can train on in this process: ``["cuda:0", "cuda:1", "cpu"]``."""
    found = []
    for kind in ACCELERATORS:
        count = getattr(torch, kind).device_count()
        found += [f"{kind}:{number}" for number in range(count)]
    return [*found, CPU]


def check_device(name: str) -> str:
    """The same name, if it is one of a device, here or elsewhere.

    Raises:
        OptionError: it is none.
    """
    kind, colon, number = str(name).partition(":")
    if (kind in ACCELERATORS and (not colon or number.isdecimal())) or name in (CPU, AUTO):
        return name
    known = ", ".join([AUTO, CPU, *ACCELERATORS, f"{ACCELERATORS[0]}:0"])
    raise OptionError(f"there is no device called {name!r}: take one of {known} (:1, :2 … for further ones)")


def named_devices(name: str) -> list[str]:
    """The devices of this machine that a name stands for: ``cuda`` for all of its kind, ``cuda:1`` for one.

    Raises:
        OptionError: there is none; says what is there.
    """
    check_device(name)
    here = devices_here()
    if name == AUTO:
        name = kind_of_device(here[0])
    found = [device for device in here if name in (device, kind_of_device(device))]
    if not found:
        built = (
            ""
            if torch.version.cuda or kind_of_device(name) != "cuda"
            else f"; torch {torch.__version__} is without CUDA"
        )
        raise OptionError(f"there is no device {name} on this machine, only {', '.join(here)}{built}")
    return found


def check_precision(name: str) -> str:
    """The same name, if it is one of a precision.

    Raises:
        UnknownNameError: it is none.
    """
    if name not in PRECISIONS:
        raise UnknownNameError("precision", str(name), PRECISIONS)
    return name


@dataclass(frozen=True)
class Hardware:
    """A device, and the precision of networks' forward passes on it; losses, balancing and metrics are float32's.

    Args:
        device: one that is here.
        precision: one of `PRECISIONS`: float32, or autocast to half precision; fp16 comes with gradient scaling.
        sharing: so many trials have the device at a time.
    """

    device: torch.device
    precision: str = FULL
    sharing: int = 1

    @classmethod
    def of(cls, name: str, precision: str = FULL, sharing: int = 1) -> Hardware:
        """By the device's name.

        Raises:
            OptionError: the device is not here, or cannot compute in this precision.
        """
        found = cls(torch.device(named_devices(name)[0]), check_precision(precision), sharing)
        found._check()
        return found

    @property
    def is_cpu(self) -> bool:
        return self.device.type == CPU

    @property
    def name(self) -> str:
        """``CPU``, or what the card is called."""
        if self.device.type == "cuda":
            return str(torch.cuda.get_device_name(self.device))
        return self.device.type.upper()

    # --- precision ----------------------------------------------------------------------------------------------------
    def forward(self) -> AbstractContextManager[Any]:
        """Around a network's forward pass."""
        if self.precision == FULL:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=HALVES[self.precision])

    def outputs(self, found: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """A network's outputs as losses and metrics get them."""
        if self.precision == FULL:
            return found
        return {task: out.float() if out.dtype in HALVES.values() else out for task, out in found.items()}

    def scaler(self) -> torch.amp.GradScaler | None:
        """What keeps small gradients of fp16 from vanishing."""
        return torch.amp.GradScaler(self.device.type) if self.precision == "fp16" else None

    def _check(self) -> None:
        if self.precision == FULL:
            return
        try:
            # Some versions of torch warn of what they cannot do, and leave it.
            with warnings.catch_warnings(), self.forward():
                warnings.simplefilter("error")
                enabled = torch.is_autocast_enabled(self.device.type)
                torch.zeros(2, 2, device=self.device) @ torch.zeros(2, 2, device=self.device)
        except (RuntimeError, UserWarning) as error:
            raise OptionError(f"{self.name} does not compute in {self.precision}: {error}") from error
        if not enabled:
            raise OptionError(f"{self.name} does not compute in {self.precision} with torch {torch.__version__}")

    # --- data ---------------------------------------------------------------------------------------------------------
    def to(self, tensor: Tensor) -> Tensor:
        """A tensor here; one in pinned memory travels while the program goes on.

        Not on MPS: the copy reads memory that may be another tensor's by then.
        """
        return tensor if self.is_cpu else tensor.to(self.device, non_blocking=self.device.type != "mps")

    def on_cpu(self, state: Any) -> Any:
        """A state that any device can go on from: its tensors on the CPU. On the CPU the same, uncopied."""
        if self.is_cpu:
            return state
        return tree_map(lambda value: value.detach().cpu() if isinstance(value, Tensor) else value, state)

    def free_memory(self) -> int:
        """Bytes that are free on the device."""
        if self.device.type == "mps":
            return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
        return int(getattr(torch, self.device.type).mem_get_info(self.device)[0])

    # --- time and chance ----------------------------------------------------------------------------------------------
    def synchronize(self) -> None:
        """Wait for what the device was given to do: before the time is taken."""
        if self.device.type == "mps":
            torch.mps.synchronize()
        elif not self.is_cpu:
            getattr(torch, self.device.type).synchronize(self.device)

    def random_state(self) -> RandomState:
        """Where dropout and augmentation draw from: the generators of the CPU and of the device."""
        if self.is_cpu:
            return (torch.get_rng_state(),)
        of_device = getattr(torch, self.device.type).get_rng_state
        return torch.get_rng_state(), of_device() if self.device.type == "mps" else of_device(self.device)

    def set_random_state(self, state: RandomState) -> None:
        """Draw again what was drawn since `random_state`."""
        torch.set_rng_state(state[0])
        if not self.is_cpu:
            of_device = getattr(torch, self.device.type).set_rng_state
            of_device(state[1]) if self.device.type == "mps" else of_device(state[1], self.device)

    @contextmanager
    def drawing_from(self, seed: int) -> Iterator[None]:
        """Draws inside come from a seed, and those after it are what they would have been."""
        before = self.random_state()
        try:
            if self.is_cpu:
                torch.default_generator.manual_seed(seed)  # and leave accelerators alone
            else:
                torch.manual_seed(seed)
            yield
        finally:
            self.set_random_state(before)


ON_CPU = Hardware(torch.device(CPU))
"""Single precision on the CPU: what a study has unless it is told otherwise."""


def seed_everything(seed: int) -> None:
    """What dropout and augmentation draw from, on every device; done anew each epoch, so that a resumed trial draws
    the same without its generators being kept."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
