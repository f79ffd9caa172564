"""What can go wrong in a study."""

from __future__ import annotations

from steelyard.errors import SteelyardError


class PlanError(SteelyardError, ValueError):
    """A study cannot be planned as asked: fractions, seeds, epochs or methods."""


class StoreError(SteelyardError, OSError):
    """A store cannot be read or written: not a store, of another version, damaged, or the disk is full."""


class StoreLockedError(StoreError):
    """Another process is writing this store."""


class TrainingError(SteelyardError, RuntimeError):
    """A trial cannot go on: its loss or its metric is not finite, or its checkpoint does not fit."""
