"""What results come from: the code, the data and the versions; trials are known by them."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import torch

from steelyard import __version__
from steelyard.base.specs import parse_spec
from steelyard.method_registry import method_class, stage_class
from steelyard.models.build_network import architecture_class
from steelyard.problems.problem import Problem
from steelyard.problems.sources import code_digests, data_digests, libraries, sources_of_class
from steelyard.study.program.command import Program
from steelyard.study.program.declaration import ProgramDeclaration
from steelyard.study.trial import SINGLE_TASK, Trial

COMMAND = "the command line"
"""What stands for the data of a program."""
FEW = 4
"""Tensors that are named; of more, their number is said."""


@dataclass(frozen=True)
class Code:
    """The files that something is written in.

    Args:
        digests: of each file, by module.
        files: where they lay.
    """

    digests: dict[str, str]
    files: dict[str, str]

    @classmethod
    def of(cls, sources: Mapping[str, Path]) -> Code:
        return cls(code_digests(sources), {module: str(file) for module, file in sources.items()})

    def edited(self) -> list[str]:
        """Those of the files that are no longer as they were."""
        now = code_digests({module: Path(file) for module, file in self.files.items()})
        return [self.files[module] for module, digest in self.digests.items() if now[module] != digest]


@dataclass(frozen=True)
class Origin:
    """The code, data and versions that a study trains with.

    Args:
        code: of the problem.
        data: digest of every tensor, by fold; None of a fold that no seed of the study is tested on.
        versions: of Steelyard, torch, Python (whose last digit changes no result), and the packages that the problem
            imports.
        extensions: code of other packages' methods, loss stages and architectures, by kind and name.
        declared: what a program trains; None of a problem.
        revisions: of methods, loss stages and architectures whose results changed within a version, by kind and name.
    """

    code: Code
    data: tuple[dict[str, str] | None, ...]
    versions: dict[str, str]
    extensions: dict[str, Code] = field(default_factory=dict)
    declared: ProgramDeclaration | None = None
    revisions: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, problem: Problem, seeds: Iterable[int], trials: Iterable[Trial] = ()) -> Origin:
        """Load the data of these seeds' folds and take note of what there is."""
        folds = {seed % problem.folds for seed in seeds}
        return cls(
            Code.of(problem.sources),
            tuple(data_digests(problem.data(fold)) if fold in folds else None for fold in range(problem.folds)),
            versions_here(problem),
            _extensions(trials),
            revisions=_revisions(trials),
        )

    @classmethod
    def of_program(cls, program: Program, declared: ProgramDeclaration, trials: Iterable[Trial] = ()) -> Origin:
        """The same of a program, whose command line says which data it reads."""
        sources = program.sources()
        command = hashlib.blake2b(json.dumps(program.command).encode(), digest_size=12).hexdigest()
        versions = {**libraries(sources), **declared.versions}
        extensions, revisions = _extensions(trials), _revisions(trials)
        return cls(Code.of(sources), ({COMMAND: command},), versions, extensions, declared, revisions)

    def mark(self, trial: Trial) -> str:
        """Sixteen letters that change with anything of it that this trial is trained with."""
        code, revisions = self.code_of(trial), self.revisions_of(trial)
        kind = (trial.seed % len(self.data), *code, *revisions)
        if kind not in self._marks:
            digests = {name: each.digests for name, each in code.items()}
            of_it = [digests, self.data_of(trial.seed), self.versions]
            # Where nothing was revised, results are known as they were before there were revisions.
            text = json.dumps([*of_it, revisions] if revisions else of_it, sort_keys=True)
            self._marks[kind] = hashlib.sha256(text.encode()).hexdigest()[:16]
        return self._marks[kind]

    @cached_property
    def _marks(self) -> dict[tuple[object, ...], str]:
        """By fold and parts: a study has thousands of trials, and data of hundreds of tensors."""
        return {}

    def code_of(self, trial: Trial) -> dict[str, Code]:
        """The problem's code, and that of the other packages' parts of a trial."""
        used = {name: self.extensions[name] for name in parts_of(trial) if name in self.extensions}
        return {"problem": self.code, **used}

    def revisions_of(self, trial: Trial) -> dict[str, int]:
        """Of those parts of a trial that were revised."""
        return {name: self.revisions[name] for name in parts_of(trial) if name in self.revisions}

    def data_of(self, seed: int) -> dict[str, str] | None:
        return self.data[seed % len(self.data)]


def _extensions(trials: Iterable[Trial]) -> dict[str, Code]:
    sources = {name: sources_of_class(_class_of(name)) for trial in trials for name in parts_of(trial)}
    return {name: Code.of(files) for name, files in sources.items() if files}


def _revisions(trials: Iterable[Trial]) -> dict[str, int]:
    found = {name: getattr(_class_of(name), "revision", 0) for trial in trials for name in parts_of(trial)}
    return {name: revision for name, revision in found.items() if revision}


def parts_of(trial: Trial) -> tuple[str, ...]:
    """What a trial is trained by, by kind and name: its method, loss stages and architecture."""
    return _parts(trial.method, trial.architecture)


@lru_cache(maxsize=1024)
def _parts(method: str, architecture: str) -> tuple[str, ...]:
    found = (f"architecture {parse_spec(architecture).name}",)
    if method == SINGLE_TASK:
        return found
    spec = parse_spec(method)
    return (*found, f"method {spec.name}", *(f"loss stage {part.name}" for part in spec.stages))


def versions_here(problem: Problem) -> dict[str, str]:
    """Of what trains in this process."""
    return {
        **libraries(problem.sources),
        "steelyard": __version__,
        "torch": str(torch.__version__),
        "python": ".".join(platform.python_version_tuple()[:2]),
    }


def edited(origin: Origin, problem: Problem, trial: Trial) -> list[str]:
    """The files that a trial would be trained with otherwise than planned, in this process.

    On another machine, what is installed may lie in another folder: then what is loaded here has to be the same.
    """
    found = []
    for part, code in origin.code_of(trial).items():
        if files := code.edited():
            here = problem.sources if part == "problem" else sources_of_class(_class_of(part))
            found += files if code_digests(here) != code.digests else []
    return found


def _class_of(part: str) -> type:
    kind, _, name = part.rpartition(" ")
    found: type = {"architecture": architecture_class, "method": method_class, "loss stage": stage_class}[kind](name)
    return found


def differences(before: Origin, now: Origin, trial: Trial) -> list[str]:
    """What a trial would now be trained with otherwise: ``helper.py (edited)``, ``data (…)``."""
    old, new = before.code_of(trial), now.code_of(trial)
    found = []
    for name in (*old, *(name for name in new if name not in old)):
        of = "" if name == "problem" else f" of {name}"
        found += [f"{file}{of} ({how})" for file, how in _edits(old.get(name), new.get(name))]
    found += [
        f"{library} ({before.versions.get(library, 'none')} -> {now.versions.get(library, 'none')})"
        for library in sorted({*before.versions, *now.versions})
        if before.versions.get(library) != now.versions.get(library)
    ]
    found += [
        f"{name} (revised)" for name in parts_of(trial) if before.revisions.get(name, 0) != now.revisions.get(name, 0)
    ]
    data = changed_data(before.data_of(trial.seed), now.data_of(trial.seed))
    if data == COMMAND:
        return [*found, COMMAND]
    return [*found, f"data ({data})"] if data else found


def changed_data(before: Mapping[str, str] | None, now: Mapping[str, str] | None) -> str:
    """``inputs of train, 'kind' of train and test``; empty where all tensors are alike."""
    before, now = before or {}, now or {}
    parts: dict[str, list[str]] = {}
    for name in dict.fromkeys([*before, *now]):
        if before.get(name) != now.get(name):
            tensor, _, part = name.rpartition(" of ")
            parts.setdefault(tensor, []).append(part)
    said = [f"{tensor} of {' and '.join(found)}" for tensor, found in parts.items()]
    more = [f"{len(said) - FEW} more"] if len(said) > FEW else []
    return ", ".join([*said[:FEW], *more])


def _edits(before: Code | None, now: Code | None) -> list[tuple[str, str]]:
    """(file, edited, new or gone), by module."""
    old, new = ({} if code is None else code.digests for code in (before, now))
    paths = {**({} if before is None else before.files), **({} if now is None else now.files)}
    how = {
        module: "new" if module not in old else "gone" if module not in new else "edited"
        for module in dict.fromkeys([*old, *new])
        if old.get(module) != new.get(module)
    }
    return [(_short(Path(paths[module])), said) for module, said in how.items()]


def _short(file: Path) -> str:
    return f"{file.parent.name}/{file.name}" if file.name == "__init__.py" else file.name
