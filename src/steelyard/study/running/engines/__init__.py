"""Engines by name: ``local``, ``ray(gpus=0.5)``, and those that other packages register.

To add one, write one file with a class that does what `interface.py` says, and one row below.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from steelyard.base.specs import parse_spec
from steelyard.errors import EngineError, OptionError, UnknownNameError
from steelyard.study.running.engines.interface import Engine

ENGINES = {
    "local": "steelyard.study.running.engines.local:Local",
    "ray": "steelyard.study.running.engines.on_ray:Ray",
    "slurm": "steelyard.study.running.engines.on_slurm:Slurm",
}
GROUP = "steelyard.engines"


def engine_names() -> list[str]:
    """The engines that are part of Steelyard, and those of other packages' entry points."""
    return sorted({*ENGINES, *(entry.name for entry in entry_points(group=GROUP))})


def load_engine(text: str) -> Engine:
    """The engine called so, with its options: ``"local"``, ``"ray(address=auto,gpus=1)"``.

    Raises:
        UnknownNameError: no engine or option of that name.
        OptionError: an option's value is refused.
        EngineError: it needs a package that is not installed.
    """
    if not text.strip():
        raise UnknownNameError("engine", text, engine_names())
    spec = parse_spec(text)
    if spec.stages:
        raise OptionError(f"engine {text!r}: loss stages go before a method, not before an engine")
    try:
        cls = _engine_class(spec.name)
    except ImportError as error:
        install = f'pip install ".[{spec.name}]" in a clone of Steelyard' if spec.name in ENGINES else "install it"
        raise EngineError(f"the engine {spec.name!r} needs a package that is not here ({error}): {install}") from error
    known = inspect.signature(cls).parameters
    for option in spec.options:
        if option not in known:
            raise UnknownNameError(f"option of engine {spec.name}", option, known)
    engine: Engine = cls(**spec.options)
    return engine


def _engine_class(name: str) -> Any:
    if name in ENGINES:
        module, _, attribute = ENGINES[name].partition(":")
        return getattr(import_module(module), attribute)
    entries = entry_points(group=GROUP, name=name)
    if not entries:
        raise UnknownNameError("engine", name, engine_names())
    return next(iter(entries)).load()
