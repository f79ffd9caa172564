"""The ``steelyard`` command, one file per command."""

from steelyard.cli.app import main

__all__ = ["main"]
