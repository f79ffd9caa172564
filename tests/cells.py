"""Many small cells as one test.

Pytest and its worker processes spend five milliseconds on each test, and most cells of a large table less than two.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

ONLY: list[str] = []  # what `--cell` has named


class CellError(AssertionError):
    """Which cells failed, each with its error; the first one's traceback stands above."""

    def __init__(self, failed: list[tuple[str, BaseException]], count: int) -> None:
        first = f"[{failed[0][0]}]" + (f" and {len(failed) - 1} more" if failed[1:] else "")
        lines = [f"  [{name}] {type(error).__name__}: {str(error).strip()}" for name, error in failed]
        super().__init__("\n".join([f"{first} of {count} cells failed; --cell NAME takes one alone", *lines]))
        self.failed, self.count = failed, count


Names = str | tuple[str, ...]
Ids = Callable[[Any], str] | Sequence[str] | None


def every(names: Names, values: Iterable[Any], ids: Ids = None) -> Callable[..., Any]:
    """``pytest.mark.parametrize`` within one test: all cells are gone through, and those that fail are named.

    Fixtures and marks are the whole test's, and what a cell leaves behind the next one finds. A cell that skips is one
    that there is not; where that depends on the machine, the test is for ``parametrize``, which reports it.
    """
    words = (names,) if isinstance(names, str) else names
    cells = [_cell(words, value, number, ids) for number, value in enumerate(values)]
    if not cells:
        raise ValueError(f"every({names!r}, ...) has no values: the test would prove nothing")

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        # Further tables are under this one; one that is named here is nobody's fixture.
        inner = getattr(test, "cells", None)
        body = inner[1] if inner else test
        table = [
            ([*below, label], {**cell, **more})
            for label, cell in cells
            for below, more in (inner[0] if inner else [([], {})])
        ]

        @functools.wraps(test)
        def all_of_them(*args: Any, **fixtures: Any) -> None:
            _go_through(table, lambda cell: body(*args, **fixtures, **cell))

        signature = inspect.signature(test)
        missing = [word for word in words if word not in signature.parameters]
        if missing:
            raise TypeError(f"{test.__name__} takes no {', '.join(missing)}")
        kept = [parameter for name, parameter in signature.parameters.items() if name not in words]
        all_of_them.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
        all_of_them.cells = table, body  # type: ignore[attr-defined]
        return all_of_them

    return decorate


def _cell(words: tuple[str, ...], value: Any, number: int, ids: Ids) -> tuple[str, dict[str, Any]]:
    """What names a value, as pytest would write it, and the arguments that it stands for."""
    parts = value if len(words) > 1 else (value,)
    if ids is not None and not callable(ids):
        name = ids[number]
    else:
        labels = [ids(part) if ids else _label(word, part, number) for word, part in zip(words, parts, strict=True)]
        name = "-".join(labels)
    return name, dict(zip(words, parts, strict=True))


def _label(word: str, value: Any, number: int) -> str:
    if value is None or isinstance(value, str | int | float):
        return str(value)
    return getattr(value, "__name__", f"{word}{number}")


def _go_through(table: list[tuple[list[str], dict[str, Any]]], run: Callable[[dict[str, Any]], None]) -> None:
    named = [("-".join(labels), cell) for labels, cell in table]
    chosen = [(name, cell) for name, cell in named if all(word in name for word in ONLY)]
    failed: list[tuple[str, BaseException]] = []
    skipped: list[str] = []
    for name, cell in chosen:
        try:
            run(cell)
        except pytest.skip.Exception as reason:
            skipped.append(str(reason))
            print(f"left out: [{name}] {reason}")  # `pytest -rP` shows it
        except (Exception, pytest.fail.Exception) as error:
            failed.append((name, error))
    if failed:
        raise CellError(failed, len(chosen)) from failed[0][1]
    if len(skipped) == len(chosen):
        pytest.skip("; ".join(dict.fromkeys(skipped)) or f"no cell has {' and '.join(ONLY)} in its name")
