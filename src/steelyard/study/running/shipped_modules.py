"""A problem file and the modules of the user's that it imports, on their way to a machine that does not have them."""

from __future__ import annotations

import atexit
import dataclasses
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from steelyard.errors import TrainingError
from steelyard.study.planning.provenance import Origin


@dataclass(frozen=True)
class Luggage:
    """What a worker elsewhere needs to load a problem.

    Attributes:
        reference: by which the problem is loaded at home.
        origin: the code and data that the study was planned with.
        texts: of the problem file and its modules, by module; none of a registered problem, whose package is installed
            where workers are.
    """

    reference: str
    origin: Origin | None
    texts: tuple[tuple[str, bytes], ...]

    @classmethod
    def of(cls, reference: str, origin: Origin | None) -> Luggage:
        """Pack what the study was planned with.

        Raises:
            TrainingError: the files were changed since.
        """
        if origin is None or "" not in origin.code.files:  # the problem file is the module without a name
            return cls(reference, origin, ())
        if files := origin.code.edited():
            raise TrainingError(f"{', '.join(files)} was changed while the study was running: start the study again")
        texts = ((name, Path(file).read_bytes()) for name, file in origin.code.files.items())
        return cls(reference, origin, tuple(texts))

    def unpack(self) -> tuple[str, Origin | None]:
        """The reference and the origin as they are here.

        Where the same files lie in the same place (this machine, a shared disk) they are used there, so that a problem
        finds what lies beside it. Otherwise they are written to a folder of this process's own, and a problem cannot
        open files by their place beside it.
        """
        if self.origin is None or not self.texts or not self.origin.code.edited():
            return self.reference, self.origin
        folder = _folder(self)
        file, _, variable = self.reference.rpartition(".py")
        there = f"{folder / Path(file).name}.py{variable}"
        files = {name: str(folder / self._place(name)) for name, _ in self.texts}
        return there, dataclasses.replace(self.origin, code=dataclasses.replace(self.origin.code, files=files))

    def _place(self, name: str) -> Path:
        """Where a module lies so that it is found by its name; the problem file keeps its own."""
        assert self.origin is not None
        home = Path(self.origin.code.files[name])
        if not name:
            return Path(home.name)
        place = Path(*name.split("."))
        return place / home.name if home.name == "__init__.py" else place.with_suffix(".py")


_unpacked: dict[tuple[str, tuple[str, ...]], Path] = {}


def _folder(luggage: Luggage) -> Path:
    """Unpacked once in a process, in front of all that modules are looked for in."""
    assert luggage.origin is not None
    key = luggage.reference, tuple(luggage.origin.code.digests.values())
    if key not in _unpacked:
        folder = _unpacked[key] = Path(tempfile.mkdtemp(prefix="steelyard-problem-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        for name, text in luggage.texts:
            file = folder / luggage._place(name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text)
            sys.modules.pop(name, None)  # a worker may have had another study's module of that name
        sys.path.insert(0, str(folder))
    return _unpacked[key]
