"""The pages of the site: their code runs, and what is listed by hand is complete. `make docs` checks their links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tomllib

import steelyard

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted([DOCS / "start.md", *(DOCS / "balance").glob("*.md"), *(DOCS / "know").glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_each_page_runs_from_top_to_bottom(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    if not blocks:
        pytest.skip("no code in it")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks:
        exec(compile(block, page.name, "exec"), names)


def test_every_method_has_an_equation_and_every_equation_a_method() -> None:
    equations = tomllib.loads((DOCS / "equations.toml").read_text(encoding="utf-8"))
    assert sorted(equations) == sorted(row.name for row in steelyard.methods())


def test_every_built_in_problem_is_named() -> None:
    from steelyard.problems import problem_names

    page = (DOCS / "know" / "index.md").read_text(encoding="utf-8")
    assert not [name for name in problem_names() if f"`{name}`" not in page]


def test_every_option_of_all_methods_is_described() -> None:
    page = (DOCS / "balance" / "options.md").read_text(encoding="utf-8")
    from steelyard.base.method import Method

    names = set(Method.__init__.__annotations__) - {"tasks", "return"}
    assert not {name for name in names if not re.search(rf"`{name}\b", page)}
