"""What tests of studies share."""

from pathlib import Path

import pytest


@pytest.fixture
def short_grace(monkeypatch, tmp_path):
    """What a program leaves behind has a fifth of a second to end by itself."""
    from steelyard.study.program import process_guard

    text = Path(process_guard.__file__).read_text()
    assert "\nGRACE = 2.0\n" in text
    guard = tmp_path / "guard.py"
    guard.write_text(text.replace("\nGRACE = 2.0\n", "\nGRACE = 0.2\n"))
    monkeypatch.setattr(process_guard, "__file__", str(guard))
