"""What an engine tells of a trial, which ends once: finished, failed, lost, or sent back to be trained alone."""

from __future__ import annotations

from dataclasses import dataclass

from steelyard.study.trial import Failed, Result


@dataclass(frozen=True)
class Started:
    """Somebody works on it."""

    place: str  # the machine


@dataclass(frozen=True)
class Epoch:
    """So many epochs are finished, those that a checkpoint brought among them."""

    finished: int


@dataclass(frozen=True)
class Warned:
    """A warning that came up while training."""

    text: str


@dataclass(frozen=True)
class Finished:
    """It has a result."""

    result: Result
    weights: bytes | None = None  # of its network, as safetensors, where they were asked for


@dataclass(frozen=True)
class Lost:
    """Whoever had it is gone, and nothing is known against the trial itself: it can be tried again."""

    reason: str


@dataclass(frozen=True)
class Alone:
    """It cannot be trained together with the others of its group."""


@dataclass(frozen=True)
class Unwritable:
    """Its checkpoint cannot be written, nor will the others' be: the study has to stop."""

    reason: str


Event = Started | Epoch | Warned | Finished | Failed | Lost | Alone | Unwritable
