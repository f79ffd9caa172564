"""How much memory training takes, on top of the libraries and the data."""

from __future__ import annotations

import ctypes
import math
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from steelyard.study.training.hardware import Hardware


def peak_memory(hardware: Hardware) -> PeakMemory | DeviceMemory:
    """Of where a trial computes, from now on."""
    return PeakMemory() if hardware.is_cpu else DeviceMemory(hardware.device)


class DeviceMemory:
    """The same of a device, by what tensors take there.

    MPS keeps no high-water mark of it: there, what its allocator has taken from the system, and rarely gives back.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type != "mps":
            self._module.reset_peak_memory_stats(device)
        self._start = self._peak()

    @property
    def _module(self) -> Any:
        return getattr(torch, self.device.type)

    def _peak(self) -> float:
        if self.device.type == "mps":
            return float(torch.mps.driver_allocated_memory())
        return float(self._module.max_memory_allocated(self.device))

    def growth(self) -> float:
        return (self._peak() - self._start) / 2**20


class PeakMemory:
    """The largest growth of the process's resident memory since this object was made, in MiB.

    What training adds once libraries and data are in memory: parameters, optimizer state, activations,
    gradients, the outputs of an evaluation, and what the allocators keep back of all these. On Linux the
    operating system's high-water mark is set back first and freed memory is handed back; elsewhere, memory
    that loading the data needed and freed again can hide a part.
    """

    def __init__(self) -> None:
        with suppress(OSError, AttributeError):  # not glibc: nothing to hand back
            ctypes.CDLL(None).malloc_trim(0)
        with suppress(OSError):  # not Linux: the mark cannot be set back
            Path("/proc/self/clear_refs").write_text("5")
        self._start = _current() or _peak()

    def growth(self) -> float:
        return (_peak() - self._start) / 2**20


def _peak() -> float:
    """Bytes; ``ru_maxrss`` is in KiB, on macOS in bytes."""
    status = _linux("VmHWM")
    if status is not None:
        return status
    try:
        import resource
    except ImportError:  # Windows keeps no such figure
        return math.nan
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _current() -> float | None:
    return _linux("VmRSS")


def _linux(name: str) -> float | None:
    """A memory figure of ``/proc/self/status`` in bytes, None where there is no such file."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return float(line.split()[1]) * 1024
    return None
