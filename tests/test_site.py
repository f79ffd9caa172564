"""The pages of the site: their code runs, and what is listed by hand is complete. `make docs` checks their links."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import fidelity
import pytest
import tomllib

import steelyard

DOCS = Path(__file__).parent.parent / "docs"

UNSURE = re.compile(r"from memory|remember|reconstruct|third.part|not read|summar|codes? of others", re.IGNORECASE)
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


@pytest.mark.parametrize("page", [DOCS.parent / "CONTRIBUTING.md", DOCS / "design.md"], ids=lambda page: page.stem)
def test_the_files_that_readers_are_sent_to_are_there(page: Path) -> None:
    """Paths may leave out where they begin; the file of the method that readers are to write is not there."""
    root, to_write = DOCS.parent, {"src/steelyard/methods/square_root.py"}
    tops = [root / top for top in ("src", "tests", "docs", "benchmarks")]
    files = [f"/{path.relative_to(root)}" for top in tops for path in (top, *top.rglob("*"))]
    named = set(re.findall(r"`([\w./-]+(?:\.py|/))`", page.read_text(encoding="utf-8"))) - to_write
    assert len(named) > 10
    assert not [path for path in named if not any(file.endswith(f"/{path.rstrip('/')}") for file in files)]


def test_every_built_in_problem_is_named() -> None:
    from steelyard.problems import problem_names

    page = (DOCS / "know" / "index.md").read_text(encoding="utf-8")
    assert not [name for name in problem_names() if f"`{name}`" not in page]


def test_every_option_of_all_methods_is_described() -> None:
    page = (DOCS / "balance" / "options.md").read_text(encoding="utf-8")
    from steelyard.base.method import Method

    names = set(Method.__init__.__annotations__) - {"tasks", "return"}
    assert not {name for name in names if not re.search(rf"`{name}\b", page)}


def test_the_page_of_known_deviations_has_every_sentence_of_every_docstring() -> None:
    """What a docstring says of its source without a mark would be missing: words that betray it are looked for."""
    methods = {row.name: row.cls for row in steelyard.methods()}
    from steelyard.models.build_network import architecture_class, architecture_names

    architectures = {name: architecture_class(name) for name in architecture_names()}
    architectures["AsymmetricTransfer"] = steelyard.AsymmetricTransfer
    page = fidelity.page(methods, architectures)
    for name, cls in (methods | architectures).items():
        docstring = " ".join((inspect.getdoc(cls) or "").split())
        said = fidelity.fidelity(cls)
        marks = len(re.findall(r"\b(Certainty|Deviations?)\b", docstring))
        assert marks == bool(said.certainty) + bool(said.deviations), name
        rest = docstring
        for text in (said.certainty, said.deviations):
            assert not text or text[1:] in docstring, name
            assert text in page, name
            rest = rest.replace(text[1:], "") if text else rest
        source = rest.partition("Source: ")[2].partition("Example:")[0]
        assert not UNSURE.search(source), f"{name}: say it after 'Certainty:' or 'Deviation:'"
        assert not source or re.search(rf":doc:`{name}`|``{re.escape(name)}``", page), name


def test_every_published_method_names_its_source() -> None:
    for row in steelyard.methods():
        assert not row.paper or "Source" in (inspect.getdoc(row.cls) or ""), row.name
