"""One name, one thing: no class bears the name of another class, or of another type, elsewhere in the package."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import steelyard

PACKAGE = Path(steelyard.__file__).parent
APART = {
    "problems/builtin": "a file is one problem, written as a user's would be, and nobody imports its parts",
    "cli/shared_options.py": "an option is named after what it chooses",
}
TWICE = {"TrialCallback": "Lightning's and Transformers' own word: each trainer's stands in that trainer's module"}


def types(path: Path) -> dict[str, bool]:
    """Names of a module's classes (True) and of other names for types; an underscore in front tells nothing apart."""
    found = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            found[node.name.lstrip("_")] = True
        elif (
            isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and not node.targets[0].id.isupper()
        ):
            name = node.targets[0].id.lstrip("_")
            if name[0].isupper():
                found[name] = False
    return found


def twice(package: Path) -> dict[str, list[str]]:
    found: dict[str, dict[str, bool]] = defaultdict(dict)
    for path in sorted(package.rglob("*.py")):
        place = path.relative_to(package).as_posix()
        if not place.startswith(tuple(APART)):
            for name, is_class in types(path).items():
                found[name][place] = is_class
    return {name: [*places] for name, places in found.items() if len(places) > 1 and any(places.values())}


def test_a_class_shares_its_name_with_nothing():
    assert twice(PACKAGE).keys() == TWICE.keys(), twice(PACKAGE)


def test_a_second_class_of_one_name_is_found(tmp_path):
    (tmp_path / "one.py").write_text("class Batch: ...\nclass Alone: ...\nShape = tuple[int, int]\n")
    (tmp_path / "two.py").write_text("class _Batch: ...\nShape = list[int]\n")
    (tmp_path / "three.py").write_text("Alone = int | None\n")
    assert twice(tmp_path) == {"Batch": ["one.py", "two.py"], "Alone": ["one.py", "three.py"]}
