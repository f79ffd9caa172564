"""``steelyard reproduce --list``: what there is, what each needs, how long it takes, what is reconstructed."""

from __future__ import annotations

import textwrap

from rich.table import Table
from rich.text import Text

from steelyard.io.console import make_console
from steelyard.problems import load_problem
from steelyard.problems.files import VARIABLE, present
from steelyard.reproductions import load_reproduction, reproduction_names
from steelyard.reproductions.reproduction import Reproduction


def reproductions() -> None:
    """A table, and a paragraph for each."""
    found = [load_reproduction(name) for name in reproduction_names()]
    console = make_console()
    table = Table("name", "--quick", "as it is", "--full", "what it is", box=None, pad_edge=False)
    table.columns[0].no_wrap = True
    for each in found:
        table.add_row(each.name, each.takes["quick"], each.takes["real"], each.takes["full"], Text(each.title))
    console.print(table)
    console.print("\nTimes are for two cores.", markup=False)
    for each in found:
        console.print(f"\n{each.name}", style="bold", markup=False)
        for line in _about(each):
            console.print(textwrap.fill(line, console.width, subsequent_indent="  "), markup=False)
    console.print(
        f"\nData are looked for in the folders of {VARIABLE}, then in the cache, then downloaded where possible.\n"
        "Run one: steelyard reproduce NAME --quick",
        markup=False,
    )


def _about(found: Reproduction) -> list[str]:
    needs = list(dict.fromkeys(folder for problem in found.problems() for folder in load_problem(problem).needs))
    shown = ", ".join(f"{folder} ({'found' if present(folder) else 'not here'})" for folder in needs)
    lines = [found.paper, f"Data: {shown or 'embedded'}"]
    lines += [f"{size}: {found.scope[size]}" for size in ("quick", "real", "full") if found.scope.get(size)]
    return [*lines, *([f"Reconstructed: {found.reconstructed}"] if found.reconstructed else [])]
