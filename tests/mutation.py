"""Change the code one token at a time and see whether the tests notice: ``make mutation``.

mutmut makes the changes; ``[tool.mutmut]`` in pyproject.toml says in which files, and which tests judge. Of each file a
sample is tried, always the same one, because all changes together would take a night. What survives is a fault of the
tests, unless `EQUIVALENT` says why nobody could see it.

    python tests/mutation.py --sample 40 numbers forest    # 40 changes in each file with one of these names
    python tests/mutation.py --all                         # all changes, which takes a night
    python tests/mutation.py --sample 0 matrix --judge tests/report/test_matrix.py    # what some tests notice

The tests run here, and not by mutmut's own runner, which starts afresh for each change: torch is imported and the tests
are collected once, and each change is tried in a fork of that process, by the test files that call the function, until
one notices. That takes a second or two, and up to fifteen where none does.
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.machinery
import importlib.util
import json
import math
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest
from hypothesis import Phase, settings
from mutmut.configuration import config
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.mutation.file_mutation import combine_mutations_to_source, create_mutations
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.state import state
from mutmut.utils.format_utils import get_mutant_name

EQUIVALENT = Path(__file__).parent / "equivalent_mutants.txt"
GOAL = 90  # per cent of the changes that can be noticed
PATIENCE = 10  # times the computing that a test file needs without a change: who needs more hangs
STUCK = 1800  # seconds after which one that waits for something is given up


@dataclass
class File:
    """A file, what is changed in it, and what became of that."""

    path: Path
    all: int
    code: str  # with a copy of each function for each change
    drawn: list[str]
    killed: int = 0
    equivalent: list[str] = field(default_factory=list)
    survived: list[str] = field(default_factory=list)

    @property
    def module(self) -> str:
        return ".".join(self.path.relative_to("src").with_suffix("").parts).removesuffix(".__init__")

    def note(self, name: str, noticed: bool, reasons: dict[str, str]) -> None:
        """What became of a change."""
        if noticed:
            self.killed += 1
            print(".", end="", flush=True)
            return
        change = words(name, self)
        if change in reasons:
            self.equivalent.append(change)
        else:
            self.survived.append(change)
            print(f"\nsurvived  {change}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("files", nargs="*", help="parts of file names; all files without any")
    parser.add_argument("--sample", type=int, default=12, help="changes in each file; 0 tries all")
    parser.add_argument("--all", action="store_true", help="try all changes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--judge", nargs=argparse.REMAINDER, help="last: test files that judge instead of all, as for pytest"
    )
    given = parser.parse_args()
    started = time.monotonic()
    files = [sample(path, 0 if given.all else given.sample, given.seed) for path in paths(given.files)]
    sys.meta_path.insert(0, Changed({file.module: file for file in files}))
    set_mutant_under_test("stats")  # notes which functions are called
    judges = Judges(files, given.workers)
    code = pytest.main(
        ["-p", "no:cacheprovider", *(given.judge or config().pytest_add_cli_args_test_selection)], plugins=[judges]
    )
    if code:
        return int(code)
    tell(files)
    print(f"{sum(len(file.drawn) for file in files)} changes in {(time.monotonic() - started) / 60:.0f} minutes")
    return 0 if all(score >= GOAL for _, score, _ in by_room(files)) else 1


def paths(parts: list[str]) -> list[Path]:
    """The files in which something is changed."""
    every = [path for path in sorted(Path("src").rglob("*.py")) if config().should_mutate(path)]
    return [path for path in every if not parts or any(part in path.name for part in parts)]


def sample(path: Path, size: int, seed: int) -> File:
    """Draw some of the changes of a file, and write its code with them."""
    module, changes, *ignored = create_mutations(str(path), path.read_text(encoding="utf-8"))
    inside = [change for change in changes if change.contained_by_top_level_function]
    random.Random(f"{seed} {path.name}").shuffle(inside)  # a larger sample has all of a smaller one
    made = combine_mutations_to_source(module, inside[: size or len(inside)], *ignored)
    return File(path, len(inside), made.code, [get_mutant_name(path, name) for name in made.mutant_names])


class Changed(importlib.abc.MetaPathFinder):
    """Imports the files with their changes in them."""

    def __init__(self, files: dict[str, File]) -> None:
        self._files = files

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        file = self._files.get(fullname)
        if file is None:
            return None
        return importlib.util.spec_from_file_location(fullname, file.path.resolve(), loader=_Loader(fullname, file))


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, fullname: str, file: File) -> None:
        super().__init__(fullname, str(file.path.resolve()))
        self._code = file.code

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._code, self.path, "exec", dont_inherit=True)


@dataclass
class Judge:
    """The tests of one file, and what they do without a change."""

    path: Path
    items: list[pytest.Item] = field(default_factory=list)
    calls: set[str] = field(default_factory=set)  # the functions that they call
    seconds: float = 0.0
    noticed: Counter[Path] = field(default_factory=Counter)  # in which files they noticed how many changes

    def passes(self, session: pytest.Session) -> bool:
        """Run the tests up to the first that fails."""
        for item, after in zip(self.items, [*self.items[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            if session.testsfailed:
                return False
        return True


class Judges:
    """A plugin of pytest that tries one change after the other where pytest would run the tests once."""

    def __init__(self, files: list[File], workers: int) -> None:
        self._files = files
        self._forks = Forks(workers)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            raise session.Interrupted("a test file cannot be read")
        # No time for the smallest counterexample, and the same examples each time.
        phases = (Phase.explicit, Phase.generate)
        settings.register_profile("mutation", phases=phases, derandomize=True, database=None, deadline=None)
        settings.load_profile("mutation")
        session.config.pluginmanager.unregister(name="terminalreporter")
        judges = self._judges(session)
        reasons = equivalent()
        for file in self._files:
            for name in file.drawn:
                self._try(session, file, name, judges, reasons)
        self._forks.join()
        return True

    def _judges(self, session: pytest.Session) -> list[Judge]:
        """Run each test file as it is, from the same start as later with a change, and see what it calls."""
        judges: dict[Path, Judge] = {}
        for item in session.items:
            judges.setdefault(item.path, Judge(item.path)).items.append(item)
        early = sorted(state()._stats)
        if early:
            print("called before any test runs, where a change is not noticed:", *early, sep="\n    ")

        def calls(judge: Judge) -> list[str] | None:
            state()._stats.clear()
            return sorted(state()._stats) if judge.passes(session) else None

        def learn(judge: Judge, done: bool, called: list[str] | None, seconds: float) -> None:
            if called is None:
                raise RuntimeError(f"{judge.path} fails without any change")
            judge.seconds, judge.calls = seconds, set(called)
            print(f"{seconds:6.1f} s  {os.path.relpath(judge.path)}: {len(judge.items)} tests", flush=True)

        for judge in judges.values():
            self._forks.start(partial(calls, judge), partial(learn, judge))
        self._forks.join()
        return list(judges.values())

    def _try(
        self, session: pytest.Session, file: File, name: str, judges: list[Judge], reasons: dict[str, str]
    ) -> None:
        """The file's own tests judge first, then those that noticed most in it so far, then the quickest."""
        function = name.rpartition("__mutmut_")[0]
        concerned = [judge for judge in judges if function in judge.calls]
        own = f"test_{file.path.stem}"
        concerned.sort(key=lambda judge: (judge.path.stem != own, -judge.noticed[file.path], judge.seconds))

        def noticing() -> int | None:
            set_mutant_under_test(name)
            return next((place for place, judge in enumerate(concerned) if not judge.passes(session)), None)

        def note(done: bool, place: int | None, seconds: float) -> None:
            if place is not None:
                concerned[place].noticed[file.path] += 1
            file.note(name, not done or place is not None, reasons)

        self._forks.start(noticing, note, 30 + PATIENCE * sum(judge.seconds for judge in concerned))


class Forks:
    """Work done in forks of this process: what it leaves behind is gone with it."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._open: dict[int, Callable[[bool, Any, float], None]] = {}
        self._folder = tempfile.TemporaryDirectory()

    def start(self, work: Callable[[], object], then: Callable[[bool, Any, float], None], limit: float = 3600) -> None:
        """Do some work, and tell `then` whether it came to its end, what it returned and the computing that it took."""
        while len(self._open) >= self._workers:
            self._take_one()
        pid = os.fork()
        if pid:
            self._open[pid] = then
            return
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(limit), math.ceil(limit)))
            signal.alarm(STUCK)
            silent = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(silent, stream)
            folder = self._of(os.getpid())
            folder.mkdir()
            os.environ["PYTEST_DEBUG_TEMPROOT"] = str(folder)  # what tests write goes with the rest
            answer = json.dumps(work())
            (folder / "answer").write_text(answer, encoding="utf-8")
            os._exit(0)
        finally:
            os._exit(1)

    def join(self) -> None:
        while self._open:
            self._take_one()

    def _take_one(self) -> None:
        pid, status, usage = os.wait4(-1, 0)
        folder = self._of(pid)
        answer = folder / "answer"
        done = status == 0
        told = json.loads(answer.read_text(encoding="utf-8")) if done else None
        shutil.rmtree(folder, ignore_errors=True)  # one that was killed at once has made none
        self._open.pop(pid)(done, told, usage.ru_utime + usage.ru_stime)

    def _of(self, pid: int) -> Path:
        return Path(self._folder.name, str(pid))


def words(name: str, file: File) -> str:
    """``numbers.half: (a - b) / 2 -> (a + b) / 2``."""
    lines = get_diff_for_mutant(name, source=file.code, path=file.path).splitlines()[2:]
    before, after = (" ".join(line[1:].strip() for line in lines if line[0] == side) for side in "-+")
    function = (
        name.rpartition(".")[2].rpartition("__mutmut_")[0].replace("ǁ", ".").removeprefix("x_").removeprefix("x.")
    )
    return f"{file.path.stem}.{function}: {before} -> {after}"


def equivalent() -> dict[str, str]:
    """Changes that nothing can notice, each with the reason on the indented line below it."""
    found, change = {}, ""
    for line in EQUIVALENT.read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):
            found[change] = line.strip()
        elif line and not line.startswith("#"):
            change = line.strip()
    return found


def by_room(files: list[File]) -> list[tuple[str, float, int]]:
    """Room, score, and how many changes were tried: the files of each together."""
    rooms: dict[str, tuple[int, int, int]] = {}
    for file in files:
        inside = file.path.relative_to(Path("src/steelyard")).parts[:-1]
        room = "/".join(inside[: 2 if inside[0] == "study" else 1])
        killed, survived, tried = rooms.get(room, (0, 0, 0))
        rooms[room] = (killed + file.killed, survived + len(file.survived), tried + len(file.drawn))
    return [(room, score(killed, survived), tried) for room, (killed, survived, tried) in rooms.items()]


def score(killed: int, survived: int) -> float:
    """Per cent killed, of those that are not equivalent."""
    return 100 * killed / max(1, killed + survived)


def tell(files: list[File]) -> None:
    print(f"\n{'file':<36}{'changes':>8}{'tried':>7}{'killed':>8}{'same':>6}{'score':>7}")
    for file in files:
        row = f"{file.all:>8}{len(file.drawn):>7}{file.killed:>8}{len(file.equivalent):>6}"
        print(f"{'/'.join(file.path.parts[-2:]):<36}{row}{score(file.killed, len(file.survived)):>6.0f}%")
    for room, reached, tried in by_room(files):
        print(f"{room:<44}{tried:>7}{reached:>20.0f}%")


if __name__ == "__main__":
    sys.exit(main())
