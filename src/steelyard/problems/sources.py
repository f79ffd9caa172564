"""What a problem is made of: the user's code behind it, found by its imports, and the numbers it loads.

Results are stale once one of these changes, so that both are part of what trials are known by.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.machinery
import importlib.util
import json
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steelyard.problems.apart import Apart
from steelyard.problems.data import Data
from steelyard.problems.rows import DataRows, Draw, ReadBatch, Split
from steelyard.problems.stream import Stream

PACKAGE = "steelyard"  # its version stands for its code


def sources_of(file: Path, module: str = "", loaded: Mapping[str, Path] | None = None) -> dict[str, Path]:
    """The files of the user's side that a file imports, itself first, by module.

    Imports are read from the text, wherever in it they stand, and followed through the user's own modules: what is
    neither Python's nor installed (an editable installation counts as the user's), and what is of `module`'s own
    package. A module that is imported by a computed name is found only if `loaded` has it.

    Args:
        file: where to start.
        module: the name under which it is imported; a problem file has none.
        loaded: further modules of the user's side.
    """
    found = {module: file, **(loaded or {})}
    waiting = list(found)
    while waiting:
        importer = waiting.pop()
        for name in _imports(found[importer], importer):
            path = _file_of(name)
            if path is not None and name not in found and is_own(name, path, module):
                found[name] = path
                waiting.append(name)
    return found


def is_own(name: str, path: Path, module: str = "") -> bool:
    """Whether a module is of the user's side, or of the package of `module`."""
    top = name.partition(".")[0]
    if top == PACKAGE:
        return False
    if top == module.partition(".")[0]:
        return True
    if any(path.is_relative_to(folder) for folder in _installed(tuple(sys.path))):
        return False
    depth = name.count(".") + (path.name == "__init__.py")
    return len(path.parents) <= depth or top not in _distributed_in(path.parents[depth])


def sources_of_class(cls: type) -> dict[str, Path]:
    """The same of a class, by the module that it is written in; of Steelyard's own none."""
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    if not isinstance(file, str) or cls.__module__.partition(".")[0] == PACKAGE:
        return {}
    return sources_of(Path(file).resolve(), cls.__module__)


def code_digests(sources: Mapping[str, Path]) -> dict[str, str]:
    """Of each of these files, by module: changes with its text, not with where it lies."""
    found = {}
    for name in sorted(sources):
        try:
            text = sources[name].read_bytes()
        except OSError:
            text = b"missing"
        found[name] = _digest(text)
    return found


def code_digest(sources: Mapping[str, Path]) -> str:
    """Changes with the text of any of these files."""
    return _digest(json.dumps(code_digests(sources)).encode())


def data_digests(data: Data) -> dict[str, str]:
    """Of each tensor, ``inputs of train`` or ``'kind' of test``: changes with any number, the type and the shape.

    What is read when it is needed is known by its class, its length and a few rows: another file in the middle does not
    show.
    """
    found: dict[str, str] = {}
    for part, rows in data.splits().items():
        found |= _rows_digests(part, rows)
    return found


def _rows_digests(part: str, rows: DataRows) -> dict[str, str]:
    found: dict[str, str] = {}
    if isinstance(rows, Split):
        inputs = rows.inputs if isinstance(rows.inputs, tuple) else (rows.inputs,)
        for place, tensor in enumerate(inputs):
            found[f"inputs{f' {place}' if len(inputs) > 1 else ''} of {part}"] = _digest_of(tensor)
        for task, tensor in sorted(rows.targets.items()):
            found[f"{task!r} of {part}"] = _digest_of(tensor)
    elif isinstance(rows, Apart):
        for task, own in rows.parts.items():
            found |= _rows_digests(f"{part} of {task!r}", own)
    elif isinstance(rows, Stream):
        kind = f"{type(rows.dataset).__qualname__}:{len(rows)}:"
        sample = next(rows.reader(ahead=False)([Draw(rows.sample(), seed=0)]))
        found[f"a sample of {part}"] = _digest(kind.encode(), batch_digest(sample).encode())
    return found


def batch_digest(batch: ReadBatch) -> str:
    """Changes with the inputs and targets that were read, as far as they are numbers and text."""
    hashed = hashlib.blake2b(digest_size=12)
    _hash(hashed, batch.inputs)
    _hash(hashed, batch.targets)
    return hashed.hexdigest()


def _hash(hashed: Any, value: Any) -> None:
    """Take in a value; of what is neither numbers nor text, the kind alone."""
    hashed.update(type(value).__name__.encode())
    if isinstance(value, Tensor):
        hashed.update(_digest_of(value).encode())
    elif isinstance(value, Mapping):
        for name in sorted(value, key=str):
            _hash(hashed, name)
            _hash(hashed, value[name])
    elif isinstance(value, tuple | list):
        for each in value:
            _hash(hashed, each)
    elif isinstance(value, str | bytes | int | float | None):
        hashed.update(repr(value).encode())


def libraries(sources: Mapping[str, Path]) -> dict[str, str]:
    """The versions of the installed packages that these files import."""
    found = {}
    for module, file in sources.items():
        for top in {name.partition(".")[0] for name in _imports(file, module)} - {PACKAGE}:
            if top not in sys.stdlib_module_names and top not in sources and (version := _version(top)):
                found[top] = version
    return found


@cache
def _version(top: str) -> str:
    """Of the package that a module comes with; empty where none is known."""
    try:
        return metadata.version(top)
    except metadata.PackageNotFoundError:
        names = packages_of_modules().get(top, ())
        return " ".join(metadata.version(name) for name in sorted(set(names)))


@cache
def packages_of_modules() -> Mapping[str, Sequence[str]]:
    """Which installed packages a module may come with; the files of all of them are gone through (0.3 s)."""
    return metadata.packages_distributions()


def _digest_of(tensor: Tensor) -> str:
    return _digest(f"{tensor.dtype}:{tuple(tensor.shape)}:".encode(), _bytes(tensor))


def _digest(*pieces: Any) -> str:
    found = hashlib.blake2b(digest_size=12)
    for piece in pieces:
        found.update(piece)
    return found.hexdigest()


def _bytes(tensor: Tensor) -> Any:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy() if flat.numel() else b""


def _imports(file: Path, module: str) -> Iterator[str]:
    """The modules that a file may import, by full name; names that are no module are among them."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return  # it says so itself when it is imported
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _with_parents(alias.name)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from _with_parents(base)
            yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*" and base)


def _with_parents(name: str) -> Iterable[str]:
    pieces = name.split(".")
    return (".".join(pieces[: end + 1]) for end in range(len(pieces))) if name else ()


def _file_of(name: str) -> Path | None:
    """The source of a module, without importing it; None where it has none."""
    spec = _spec(name)
    if spec is None or not spec.has_location or spec.origin is None:
        return None
    path = Path(spec.origin)
    return path.resolve() if path.suffix == ".py" else None


def _spec(name: str) -> importlib.machinery.ModuleSpec | None:
    parent = name.rpartition(".")[0]
    try:
        if not parent:
            return importlib.util.find_spec(name)
        above = _spec(parent)
        if above is None or above.submodule_search_locations is None:
            return None
        return importlib.machinery.PathFinder.find_spec(name, above.submodule_search_locations)
    except (
        ImportError,
        ValueError,
        KeyError,
    ):  # made by hand, without a specification; or of a parent that is not loaded
        return None


@cache
def _installed(import_path: tuple[str, ...]) -> tuple[Path, ...]:
    """Where Python's own modules and installed packages lie, those of other environments that a ``.pth`` file adds or
    that the import path names included."""
    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = [*(sysconfig.get_path(kind) for kind in kinds), *site.getsitepackages(), site.getusersitepackages()]
    folders += [folder for folder in import_path if Path(folder).name in ("site-packages", "dist-packages")]
    return tuple({Path(folder).resolve() for folder in folders})


@cache
def _distributed_in(folder: Path) -> frozenset[str]:
    """The top-level modules of what an installer has put into a folder of any name (``pip install --target``, a cache
    that is linked to). An editable installation leaves its record elsewhere."""
    found: set[str] = set()
    for record in folder.glob("*.dist-info"):
        distribution = metadata.Distribution.at(record)
        named = (distribution.read_text("top_level.txt") or "").split()
        found.update(named or (Path(file.parts[0]).stem for file in distribution.files or ()))
    return frozenset(found)
