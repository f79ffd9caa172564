"""The trials that stand beside the page of reproductions say what its sections say, to the letter."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from steelyard.problems import load_problem
from steelyard.problems.files import present
from steelyard.reproductions import reproduction_names
from steelyard.reproductions.papers.amtfl_claim import AS_AUTHORS
from steelyard.study.storage.short_curves import with_short_curves
from steelyard.study.storage.trials_file import read_rows, write_rows

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "reproductions.md"
NEEDED = {"amtfl": load_problem(AS_AUTHORS).needs}  # metrics of all tasks together are worked out from data
FILES = sorted((DOCS / "reproductions").glob("*.jsonl.xz"))


def test_every_file_is_a_reproductions():
    named = {file.name.partition(".")[0] for file in FILES}
    assert named == set(reproduction_names())


def test_what_is_said_of_weights_needs_whole_curves(run, tmp_path):
    short = tmp_path / "short.jsonl"
    write_rows(short, map(with_short_curves, read_rows(DOCS / "reproductions" / "hydalearn.jsonl.xz")))
    code, _, err = run("reproduce", "hydalearn", "--from", str(short))
    assert code == 2
    assert "written with --short-curves, and how weights moved is what this claim is about" in " ".join(err.split())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name.partition(".")[0])
def test_a_section_is_what_its_trials_say(file, run, tmp_path):
    name = file.name.partition(".")[0]
    if missing := [each for each in NEEDED.get(name, ()) if not present(each)]:
        pytest.skip(f"the test error of all outputs together needs the labels: {', '.join(missing)} is not here")
    page, written = PAGE.read_text(encoding="utf-8"), tmp_path / "reproductions.md"
    written.write_text(page, encoding="utf-8")
    code, out, err = run("reproduce", name, "--from", str(file), "--markdown", str(written))
    assert code == 0, out + err
    assert section(written.read_text(encoding="utf-8"), name) == section(page, name)


def section(page, name):
    found = re.search(rf"<!-- reproduce {name}: .*?<!-- end of {name} -->", page, re.DOTALL)
    assert found, f"the page has no section of {name}"
    return found[0].splitlines()
