"""The trials that stand beside the page of reproductions say what its sections say, to the letter."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from steelyard.errors import MissingDataError
from steelyard.problems import load_problem
from steelyard.reproductions import load_reproduction, reproduction_names

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "reproductions.md"
FILES = sorted((DOCS / "reproductions").glob("*.jsonl.xz"))


def test_every_file_is_a_reproductions():
    assert {file.name.partition(".")[0] for file in FILES} <= set(reproduction_names())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name.partition(".")[0])
def test_a_section_is_what_its_trials_say(file, run, tmp_path):
    name = file.name.partition(".")[0]
    skip_without_data(name)
    page, written = PAGE.read_text(encoding="utf-8"), tmp_path / "reproductions.md"
    written.write_text(page, encoding="utf-8")
    code, out, err = run("reproduce", name, "--from", str(file), "--markdown", str(written))
    assert code == 0, out + err
    assert section(written.read_text(encoding="utf-8"), name) == section(page, name)


def section(page, name):
    found = re.search(rf"<!-- reproduce {name}: .*?<!-- end of {name} -->", page, re.DOTALL)
    assert found, f"the page has no section of {name}"
    return found[0].splitlines()


def skip_without_data(name):
    """Metrics of all tasks together are measured anew, on the test data's labels."""
    for experiment in load_reproduction(name).experiments("real"):
        problem = load_problem(experiment.problem)
        if problem.joint:
            try:
                problem.data()
            except MissingDataError as error:
                pytest.skip(str(error))
