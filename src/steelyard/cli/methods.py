"""``steelyard methods``: the methods, or one of them or of the loss stages."""

from __future__ import annotations

import inspect

from steelyard.cli.described import print_docstring, print_options
from steelyard.cli.shared_options import ToDescribe


def methods(name: ToDescribe = None) -> None:
    """List the methods, or describe one."""
    if name is None:
        _list()
    else:
        _describe(name)


def _list() -> None:
    from rich.table import Table
    from rich.text import Text

    from steelyard.io.console import make_console
    from steelyard.method_registry import methods as rows
    from steelyard.methods.loss_stages import STAGES

    table = Table("method", "reads", "what it does", box=None, pad_edge=False)
    table.columns[0].no_wrap = table.columns[1].no_wrap = True
    table.add_row("single-task", "-", "The baseline: one network per task, nothing shared")
    for row in rows():
        table.add_row(row.name, row.reads, Text(row.summary))
    console = make_console()
    console.print(table)
    console.print(
        f"\nBefore any method, with a plus: {', '.join(STAGES)}; for example log+mgda.\n"
        "One of your own, by where it is imported from: my_package:MyMethod.\n"
        "Options of one: steelyard methods NAME",
        markup=False,
    )


def _describe(name: str) -> None:
    from steelyard.method_registry import method_class, method_names, stage_class
    from steelyard.methods.loss_stages import STAGES

    if name not in STAGES or name in method_names():
        _describe_class(name, "method", method_class(name))
    if name in STAGES:
        _describe_class(name, "stage, to be put before a method with a plus", stage_class(name))


def _describe_class(name: str, kind: str, cls: type) -> None:
    from steelyard.method_registry import options_of

    print_docstring(name, kind, cls)
    options = options_of(cls).values()
    print_options(name, [str(option.replace(annotation=inspect.Parameter.empty)) for option in options])
