"""Hooks around an optimizer's step, where torch has none or compiles them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch


def uncompiled(hook: Callable[..., Any]) -> Callable[..., Any]:
    """A hook that runs as it is within a step that is compiled: what it counts would have the step compiled anew."""

    @functools.wraps(hook)
    def run(*args: Any) -> Any:
        if torch.compiler.is_compiling():
            as_it_is: Callable[..., Any] = torch.compiler.disable(hook)  # type: ignore[no-untyped-call]
            return as_it_is(*args)
        return hook(*args)

    return run


class AroundCall:
    """Calls back around a method of one object, for optimizers without a hook there; removed as hooks are."""

    def __init__(self, owner: Any, name: str, before: Callable[[], None], after: Callable[[], None]) -> None:
        self._owner, self._name = owner, name
        self._covered = vars(owner).get(name)  # another balancer's
        method = getattr(owner, name)

        @functools.wraps(method)
        def calling(*args: Any, **kwargs: Any) -> Any:
            if self._removed:
                return method(*args, **kwargs)
            before()
            result = method(*args, **kwargs)
            after()
            return result

        self._removed = False
        self._calling = calling
        setattr(owner, name, calling)

    def remove(self) -> None:
        """Take it off; where another one lies over it, it stays and does nothing."""
        self._removed = True
        if vars(self._owner).get(self._name) is self._calling:
            delattr(self._owner, self._name)
            if self._covered is not None:
                setattr(self._owner, self._name, self._covered)


def with_closure(args: Any, kwargs: Any, wrap: Callable[[Callable[[], Any]], Callable[[], Any]]) -> Any:
    """The arguments of an optimizer's step, its closure wrapped; ``None`` where it has none."""
    # The first argument is the optimizer itself.
    if len(args) > 1 and callable(args[1]):
        return (args[0], wrap(args[1]), *args[2:]), kwargs
    if callable(kwargs.get("closure")):
        return args, {**kwargs, "closure": wrap(kwargs["closure"])}
    return None
