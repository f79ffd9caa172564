"""--device, --per-device and --precision on every command that trains."""

import pytest
import torch

NONE_HERE = torch.cuda.device_count() == 0 and torch.mps.device_count() == 0
COMMANDS = {
    "compare": ("compare", "digits"),
    "group": ("group", "digits", "--budget", 3),
    "diagnose": ("diagnose", "digits"),
    "reproduce": ("reproduce", "db-mtl", "--quick"),
}


@pytest.mark.skipif(torch.cuda.device_count() > 0, reason="a CUDA device is here")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_device_that_is_not_here_names_what_is_and_leaves_nothing(run, tmp_path, command):
    code, _, errors = run(*COMMANDS[command], "--device", "cuda")
    assert code == 2
    assert "no device cuda on this machine, only " in " ".join(errors.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--device", "gpu"), "no device called 'gpu': take one of auto, cpu, cuda, mps"),
        (("--precision", "fp8"), "unknown precision 'fp8'"),
    ],
    ids=["device", "precision"],
)
def test_what_nobody_knows_is_refused_by_name(run, tmp_path, command, words, says):
    code, _, errors = run(*COMMANDS[command], *words)
    assert code == 2
    assert says in " ".join(errors.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not NONE_HERE, reason="an accelerator is here")
@pytest.mark.takes("the server that forks workers imports torch for the first test that needs it")
def test_auto_says_in_one_line_what_it_took_and_the_plan_says_the_precision(run):
    options = ("--methods", "equal", "--seeds", 1, "--epochs", 1, "--workers", 1)
    code, said, _ = run("compare", "digits", *options, "--device", "auto", "--precision", "bf16", "--dry-run")
    assert code == 0
    assert "Device: cpu, the only one that trials can have here." in said


@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("auto", marks=pytest.mark.skipif(not NONE_HERE, reason="here"))]
)
def test_trials_that_share_a_gpu_are_not_counted_on_a_cpu_in_silence(run, device):
    words = ("--methods", "equal", "--seeds", 1, "--epochs", 1, "--workers", 1, "--dry-run", "--device", device)
    assert "--per-device" not in run("compare", "digits", *words)[1]
    code, said, _ = run("compare", "digits", *words, "--per-device", 3)
    assert code == 0
    assert "--per-device 3 counts the trials that share a GPU: on the CPU, --workers does." in " ".join(said.split())


def test_a_program_sees_to_its_device_itself(run):
    code, _, errors = run("compare", "--device", "cuda", "--precision", "bf16", "--", "python", "train.py")
    assert code == 2
    assert "--device, --precision: a program sees to that itself" in " ".join(errors.split())


def test_a_diagnosis_in_half_precision_is_near_that_in_float32(run):
    found = [run("diagnose", "digits", "--epochs", 1, "--precision", name)[1] for name in ("float32", "bf16")]
    assert found[0] != found[1]
    assert all("conflict" in text or "dominate" in text for text in found)
