"""Trials on a second device (see `second_device_checks.py`), in a process that knows it from the start."""

import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    "which",
    [
        pytest.param("not slow", marks=pytest.mark.takes("a process of its own, and a device in Python")),
        pytest.param("slow", marks=pytest.mark.slow("a small trial of every method at every place, twice")),
    ],
)
def test_trials_on_a_second_device(which):
    checks = Path(__file__).with_name("second_device_checks.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", which, str(checks)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    passed, skipped = (int((re.findall(rf"(\d+) {word}", done.stdout) or ["0"])[-1]) for word in ("passed", "skipped"))
    if not passed and skipped:
        pytest.skip("this torch has no backends in Python")
    assert passed > 50
