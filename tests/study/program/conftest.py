"""Programs that no study has started, whatever the surroundings of the tests say."""

from __future__ import annotations

from pathlib import Path

import pytest

from steelyard.study.program.assignment import VARIABLE

OF_A_STUDY = (VARIABLE, "STEELYARD_METHOD", "STEELYARD_SEED", "STEELYARD_TASKS")
OF_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE")


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """This process is a program started by hand, in an empty folder."""
    for name in (*OF_A_STUDY, *OF_TORCHRUN):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.excepthook", lambda *error: None)  # it is wrapped, and set back after the test
    monkeypatch.chdir(tmp_path)
