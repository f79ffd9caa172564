"""Programs of trainers report to a study by a callback, and Accelerate by the call itself."""

from __future__ import annotations

import ast
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

import steelyard

EXAMPLES = Path(__file__).parents[2] / "examples"
PROGRAMS = {"lightning_program": "lightning", "hf_program": "transformers", "accelerate_program": "accelerate"}


class Trial:
    """Takes note of what is reported."""

    tasks = ("a", "b")

    def __init__(self) -> None:
        self.told: list[tuple] = []
        self.networks: list[object] = []
        self.should_stop = False

    def start(self, network: object) -> None:
        self.told.append(("start", network))

    def report(self, epoch: int, validation: object, test: object, network: object = None) -> bool:
        self.told.append((epoch, validation, test))
        self.networks.append(network)
        return True


@pytest.mark.parametrize("trainer", ["lightning", "transformers"])
def test_a_callback_has_the_option_that_a_refused_network_is_advised_to(trainer: str) -> None:
    """Read from its text: the trainer need not be installed."""
    from steelyard.study.program.reported_network import GIVE_NONE

    source = Path(steelyard.__file__).parent / "integrations" / f"{trainer}.py"
    (callback,) = [
        each for each in ast.parse(source.read_text()).body if getattr(each, "name", None) == "TrialCallback"
    ]
    assert isinstance(callback, ast.ClassDef)
    (made,) = [each for each in callback.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"]
    defaults = dict(zip([each.arg for each in made.args.kwonlyargs], made.args.kw_defaults, strict=True))
    assert isinstance(defaults["network"], ast.Constant)
    assert defaults["network"].value is True
    assert "TrialCallback(…, network=False)" in GIVE_NONE


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_study_trains_the_examples_program(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec(PROGRAMS[name]) is None:
        pytest.skip(f"{PROGRAMS[name]} is not installed: make test-integrations")
    from steelyard import study
    from steelyard.study.storage.network_files import unpack

    monkeypatch.setenv("PYTHONPATH", ":".join(path for path in sys.path if path))
    shutil.copy(EXAMPLES / f"{name}.py", tmp_path)
    program, methods = [sys.executable, f"{name}.py"], ["single-task", "db-mtl"]
    plan = study.plan_program(program, methods, seeds=1, patience=2, folder=str(tmp_path))
    judgement = study.run(plan, tmp_path / "study.sqlite", workers=2, progress=False, keep="best")
    assert judgement.complete, [failure.error for failure in judgement.failures]
    assert len(judgement.cells) == 4
    networks = tmp_path / "study.sqlite.networks"
    assert {path.name for path in networks.iterdir()} == {f"{trial.key}.safetensors" for trial in plan.trials}
    for trial in plan.trials:
        names = unpack(networks / f"{trial.key}.safetensors")
        assert {task for task in plan.task_names if f"heads.{task}.weight" in names} == set(trial.tasks)
        assert not [each for each in names if "balancer" in each or each.startswith("module.")]


LAUNCHERS = {
    "accelerate launch": ["accelerate.commands.launch", "--cpu", "--num_processes", "2"],
    "torchrun": ["torch.distributed.run", "--nproc-per-node", "2"],
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_study_trains_a_program_of_two_processes(
    launcher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both gather and report the same numbers, the first tells the study; what is kept has no wrapper's names."""
    if find_spec("accelerate") is None:
        pytest.skip("accelerate is not installed: make test-integrations")
    from steelyard import study
    from steelyard.study.storage.network_files import unpack

    monkeypatch.setenv("PYTHONPATH", ":".join(path for path in sys.path if path))
    shutil.copy(EXAMPLES / "accelerate_program.py", tmp_path)
    launch = [sys.executable, "-m", *LAUNCHERS[launcher]]
    plan = study.plan_program([*launch, "accelerate_program.py"], ["uw"], seeds=1, folder=str(tmp_path))
    judgement = study.run(plan, tmp_path / "study.sqlite", workers=1, progress=False, keep="best")
    assert judgement.complete, [failure.error for failure in judgement.failures]
    (kept,) = (tmp_path / "study.sqlite.networks").iterdir()
    assert "trunk.0.weight" in unpack(kept)


def test_lightning_reports_what_is_logged_and_not_what_the_sanity_check_finds() -> None:
    if find_spec("lightning") is None:
        pytest.skip("lightning is not installed: make test-integrations")
    from steelyard.errors import ProgramError
    from steelyard.integrations.lightning import TrialCallback

    trial = Trial()
    callback = TrialCallback(
        trial, validation={"a": "a/0", "b": {"rmse": "b/0"}, "not trained": "c/0"}, test={"a": "a/1", "b": "b/1"}
    )
    logged = {"a/0": 1.0, "a/1": 2.0, "b/0": 3.0, "b/1": 4.0}
    state = SimpleNamespace(fn="fit")
    trainer = SimpleNamespace(
        sanity_checking=True, current_epoch=0, global_step=0, callback_metrics=logged, state=state
    )
    callback.on_validation_end(trainer, "model")
    assert trial.told == []
    callback.on_train_start(trainer, "model")
    trainer.sanity_checking = False
    callback.on_validation_end(trainer, "model")
    assert trial.told == [("start", "model"), (1, {"a": 1.0, "b": {"rmse": 3.0}}, {"a": 2.0, "b": 4.0})]
    assert trial.networks == ["model"]
    assert not hasattr(trainer, "should_stop")
    trial.should_stop = True
    callback.on_validation_end(trainer, "model")
    assert trainer.should_stop
    told = list(trial.told)
    state.fn = "validate"  # trainer.validate(…), before or after
    callback.on_validation_end(trainer, "model")
    assert trial.told == told
    state.fn = "fit"
    TrialCallback(trial, validation=callback.validation, test=callback.test, network=False).on_validation_end(
        trainer, "model"
    )
    assert trial.networks == ["model", "model", None]
    del logged["b/1"]
    with pytest.raises(ProgramError, match=r"the model logs no 'b/1': self.log\('b', …\)"):
        callback.on_validation_end(trainer, "model")


def test_hugging_face_reports_an_epoch_once_both_sets_are_evaluated_at_its_end() -> None:
    if find_spec("transformers") is None:
        pytest.skip("transformers is not installed: make test-integrations")
    from steelyard.errors import ProgramError
    from steelyard.integrations.transformers import TrialCallback

    trial = Trial()
    callback = TrialCallback(trial, metrics={"a": "a_rmse", "b": {"mae": "b_mae"}, "not trained": "c"})

    control = SimpleNamespace(should_training_stop=False)

    def evaluated(epoch: float, part: str, **metrics: float) -> None:
        named = {f"eval_{part}_{name}": value for name, value in metrics.items()}
        callback.on_evaluate(None, SimpleNamespace(epoch=epoch), control, metrics=named, model="model")

    evaluated(0.5, "validation", a_rmse=9.0, b_mae=9.0)
    evaluated(0.5, "test", a_rmse=9.0, b_mae=9.0)
    evaluated(1.0, "validation", a_rmse=1.0, b_mae=2.0)
    assert trial.told == []
    evaluated(1.0, "test", a_rmse=3.0, b_mae=4.0)
    evaluated(1.0, "test", a_rmse=9.0, b_mae=9.0)  # once more when training is done
    assert trial.told == [(1, {"a": 1.0, "b": {"mae": 2.0}}, {"a": 3.0, "b": {"mae": 4.0}})]
    assert trial.networks == ["model"]
    assert not control.should_training_stop
    trial.should_stop = True
    evaluated(2.0, "validation", a_rmse=1.0, b_mae=2.0)
    evaluated(2.0, "test", a_rmse=1.0, b_mae=2.0)
    assert control.should_training_stop
    callback = TrialCallback(trial, metrics=callback.metrics, network=False)
    evaluated(3.0, "validation", a_rmse=1.0, b_mae=2.0)
    evaluated(3.0, "test", a_rmse=1.0, b_mae=2.0)
    assert trial.networks == ["model", "model", None]
    with pytest.raises(ProgramError, match="compute_metrics gives no 'b_mae'; there are a_rmse"):
        evaluated(4.0, "validation", a_rmse=1.0)
