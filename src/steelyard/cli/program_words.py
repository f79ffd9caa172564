"""What stands behind ``--`` is a program with its arguments, none of ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import typer
from typer.core import TyperCommand

from steelyard.cli.arguments import ArgumentError
from steelyard.errors import ProgramError

MARK = "steelyard.program"


class CommandOfProgram(TyperCommand):
    """A command that leaves the words behind ``--`` alone."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        if "--" in args:
            place = args.index("--")
            ctx.meta[MARK] = args[place + 1 :]
            args = args[:place]
        return super().parse_args(ctx, args)


def program_of(context: typer.Context) -> list[str] | None:
    """The words of the program; None where there is no ``--``."""
    found: list[str] | None = context.meta.get(MARK)
    return found


@contextmanager
def telling_whose_options(context: typer.Context, program: Sequence[str]) -> Iterator[None]:
    """Where a program fails, say which of its words are options of ours that it may have no use for."""
    try:
        yield
    except ProgramError as error:
        known = {option for parameter in context.command.params for option in parameter.opts}
        ours = dict.fromkeys(name for word in program if (name := word.partition("=")[0]) in known)
        if not ours:
            raise
        raise ProgramError(
            f"{error}\nWhat stands behind -- is the program's: {', '.join(ours)} too. Options of steelyard stand "
            "before it."
        ) from error


def check_what(problem: str | None, program: Sequence[str] | None, of_problems: Sequence[str]) -> None:
    """Raise an `ArgumentError` unless there is a problem or a program, with options that are about it."""
    if problem is None and program is None:
        raise ArgumentError("give a problem (steelyard problems lists them), or a program: -- python train.py")
    if problem is not None and program is not None:
        raise ArgumentError(f"a problem ({problem}) and a program ({' '.join(program)}): give one of them")
    if program is not None and of_problems:
        raise ArgumentError(f"{', '.join(of_problems)}: a program sees to that itself, so leave it away")
