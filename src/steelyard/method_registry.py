"""Methods and loss stages by name: `make` builds one from a line of text, `methods` lists them all.

The rows themselves stand in `methods/__init__.py` and `methods/loss_stages/__init__.py`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from steelyard.balancing.balancer import Balancer
from steelyard.base.method import Method
from steelyard.base.option_types import shown
from steelyard.base.specs import Spec, SpecPart, parse_spec
from steelyard.base.stage import Stage
from steelyard.errors import OptionError, UnknownNameError
from steelyard.io.class_by_path import class_by_path, is_path
from steelyard.io.lists_and_counts import columns
from steelyard.methods import METHODS
from steelyard.methods.loss_stages import STAGES

BASELINE = "single-task"
"""The name of the baseline in studies: one network per task, so nothing to balance."""
BEST_FIXED = "best-fixed"
"""The name of the row of studies whose constant weights are chosen on validation data."""


@dataclass(frozen=True)
class MethodRow:
    """One row of the table of methods."""

    name: str
    cls: type[Balancer]
    summary: str
    reads: str
    where: str
    heads: str
    cost: str
    options: tuple[str, ...]
    paper: str


class MethodTable(tuple[MethodRow, ...]):
    """The rows, which print as a table."""

    def __repr__(self) -> str:
        titles = ("name", "class", "reads", "where", "heads", "cost", "paper")
        return columns([titles, *((r.name, r.cls.__name__, r.reads, r.where, r.heads, r.cost, r.paper) for r in self)])


def make(spec: str | Spec, tasks: Sequence[str], **options: Any) -> Balancer:
    """Build a method by name: ``make("db-mtl", ["seg", "depth"])``, ``make("log+mgda", tasks, scale="sum")``.

    Args:
        spec: ``[stage+]…name[(option=value,…)]``, or a parsed `Spec`. A method or stage that nobody registered is named
            by where it is imported from: ``my_package:MyMethod(beta=0.9)``.
        tasks: task names.
        options: further options of the method; an option given in both places is refused.

    Raises:
        UnknownNameError: nobody registered this method, stage or option; names the nearest.
        OptionError: an option's value is refused.

    Example:
        >>> balancer = steelyard.make("log+cagrad(c=0.4)", ["seg", "depth"])
        >>> balancer.name, balancer.c
        ('cagrad', 0.4)
    """
    if not isinstance(spec, str | Spec):
        raise OptionError(f"a method is named by text such as 'ema(beta=0.9)', got {shown(spec)}")
    spec = parse_spec(spec) if isinstance(spec, str) else spec
    cls = method_class(spec.name)
    twice = set(spec.options) & set(options)
    if twice:
        raise OptionError(f"the option {min(twice)!r} of {spec.name!r} is given twice")
    method: Balancer = _build(cls, spec.method, {**spec.options, **options}, tasks)
    if spec.stages:
        method.prepend_stages([_build(stage_class(part.name), part, part.options) for part in spec.stages])
    return method


def method_class(name: str) -> type[Balancer]:
    """The class behind a registered name, or behind ``module:Class``."""
    if name == BASELINE:
        raise OptionError(f"{BASELINE!r} is the baseline of studies, one network per task: there is nothing to balance")
    if name == BEST_FIXED:
        raise OptionError(
            f"{BEST_FIXED!r} is a row of studies, which choose constant weights for it on validation data: in a loop "
            "of your own, give weights to 'fixed'"
        )
    if is_path(name):
        return class_by_path("method", name, Balancer)
    cls: type[Balancer] = _load("method", name, {**METHODS, **_from_entry_points("steelyard.methods")})
    return cls


def stage_class(name: str) -> type[Stage]:
    """The class behind a registered loss stage, or behind ``module:Class``."""
    if is_path(name):
        return class_by_path("loss stage", name, Stage)
    cls: type[Stage] = _load("loss stage", name, {**STAGES, **_from_entry_points("steelyard.stages")})
    return cls


def method_names() -> tuple[str, ...]:
    """All registered names, third parties' included."""
    return (*METHODS, *(name for name in _from_entry_points("steelyard.methods") if name not in METHODS))


def methods() -> MethodTable:
    """The table of methods: what each reads and where, who weighs the heads, cost beside a plain step, paper.

    Example:
        >>> table = {row.name: row for row in steelyard.methods()}
        >>> table["uw"].reads, table["graddrop"].where
        ('losses', 'features')
    """
    return MethodTable(_row(name) for name in method_names())


def options_of(cls: type) -> dict[str, inspect.Parameter]:
    """The options that a method or stage takes besides those common to all methods, in order."""
    common = set(inspect.signature(Method.__init__).parameters)
    return {name: parameter for name, parameter in _parameters(cls).items() if name not in common}


def _row(name: str) -> MethodRow:
    cls = method_class(name)
    return MethodRow(
        name=name,
        cls=cls,
        summary=(inspect.getdoc(cls) or "").split("\n", 1)[0].rstrip("."),
        reads=cls.reads,
        where="any" if cls.reads in ("losses", "lookahead") else ", ".join(sorted(cls.where)),
        heads=cls.default_heads,
        cost=_cost(cls),
        options=tuple(options_of(cls)),
        paper=cls.paper,
    )


def _cost(cls: type[Balancer]) -> str:
    if cls.reads == "losses":
        return "one more forward" if cls.needs_after else "none"
    if cls.reads == "lookahead":
        return cls.look_cost
    return "each head's backward to the features"


def _build(cls: type, part: SpecPart, options: Mapping[str, Any], *arguments: Any) -> Any:
    known = _parameters(cls)
    for key in options:
        if key not in known:
            raise UnknownNameError(f"option of {part.name}", key, known)
    try:
        return cls(*arguments, **options)
    except TypeError as error:
        # A value of the wrong type, met in the method's own checks; a fault inside the method keeps its traceback.
        raise OptionError(f"cannot build {part.name!r} with {dict(options)}: {error}") from error


@lru_cache
def _parameters(cls: type) -> Mapping[str, inspect.Parameter]:
    """Keyword options of a class, those passed on to its bases included."""
    found: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if "__init__" not in base.__dict__:
            continue
        parameters = inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]
        for parameter in parameters:
            if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                found.setdefault(parameter.name, parameter)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return {name: parameter for name, parameter in found.items() if name not in ("self", "tasks")}


def _load(kind: str, name: str, table: Mapping[str, str]) -> Any:
    if name not in table:
        raise UnknownNameError(kind, name, table, "`steelyard methods` describes them.")
    module, _, attribute = table[name].partition(":")
    return getattr(import_module(module), attribute)


@lru_cache
def _from_entry_points(group: str) -> dict[str, str]:
    return {entry.name: entry.value for entry in entry_points(group=group)}


def Chain(*parts: Stage | Balancer) -> Balancer:  # noqa: N802  (reads as the layer that it stands for)
    """Put loss stages in front of a method: ``Chain(LogLosses(), EMAScale(0.99), MGDA(tasks))``.

    Stages apply from left to right. What comes back is the method itself, its stages set, so that everything else
    about it (options, state dict, `attach`) stays as it was.

    Example:
        >>> balancer = steelyard.Chain(steelyard.LogLosses(), steelyard.MGDA(["a", "b"]))
        >>> [type(stage).__name__ for stage in balancer.loss_stages()], balancer.name
        (['LogLosses'], 'mgda')
    """
    *stages, method = parts
    if not isinstance(method, Balancer):
        raise OptionError(f"the last part of a Chain is a method, not {type(method).__name__}")
    for stage in stages:
        if not isinstance(stage, Stage):
            raise OptionError(
                f"{type(stage).__name__} is not a loss stage: only the last part of a Chain is a method; "
                f"stages are {', '.join(path.rpartition(':')[2] for path in STAGES.values())}"
            )
    method.prepend_stages([stage for stage in stages if isinstance(stage, Stage)])
    return method
