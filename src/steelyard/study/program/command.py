"""The command that trains one network, as it stands behind ``--``, and the files that it is written in."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from steelyard.errors import ProgramError
from steelyard.problems.sources import sources_of

LARGEST_FILE = 2**24
"""Bytes of a file that is named in the command, no Python: larger ones are data, and not looked into."""


@dataclass(frozen=True)
class Program:
    """A command, and the folder in which it was given.

    Example:
        >>> from steelyard.study.program.command import Program
        >>> program = Program(("torchrun", "--nproc-per-node", "2", "train.py"), "/home/me")
        >>> program.reference
        'cd /home/me && torchrun --nproc-per-node 2 train.py'
        >>> Program.read(program.reference) == program
        True
    """

    command: tuple[str, ...]
    folder: str

    @property
    def reference(self) -> str:
        """By which workers know it, in the place where they are given that of a problem: a line for a shell."""
        return f"cd {shlex.quote(self.folder)} && {self.text}"

    @property
    def text(self) -> str:
        return shlex.join(self.command)

    @classmethod
    def read(cls, reference: str) -> Program | None:
        """The program with this reference; None where it is that of a problem."""
        if not reference.startswith("cd "):
            return None
        _, folder, _, *command = shlex.split(reference)
        return cls(tuple(command), folder)

    @property
    def name(self) -> str:
        """``train`` of ``torchrun … train.py``, and of ``python -m package.train``; else the command's first word."""
        if scripts := self._scripts():
            return next(iter(scripts.values())).stem
        if module := self._module():
            return module.rpartition(".")[2]
        return Path(self.command[0]).name

    def check(self) -> None:
        """Raise a `ProgramError` where there is nothing to start."""
        if not self.command:
            raise ProgramError("there is no program behind --: write e.g. -- python train.py")
        first = self.command[0]
        # A name alone is looked for where commands are, one with a folder from where the command was given.
        if shutil.which(str(Path(self.folder) / first) if os.sep in first else first) is None:
            raise ProgramError(f"command not found, or not to be executed: {first or 'an empty word'}{self._hint()}")
        for word in self.command[1:]:
            if word.endswith(".py") and not word.startswith("-") and not (Path(self.folder) / word).is_file():
                raise ProgramError(f"there is no {word} in {self.folder}")

    def _hint(self) -> str:
        """What may have been meant by a first word that is no command."""
        first = self.command[0]
        if first.startswith("-"):
            return ": options of steelyard stand before --, and the program behind it"
        if first.endswith(".py") and " " not in first:
            return f": write -- python {self.text}"
        if " " in first.strip():
            return (
                f". It is one word: leave the quotes away, -- {first}, or have a shell read it, -- sh -c "
                f"{shlex.quote(first)}"
            )
        if not (Path(self.folder) / first).is_file():
            return ""
        if os.sep not in first:
            return f": write -- ./{self.text}"
        return f": chmod +x {shlex.quote(first)}, or name what runs it, as in -- sh {self.text}"

    def sources(self) -> dict[str, Path]:
        """The files it is written in: scripts and modules of the user's side that they import, and small files named in
        the command (a configuration), by module or as they are named."""
        found: dict[str, Path] = {}
        with self._importable():
            for name, file in self._scripts().items():
                for module, path in sources_of(file).items():
                    found.setdefault(module or name, path)
            if (module := self._module()) and (main := _file_of_module(self.folder, module)) is not None:
                found.update(sources_of(main, module))
        for word in self._words():
            path = Path(self.folder) / word
            if word not in found and path.suffix != ".py" and path.is_file() and not _large(path):
                found[word] = path.resolve()
        return found

    def _words(self) -> list[str]:
        """The words of the command; of a command within one (``sh -c '…'``) and behind ``--option=`` those that name
        code or a configuration: others may be what it writes."""
        inner = [each for word in self.command for each in _inner(word)]
        values = [value for word in (*self.command, *inner) if (value := word.partition("=")[2])]
        read = [word for word in (*inner, *values) if Path(word).suffix in _READ]
        return list(dict.fromkeys([*self.command, *read]))

    def _scripts(self) -> dict[str, Path]:
        """The Python files in the command, as they are named there."""
        named = ((word, Path(self.folder) / word) for word in self._words() if word.endswith(".py"))
        return {word: path.resolve() for word, path in named if path.is_file()}

    def _module(self) -> str:
        """What stands behind ``-m`` or ``--module``; torchrun's own file is none of the user's."""
        for place, word in enumerate(self.command[:-1]):
            module = self.command[place + 1]
            if word in ("-m", "--module") and _file_of_module(self.folder, module) is not None:
                return module
        return ""

    @contextmanager
    def _importable(self) -> Iterator[None]:
        """Modules are looked for where the program finds them: beside its script, and in its folder."""
        before = list(sys.path)
        sys.path[:0] = [*(str(script.parent) for script in self._scripts().values()), self.folder]
        try:
            yield
        finally:
            sys.path[:] = before


def _file_of_module(folder: str, module: str) -> Path | None:
    """``package/train.py`` or ``package/train/__main__.py``, where it lies in this folder."""
    place = Path(folder, *module.split("."))
    for file in (place.with_suffix(".py"), place / "__main__.py"):
        if file.is_file():
            return file.resolve()
    return None


_READ = (".py", ".sh", ".yaml", ".yml", ".json", ".toml", ".cfg", ".ini", ".conf")


def _inner(word: str) -> list[str]:
    """The words of a command within a word; none of a word alone, and not where output is written."""
    try:
        words = shlex.split(word)
    except ValueError:  # an open quote: text, not a command
        return []
    if len(words) < 2:
        return []
    return [each for before, each in zip(["", *words], words, strict=False) if not before.endswith((">", "tee"))]


def _large(path: Path) -> bool:
    return path.stat().st_size > LARGEST_FILE
