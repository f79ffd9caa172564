"""What a class says of itself in the terminal: its docstring, and its options with their defaults."""

from __future__ import annotations

import inspect
from collections.abc import Sequence


def print_docstring(name: str, kind: str, cls: type) -> None:
    """The docstring line by line, each kept at its indent where the terminal is too narrow for it."""
    from rich.padding import Padding
    from rich.text import Text

    from steelyard.io.console import make_console

    console = make_console()
    console.print(f"{name} ({kind})\n", style="bold", markup=False)
    for line in (inspect.getdoc(cls) or "").splitlines():
        indent = len(line) - len(line.lstrip())
        console.print(Padding(Text(line.lstrip() or " "), (0, 0, 0, indent), expand=False))


def print_options(name: str, options: Sequence[str]) -> None:
    """The options as they are written on the command line."""
    from steelyard.io.console import make_console

    said = f"Options: {name}({','.join(options)})" if options else "No options."
    # To be copied: no break that is not the terminal's own.
    make_console().print(f"\n{said}\n", markup=False, soft_wrap=True)
