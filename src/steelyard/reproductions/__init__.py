"""Published systems, each by one command on real data: ``steelyard reproduce NAME``."""

from __future__ import annotations

from importlib import import_module

from steelyard.errors import UnknownNameError
from steelyard.reproductions.papers import REPRODUCTIONS
from steelyard.reproductions.reproduction import Reproduction


def reproduction_names() -> list[str]:
    """Those that `load_reproduction` finds."""
    return list(REPRODUCTIONS)


def load_reproduction(name: str) -> Reproduction:
    """The reproduction of that name, or an error that suggests the nearest."""
    if name not in REPRODUCTIONS:
        raise UnknownNameError("reproduction", name, REPRODUCTIONS, "`steelyard reproduce --list` describes them.")
    found: Reproduction = import_module(REPRODUCTIONS[name]).reproduction
    return found
