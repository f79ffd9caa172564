"""``steelyard architectures``: the architectures of networks, or one of them."""

from __future__ import annotations

import inspect

from steelyard.cli.described import print_docstring, print_options
from steelyard.cli.shared_options import ToDescribe


def architectures(name: ToDescribe = None) -> None:
    """List the architectures of networks, or describe one."""
    if name is None:
        _list()
    else:
        _describe(name)


def _list() -> None:
    from rich.table import Table
    from rich.text import Text

    from steelyard.io.console import make_console
    from steelyard.models.build_network import architecture_class, architecture_names

    table = Table("architecture", "what it is", box=None, pad_edge=False)
    table.columns[0].no_wrap = True
    for name in architecture_names():
        summary = (inspect.getdoc(architecture_class(name)) or "").split("\n", 1)[0].rstrip(".")
        table.add_row(name, Text(summary.replace("``", "")))
    console = make_console()
    console.print(table)
    console.print(
        '\nUsed as: steelyard compare PROBLEM --architecture "mmoe(experts=8)"\n'
        "Options of one: steelyard architectures NAME",
        markup=False,
    )


def _describe(name: str) -> None:
    from steelyard.models.build_network import architecture_class, architecture_options

    print_docstring(name, "architecture", architecture_class(name))
    print_options(name, [f"{key}={value}" for key, value in architecture_options(name).items()])
