"""The frameworks' examples run as shown."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def run(command: list[str], folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize(
    ("name", "framework", "printed"),
    [
        ("lightning_module", "lightning", "mean weight"),
        ("hf_trainer", "transformers", "eval_loss"),
        ("accelerate_loop", "accelerate", "weight/size"),
        ("fabric_loop", "lightning", "weight/size"),
    ],
)
def test_example(name: str, framework: str, printed: str, tmp_path: Path) -> None:
    if find_spec(framework) is None:
        pytest.skip(f"{framework} is not installed: make test-integrations")
    assert printed in run([sys.executable, str(EXAMPLES / f"{name}.py")], tmp_path)


def test_accelerate_launch_with_two_processes(tmp_path: Path) -> None:
    if find_spec("accelerate") is None:
        pytest.skip("accelerate is not installed: make test-integrations")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    printed = run([*launch, str(EXAMPLES / "accelerate_loop.py")], tmp_path)
    assert printed.count("weight/size") == 3, "one line an epoch, from the main process alone"
