"""Errors of architectures."""

from __future__ import annotations

from steelyard.errors import SteelyardError


class ArchitectureError(SteelyardError, ValueError):
    """An architecture cannot be built over this problem's trunk or inputs."""
