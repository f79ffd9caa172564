"""``steelyard new``: a problem file to start from."""

from __future__ import annotations

import re
import shlex
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from steelyard.cli.messages import say
from steelyard.errors import ProblemFileError
from steelyard.io.writing import replacing

NAME = "my-problem"  # in the template


def new(
    file: Annotated[Path, typer.Argument(help="The file to write, e.g. my_problem.py")],
) -> None:
    """Write a small problem file that works as it is, to be edited."""
    write_template(file)
    say(f"Written: {file}. Edit it, and try it as it is: steelyard compare {shlex.quote(str(file))}")


def write_template(path: Path) -> None:
    """Copy the template, named after the file; a file that is there already is never overwritten."""
    if path.suffix != ".py":
        nameless = path.name == ".py"
        named = path.with_suffix(".py") if path.stem.strip(".") and not nameless else path / "my_problem.py"
        named = path.with_name("my_problem.py") if nameless else named
        raise ProblemFileError(f"{str(path)!r}: a problem file ends in .py, e.g. {named}")
    text = resources.files("steelyard.problems").joinpath("template.py").read_text(encoding="utf-8")
    name = re.sub(r"[^A-Za-z0-9]+", "-", path.stem).strip("-") or NAME
    text = text.replace(NAME, name)
    if re.fullmatch(r"[\w.-]+", path.name) and path.name.isprintable():  # else it may end the text that it stands in
        text = text.replace("my_problem.py", path.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("x").close()  # takes the name, or finds it taken
    except FileExistsError as error:
        if not path.parent.is_dir():
            raise ProblemFileError(f"cannot write {path}: {path.parent} is no folder") from error
        raise ProblemFileError(f"{path} exists already: choose another name") from error
    except OSError as error:
        raise ProblemFileError(f"cannot write {path}: {error.strerror}") from error
    try:
        with replacing(path) as file:
            file.write(text.encode())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise ProblemFileError(f"cannot write {path}: {error.strerror}") from error
