"""Every error and warning that Steelyard raises on purpose: each names the thing, its value and the fix."""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable


class SteelyardError(Exception):
    """Base of all errors raised on purpose; the command line turns it into exit code 2."""


class OptionError(SteelyardError, ValueError):
    """An option is unknown, ill-typed or ill-defined for this method."""


class UnknownNameError(SteelyardError, ValueError):
    """A name (method, problem, task, option) that nobody registered."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        known = sorted(known)
        # Papers write PCGrad and NashMTL: case and hyphens are the likeliest slips, before any letters.
        plain = {_plain(each): each for each in known}
        close = difflib.get_close_matches(_plain(name), plain, n=1, cutoff=0.61)  # random is no typo of adam
        close = [plain[each] for each in close]
        nearest = f" Did you mean {close[0]!r}?" if close else ""
        # A long list hides the nearest name, which is what was meant.
        listing = "" if close and len(known) > 20 else f" Known: {', '.join(known) if known else 'none'}."
        super().__init__(f"unknown {kind} {name!r}.{nearest}{listing}{' ' + hint if hint else ''}")
        self.kind, self.name, self.known = kind, name, known


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


class LossError(SteelyardError, ValueError):
    """The losses given to a balancer cannot be balanced."""


class SharedError(SteelyardError, ValueError):
    """`shared=` is missing, or cannot supply what the method reads."""


class MissingInputError(SteelyardError, ValueError):
    """The method needs a further argument of the call (`again`, `probes`, `observe`, …)."""


class NonFiniteLossError(SteelyardError, FloatingPointError):
    """A loss is inf or NaN and `on_nonfinite="raise"`."""


class StateError(SteelyardError, RuntimeError):
    """A checkpoint or a window of observations does not fit this balancer."""


class GroupingError(SteelyardError, ValueError):
    """A search for tasks that belong together was asked something that makes no sense."""


class SteelyardWarning(UserWarning):
    """Base of all warnings raised on purpose."""


class PeriodWarning(SteelyardWarning):
    """An epoch-based method never hears that an epoch ended."""


class ReplicaWarning(SteelyardWarning):
    """The ranks of a distributed run no longer train the same network."""


class AngleWarning(SteelyardWarning):
    """A method that uses angles reads a Gramian that cannot show conflict."""


def warn(message: str, category: type[SteelyardWarning] = SteelyardWarning) -> None:
    """Warn from the first frame outside torch and Steelyard, where the user can act on it."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in ("steelyard", "torch"):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level + 1)


class ArchitectureError(SteelyardError, ValueError):
    """An architecture cannot be built over this problem's trunk or inputs."""


class ProblemError(SteelyardError, ValueError):
    """A problem does not fit together: tasks, data, network or metrics."""


class ProblemFileError(ProblemError):
    """A user's problem file cannot be read; the message names file, line and the original error."""


class MissingDataError(SteelyardError, FileNotFoundError):
    """A data file is neither in STEELYARD_DATA nor in the cache, and cannot be downloaded."""


class DataFileError(SteelyardError, ValueError):
    """A data file is there but broken: wrong hash, unreadable or of an unexpected shape."""


class PlanError(SteelyardError, ValueError):
    """A study cannot be planned as asked: fractions, seeds, epochs or methods."""


class StoreError(SteelyardError, OSError):
    """A store cannot be read or written: not a store, of another version, damaged, or the disk is full."""


class EmptyStoreError(StoreError):
    """No study was started in a store that is to be read."""


class DamagedStoreError(StoreError):
    """Something in a store is not as it was written."""


class StoreLockedError(StoreError):
    """Another process is writing this store."""


class EngineError(SteelyardError, RuntimeError):
    """Where a study is to run cannot be used: a package is missing, or nobody answers."""


class TrainingError(SteelyardError, RuntimeError):
    """A trial cannot go on: its loss or its metric is not finite, or its checkpoint does not fit."""


class ProgramError(SteelyardError, RuntimeError):
    """A program and the study that runs it do not fit together: what it declares, what it reports, or how it ends."""


class LeaderboardError(SteelyardError, ValueError):
    """Results of the leaderboard cannot be read, do not fit together, or are too few for what is asked."""
