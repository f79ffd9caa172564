"""The problem files that are shown are short, and a study of each trains; without its data, one is skipped by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from steelyard.problems import load_problem
from steelyard.problems.files import present
from steelyard.study import plan
from steelyard.study.training.train import train

FILES = sorted((Path(__file__).parent.parent / "examples" / "problems").glob("*.py"))
NEEDS = {"landmine": "landmine", "mulan": "mulan_mtr", "office_own_inputs": "office_caltech10"}


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of a few, for the file that reads them."""
    for number in range(40):
        level = Image.new("RGB", (64, 64), (number, 40, 5 * number))
        level.save(tmp_path / f"{number:05d}-{number // 5 % 2}-{number / 40:.2f}.jpg")
    monkeypatch.setenv("PICTURES", str(tmp_path))


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
@pytest.mark.takes("each file's own data and network")
def test_a_network_of_its_tasks_trains(file: Path) -> None:
    if file.stem in NEEDS and not present(NEEDS[file.stem]):
        pytest.skip(f"{file.name} needs the data of {NEEDS[file.stem]}")
    reference = f"{file}:enb" if file.stem == "mulan" else str(file)
    made = plan(reference, ["single-task", "equal"], seeds=1, epochs=1)
    joint = next(trial for trial in made.trials if len(trial.tasks) > 1)
    assert train(joint, load_problem(reference)).steps == made.settings[0].steps[""]


def test_each_has_at_most_forty_lines_of_code() -> None:
    for file in FILES:
        lines = [line for line in file.read_text().splitlines() if line.strip()]
        assert len(lines) <= 40, file.name
