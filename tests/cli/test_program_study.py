"""Whole studies of a program by the command: the same answer as of a problem file, stopped and gone on, by torchrun."""

import json
import os
import runpy
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from steelyard import study
from steelyard.errors import StoreError
from steelyard.problems import load_problem
from steelyard.study.storage.store import Store
from study.processes import alive_in_session, hear_interrupts, rows_written, wait_for

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits_program.py"
STEELYARD = [sys.executable, "-m", "steelyard"]
ALONE = (sys.executable, "digits_program.py")
TWO_RANKS = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "digits_program.py")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the program of the examples."""
    shutil.copy(EXAMPLE, tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def of_this_folder(folder):
    """Processes that work in a folder, whatever session they are in."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                there = os.readlink(f"/proc/{name}/cwd")
            except OSError:
                continue
            if Path(there) == Path(folder).resolve() and alive(name):
                found.append(int(name))
    return found


def alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.takes("torch is imported by two programs")
def test_a_program_is_asked_and_trained_and_its_network_kept(run, here):
    plan = study.plan_program(ALONE, ["equal"], seeds=[3], epochs=2)
    assert plan.task_names == ("left", "right")
    (row,) = study.run(plan, "one.sqlite", workers=1, progress=False, keep="best").rows
    assert (row.seeds, row.failed) == (1, 0)
    assert [path.name for path in here.glob("one.sqlite?*")] == ["one.sqlite.networks"]

    code, out, err = run("export", "one.sqlite", "--method", "equal", "--out", "equal.safetensors")
    assert code == 0, err
    assert out.startswith("Written: equal.safetensors, equal of seed 3")
    program = runpy.run_path("digits_program.py")
    network = program["Network"](program["trunk"](), {task: program["head"]() for task in plan.task_names})
    network.load_state_dict(load_file("equal.safetensors"))
    test = load_problem("digits").data().test
    right = {
        task: (network(test.inputs)[0][task].argmax(1) == test.targets[task]).double().mean()
        for task in plan.task_names
    }
    with Store("one.sqlite") as store:
        (result,) = store.results(plan.trials).values()
    assert result.test == {task: [float(value)] for task, value in right.items()}

    code, out, err = run("export", "one.sqlite", "--method", "equal", "--out", "equal.pt2")
    assert code == 2
    assert "builds its networks itself, so that a study has their weights alone: `steelyard export one.sqlite" in err
    with pytest.raises(StoreError, match=r"load them into your own, model\.load_state_dict"):
        study.network("one.sqlite", "equal")


@pytest.mark.slow("torch is imported by four programs")
def test_a_program_is_compared_by_the_command(run, here):
    words = ["compare", "--methods", "equal", "--seeds", "1", "--epochs", "2", "--workers", "2", "--", *ALONE]
    code, out, err = run(*words)
    assert code == 0, err
    assert out.startswith(f"Asking {sys.executable} digits_program.py what it trains.\n")
    code, out, err = run("report", "steelyard-digits_program.sqlite", "--json", "all.json")
    judgement = json.loads(Path("all.json").read_text())
    assert (judgement["complete"], judgement["failures"]) == (True, [])
    assert [task["name"] for task in judgement["tasks"]] == ["left", "right"]
    assert judgement["command"].endswith("digits_program.py")
    page = Path("steelyard-digits_program.html").read_text()
    assert "batches of" not in page
    assert "hard-sharing" not in page
    assert {path.name for path in here.iterdir()} == {
        *("digits_program.py", "all.json", "steelyard-digits_program.html", "steelyard-digits_program.sqlite"),
        "steelyard-digits_program.sqlite.networks",
    }


SHARDED = """
import steelyard, torch
from torch import distributed, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

trial = steelyard.trial(tasks={"a": "rmse", "b": "rmse"}, epochs=2)
distributed.init_process_group("gloo")
torch.manual_seed(trial.seed)

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk, self.heads = nn.Linear(4, 8), nn.ModuleDict({task: nn.Linear(8, 1) for task in trial.tasks})

    def forward(self, x):
        return {task: head(self.trunk(x)) for task, head in self.heads.items()}

model = Model()
fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
balancer = trial.balancer().attach(optimizer)
whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
for epoch in (1, 2):
    outputs = model(torch.randn(16, 4))
    optimizer.zero_grad()
    balancer({task: output.square().mean() for task, output in outputs.items()}).backward()
    optimizer.step()
    rmse = {task: 1 / epoch for task in trial.tasks}
    trial.report(epoch, rmse, rmse, network=lambda: get_model_state_dict(model, options=whole))
distributed.barrier()  # gloo's threads may abort where one rank hangs up while another is at work
distributed.destroy_process_group()
"""


@pytest.mark.slow("torch is imported by six programs")
def test_a_network_that_is_sharded_over_the_ranks_is_gathered_and_kept(here):
    Path("sharded.py").write_text(SHARDED)
    plan = study.plan_program([*TWO_RANKS[:-1], "sharded.py"], ["equal"], seeds=1)
    judgement = study.run(plan, "s.sqlite", workers=1, progress=False, keep="best")
    assert "\n".join(failure.error for failure in judgement.failures) == ""
    (weights,) = networks_of("s.sqlite").values()
    assert {name: len(each) for name, each in weights.items()} == {
        **{"trunk.weight": 8, "trunk.bias": 8},
        **{f"heads.{task}.{name}": 1 for task in "ab" for name in ("weight", "bias")},
    }


@pytest.mark.slow("three studies of real seeds and epochs")
def test_the_three_faces_answer_the_same_question_with_the_same_verdict(here):
    """A problem and a program: the same numbers; that program on two ranks: the same sums in another order."""
    methods, options = ["single-task", "equal", "fixed(weights='right: 0.01')"], {"seeds": 3, "epochs": 8}
    plans = [
        study.plan("digits", methods, **options),
        study.plan_program(ALONE, methods, **options),
        study.plan_program(TWO_RANKS, methods, **options),
    ]
    found = [study.run(plan, f"{place}.sqlite", progress=False) for place, plan in enumerate(plans)]
    for judgement in found:
        assert not judgement.failures
        assert not [text for text in judgement.cautions if "do not start alike" in text]
    verdicts = [[(cell.method, cell.task, cell.verdict) for cell in judgement.cells] for judgement in found]
    assert verdicts[0] == verdicts[1] == verdicts[2]
    means = [[cell.mean for cell in judgement.cells] for judgement in found]
    assert means[0] == means[1]
    assert means[0] == pytest.approx(means[2], abs=0.02)  # 60 of 3,000 test rows, on average over the seeds
    assert "negative transfer" in {verdict for *_, verdict in verdicts[0]}, "right has next to no weight"


WORDS = ("compare", "--methods", "equal", "--tasks", "left,right", "--seeds", "1", "--epochs", "30", "--workers", "1")


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory):
    """The store of the study that nobody stops: what all others are held to."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copy(EXAMPLE, folder)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    words = [*STEELYARD, *WORDS, "--store", "whole.sqlite", "--", *TWO_RANKS]
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    return folder / "whole.sqlite"


@pytest.mark.slow("a study of a program on two ranks is killed, and goes on")
@pytest.mark.skipif(sys.platform != "linux", reason="orphans in other sessions are found on Linux alone")
@pytest.mark.parametrize("how", ["ctrl-c", "kill -9", "kill -9 of the group"])
def test_a_study_that_is_stopped_leaves_no_process_and_goes_on_with_the_same_numbers(here, never_stopped, how):
    running = subprocess.Popen(
        [*STEELYARD, *WORDS, "--", *TWO_RANKS],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hear_interrupts,
    )
    store = here / "steelyard-digits_program.sqlite"
    checkpoints = here / "steelyard-digits_program.sqlite.checkpoints"
    wait_for(lambda: list(checkpoints.glob("*/checkpoint.pt")), running)
    if how == "ctrl-c":
        os.killpg(running.pid, signal.SIGINT)
        assert running.wait(timeout=240) == 130
        assert f"-- {sys.executable} -m torch.distributed.run" in running.stderr.read()
    else:
        (os.killpg if "group" in how else os.kill)(running.pid, signal.SIGKILL)
        running.wait()
    wait_for(lambda: not alive_in_session(running.pid) and not of_this_folder(here))
    before = rows_written(store) if store.exists() else {}
    epochs = {file.parent.name: reported(file) for file in checkpoints.glob("*/reports.jsonl")}
    for _ in range(2):  # what failed is trained again: gloo aborts now and then on a crowded machine
        done = subprocess.run([*STEELYARD, *WORDS, "--", *TWO_RANKS], capture_output=True, text=True)
        if "SIGABRT" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr
    after = rows_written(store)
    assert len(after) == 3
    assert before.items() <= after.items()
    assert any(epochs.values())

    assert found_in(store) == found_in(never_stopped)
    assert networks_of(store) == networks_of(never_stopped) != {}


def reported(file):
    return [json.loads(line)["epoch"] for line in file.read_text().splitlines() if '"kind": "epoch"' in line]


def networks_of(store):
    """The weights that are kept beside it, by trial."""
    return {
        file.stem: {name: value.tolist() for name, value in load_file(file).items()}
        for file in Path(f"{store}.networks").iterdir()
    }


def found_in(store):
    """What trials found, but for times and memory."""
    with sqlite3.connect(store) as connection:
        rows = connection.execute("SELECT key, result FROM trial WHERE status = 'finished'").fetchall()
    return {key: [json.loads(result)[name] for name in ("test", "last", "chosen_epoch")] for key, result in rows}
