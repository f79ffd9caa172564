"""Change the code one token at a time and see whether the tests notice: ``make mutation``.

mutmut makes the changes; ``[tool.mutmut]`` in pyproject.toml says in which files, and which tests judge. Of each file a
sample is tried, always the same one, because all changes together would take a night. What survives is a fault of the
tests, unless `EQUIVALENT` says why nobody could see it.

    python tests/mutation.py --sample 40 numbers forest    # 40 changes in each file with one of these names
    python tests/mutation.py --all                         # all changes, which takes a night
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from mutmut.configuration import config
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.mutation.file_mutation import mutate_file_contents
from mutmut.stats import status_by_exit_code
from mutmut.utils.format_utils import get_mutant_name

EQUIVALENT = Path(__file__).parent / "equivalent_mutants.txt"
GOAL = 90  # per cent of the changes that can be noticed


@dataclass
class Tried:
    """What became of the changes in one file."""

    all: int
    killed: int = 0
    equivalent: list[str] = field(default_factory=list)
    survived: list[str] = field(default_factory=list)

    @property
    def score(self) -> float:
        """Per cent killed, of those that are not equivalent."""
        return 100 * self.killed / max(1, self.killed + len(self.survived))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("files", nargs="*", help="parts of file names; all files without any")
    parser.add_argument("--sample", type=int, default=40, help="changes in each file; 0 tries all")
    parser.add_argument("--all", action="store_true", help="try all changes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    chosen = {path: sample(path, 0 if given.all else given.sample, given.seed) for path in paths(given.files)}
    names = [name for _, drawn in chosen.values() for name in drawn]
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(given.workers), *names]
    subprocess.run(command, check=True)
    reasons = equivalent()
    found = {path: judge(path, count, drawn, reasons) for path, (count, drawn) in chosen.items()}
    tell(found)
    return 0 if all(score >= GOAL for _, score in by_room(found)) else 1


def paths(parts: list[str]) -> list[Path]:
    """The files in which something is changed."""
    every = [path for path in sorted(Path("src").rglob("*.py")) if config().should_mutate(path)]
    return [path for path in every if not parts or any(part in path.name for part in parts)]


def sample(path: Path, size: int, seed: int) -> tuple[int, list[str]]:
    """How many changes there are, and the names of those that are tried."""
    mutated = mutate_file_contents(str(path), path.read_text(encoding="utf-8"))
    names = [get_mutant_name(path, name) for name in mutated.mutant_names]
    drawn = names.copy()
    random.Random(f"{seed} {path.name}").shuffle(drawn)  # a larger sample has all of a smaller one
    return len(names), drawn[: size or len(names)]


def judge(path: Path, count: int, drawn: list[str], reasons: dict[str, str]) -> Tried:
    """Read what mutmut noted of one file."""
    tried = Tried(count)
    if not drawn:
        return tried
    codes = json.loads(Path("mutants", f"{path}.meta").read_text(encoding="utf-8"))["exit_code_by_key"]
    for name in drawn:
        if status_by_exit_code[codes[name]] in ("survived", "no tests", "not checked"):
            change = words(name, path)
            (tried.equivalent if change in reasons else tried.survived).append(change)
        else:
            tried.killed += 1
    return tried


def words(name: str, path: Path) -> str:
    """``numbers.half: (a - b) / 2 -> (a + b) / 2``."""
    lines = get_diff_for_mutant(name, path=path).splitlines()[2:]
    before, after = (" ".join(line[1:].strip() for line in lines if line[0] == side) for side in "-+")
    function = (
        name.rpartition(".")[2].rpartition("__mutmut_")[0].replace("ǁ", ".").removeprefix("x_").removeprefix("x.")
    )
    return f"{path.stem}.{function}: {before} -> {after}"


def equivalent() -> dict[str, str]:
    """Changes that nothing can notice, each with the reason on the indented line below it."""
    found, change = {}, ""
    for line in EQUIVALENT.read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):
            found[change] = line.strip()
        elif line and not line.startswith("#"):
            change = line.strip()
    return found


def by_room(found: dict[Path, Tried]) -> list[tuple[str, float]]:
    """The scores of the rooms, the files of each together."""
    rooms: dict[str, Tried] = {}
    for path, tried in found.items():
        inside = path.relative_to(Path("src/steelyard")).parts[:-1]
        room = rooms.setdefault("/".join(inside[: 2 if inside[0] == "study" else 1]), Tried(0))
        room.killed += tried.killed
        room.survived += tried.survived
    return [(name, room.score) for name, room in rooms.items() if room.killed or room.survived]


def tell(found: dict[Path, Tried]) -> None:
    print(f"\n{'file':<28}{'changes':>8}{'tried':>7}{'killed':>8}{'same':>6}{'score':>7}")
    for path, tried in found.items():
        every = tried.killed + len(tried.equivalent) + len(tried.survived)
        row = f"{tried.all:>8}{every:>7}{tried.killed:>8}{len(tried.equivalent):>6}{tried.score:>6.0f}%"
        print(f"{'/'.join(path.parts[-2:]):<28}{row}")
    for name, score in by_room(found):
        print(f"{name:<51}{score:>6.0f}%")
    for tried in found.values():
        for change in tried.survived:
            print(f"survived  {change}")


if __name__ == "__main__":
    sys.exit(main())
