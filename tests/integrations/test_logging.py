"""The recipes of docs/logging.md run as shown, and what they wrote can be read again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import steelyard

PAGE = (Path(__file__).parent.parent.parent / "docs" / "logging.md").read_text()


def recipe(title: str) -> str:
    """The page's loop, and the block below a title."""
    loop = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    block = re.search(rf"## {title}.*?```python\n(.*?)```", PAGE, re.DOTALL)
    assert loop is not None
    assert block is not None
    return loop.group(1) + block.group(1)


def run(title: str) -> steelyard.Balancer:
    namespace: dict = {"__name__": "logging"}
    exec(compile(recipe(title), f"docs/logging.md: {title}", "exec"), namespace)
    return namespace["balancer"]


def test_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed: make test-integrations")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.chdir(tmp_path)
    balancer = run("TensorBoard")
    written = EventAccumulator("runs/balanced")
    written.Reload()
    assert set(written.Tags()["scalars"]) == set(balancer.metrics())
    assert [event.step for event in written.Scalars("weight/a")] == [0, 5]


def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed: make test-integrations")
    monkeypatch.chdir(tmp_path)
    balancer = run("MLflow")
    found = mlflow.MlflowClient().search_runs([mlflow.get_experiment_by_name("balanced").experiment_id])
    assert len(found) == 1
    assert set(found[0].data.metrics) == {name.replace(",", "-") for name in balancer.metrics()}
    assert [point.step for point in mlflow.MlflowClient().get_metric_history(found[0].info.run_id, "loss/a")] == [0, 5]
    mlflow.set_tracking_uri(None)


def test_trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trackio", reason="trackio is not installed")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    run("trackio")


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.chdir(tmp_path)
    run("Weights & Biases, offline")
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
