"""What can be wrong with a problem or its data."""

from __future__ import annotations

from steelyard.errors import SteelyardError


class ProblemError(SteelyardError, ValueError):
    """A problem does not fit together: tasks, data, network or metrics."""


class ProblemFileError(ProblemError):
    """A user's problem file cannot be read; the message names file, line and the original error."""


class MissingDataError(SteelyardError, FileNotFoundError):
    """A data file is neither in STEELYARD_DATA nor in the cache, and cannot be downloaded."""


class DataFileError(SteelyardError, ValueError):
    """A data file is there but broken: wrong hash, unreadable or of an unexpected shape."""
