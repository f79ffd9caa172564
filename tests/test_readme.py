"""What the README and CONTRIBUTING show, runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from steelyard.reproductions import reproduction_names

ROOT = Path(__file__).parent.parent
STEELYARD = [sys.executable, "-m", "steelyard"]


def blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    lines = [line.split("#")[0].strip() for block in blocks("README.md", "sh") for line in block.splitlines()]
    return [line for line in lines if line.startswith("steelyard ")]


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_python_blocks_run(document: str) -> None:
    namespace: dict[str, object] = {"__name__": "readme"}
    for block in blocks(document, "python"):
        exec(compile(block, document, "exec"), namespace)


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "docs/design.md"])
def test_files_and_folders_that_are_named_are_there(document: str) -> None:
    """As paths from the root, from the package, or from the part of it that the sentence before has named."""
    named = set(re.findall(r"`([\w./]+(?:/|\.py|\.toml|\.txt))`", (ROOT / document).read_text()))
    made_up = {"my_problem.py", "src/steelyard/methods/square_root.py"}
    inside = {path.relative_to(ROOT / "src/steelyard").as_posix() for path in (ROOT / "src/steelyard").rglob("*")}
    for path in sorted(named - made_up):
        there = (ROOT / path).exists() or any(f"/{each}".endswith("/" + path.rstrip("/")) for each in inside)
        assert there, f"{document} names {path}"


def test_every_room_that_a_newcomer_may_add_to_is_described() -> None:
    headings = set(re.findall("^## Add an? (.*)$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE))
    assert headings >= {
        *("method", "loss stage", "layer's formula", "problem", "architecture"),
        *("chart", "reproduction", "command", "engine", "integration"),
    }


@pytest.mark.slow("every command of the README, one process after the other")
def test_commands_run_in_the_order_shown(tmp_path: Path) -> None:
    """Studies are planned, not trained (``--dry-run``): the demo and the command line's own tests train them.

    A reproduction's plan wants its data, and minutes: those have their own tests.
    """
    found = [line for line in commands() if not re.match("steelyard reproduce [a-z]", line)]
    assert any(line.startswith("steelyard compare my_problem.py") for line in found)
    for line in found:
        words = shlex.split(line)[1:]
        if words[0] == "compare" and "--dry-run" not in words:
            words.append("--dry-run")
        done = subprocess.run([*STEELYARD, *words], cwd=tmp_path, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


def test_reproductions_that_are_shown_exist() -> None:
    shown = [re.match("steelyard reproduce ([a-z-]+)", line) for line in commands() if not line.endswith("--list")]
    names = [match[1] for match in shown if match]
    assert names
    assert set(names) <= set(reproduction_names())


def test_the_table_of_methods_is_that_of_the_registry() -> None:
    from readme_methods import written

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text == written(text), "write it: python tests/readme_methods.py"


def test_every_method_is_in_the_table() -> None:
    from steelyard.method_registry import METHODS

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert not [name for name in METHODS if f"`{name}`" not in text]


def test_links_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert len(links) > 10
    assert not [link for link in links if not (ROOT / link).exists()]
