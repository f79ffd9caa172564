"""Studies on a Ray cluster of two nodes: the table of this machine's processes, whatever happens to the nodes."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

pytest.importorskip("ray", reason="Ray is not installed: make test-integrations")
import ray
from ray.cluster_utils import Cluster

from steelyard import cli, study
from steelyard.errors import EngineError, OptionError
from steelyard.study.running.engines import load_engine
from steelyard.study.running.engines.interface import Job
from steelyard.study.running.events import Epoch, Finished, Started
from steelyard.study.running.send_to_engine import dispatch
from steelyard.study.storage.store import Store
from study import made_up
from study.processes import rows_written, table, wait_for

METHODS = ["single-task", "equal", "random"]
# A look every half second: a node that is gone is missed within two.
WATCHED = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 3,
}

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def cluster():
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": WATCHED})
    made.add_node(num_cpus=2)
    yield made
    made.shutdown()


@pytest.fixture
def on(cluster):
    """Two nodes, whatever the test before did."""
    if len(cluster.worker_nodes) < 2:
        cluster.add_node(num_cpus=2)
    yield f"ray(address='{cluster.address}')"
    ray.shutdown()


@pytest.fixture
def slow_digits(tmp_path):
    """The digits, so slow that a trial is caught in the act; what is slow is in a module beside it."""
    (tmp_path / "ray_helper.py").write_text(
        "import time\ndef prepare(inputs):\n    time.sleep(0.004)\n    return inputs\n"
    )
    path = tmp_path / "slow_digits.py"
    path.write_text(
        "import dataclasses\n"
        "from ray_helper import prepare\n"
        "from steelyard.problems.builtin.digits import problem as digits\n"
        'problem = dataclasses.replace(digits, name="slow", prepare=prepare)\n'
    )
    yield path
    sys.modules.pop("ray_helper", None)
    sys.path[:] = [folder for folder in sys.path if folder != str(tmp_path)]


def test_two_nodes_give_the_table_of_one_process(on, tmp_path):
    plan = study.plan("digits", METHODS, seeds=2, epochs=2, tune=2)
    here = study.run(plan, tmp_path / "here", workers=1, progress=False)
    there = study.run(plan, tmp_path / "there", on=on, progress=False)
    assert there.complete
    assert table(there) == table(here)


@pytest.mark.parametrize("shared", [True, False])
def test_a_node_that_is_removed_changes_nothing(on, cluster, slow_digits, tmp_path, shared):
    """In the middle of its trials, with checkpoints at an address that all nodes see, or beside the store."""
    plan, store = study.plan(str(slow_digits), ["equal", "random"], seeds=2, epochs=30), tmp_path / "there"
    whole = study.run(plan, tmp_path / "here", workers=2, progress=False)
    folder = tmp_path / "checkpoints"
    node = cluster.worker_nodes.copy().pop()
    removed = threading.Event()

    def remove():
        wait_for(lambda: list((folder if shared else tmp_path / "there.checkpoints").glob("*.pt")), seconds=400)
        cluster.remove_node(node, allow_graceful=False)
        removed.set()

    thread = threading.Thread(target=remove)
    thread.start()
    checkpoints = f"file://{folder}" if shared else None
    found = study.run(plan, store, on=on, checkpoints=checkpoints, progress=False)
    thread.join()
    assert removed.is_set()
    assert found.complete
    assert table(found) == table(whole)
    assert not list(folder.glob("*.pt"))


SCRIPT = """
    import sys
    from steelyard import study
    methods = ["single-task", "equal", "random"]
    study.compare(sys.argv[1], methods, seeds=2, epochs=12, store=sys.argv[2], on=sys.argv[3],
                  progress=False)
    print("done", flush=True)
"""


def test_a_driver_that_is_killed_and_started_again_repeats_no_finished_trial(on, slow_digits, tmp_path):
    store = tmp_path / "s.sqlite"
    plan = study.plan(str(slow_digits), METHODS, seeds=2, epochs=12)
    whole = study.run(plan, tmp_path / "whole", workers=2, progress=False)

    def start():
        command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(slow_digits), str(store), on]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    with start() as process:
        wait_for(lambda: rows_written(store), process, seconds=400)
        os.kill(process.pid, signal.SIGKILL)
    written = rows_written(store)
    assert 0 < len(written) < len(plan.trials)
    with start() as process:
        out, err = process.communicate(timeout=400)
    assert out == b"done\n", err.decode()
    assert {key: when for key, when in rows_written(store).items() if key in written} == written
    assert table(study.judge(store)) == table(whole)


def test_a_thousand_short_trials_are_finished_and_written(cluster, tmp_path):
    """The trials sleep; what the study and Ray add to them is measured by `benchmarks/engines.py`, and printed here."""
    trials = made_up.plan(methods=("equal", "dwa"), seeds=500).trials
    result = made_up.result({"left": 0.5, "right": 0.5})

    def sleep(luggage, trials, checkpoints, keep, sharing):
        yield 0, Started("somewhere")
        time.sleep(0.05)
        yield 0, Epoch(1)
        yield 0, Finished(result)

    engine = load_engine(f"ray(address='{cluster.address}',cpus=0.125)")
    opened = engine.open(Job("made-up", None, tmp_path / "c", False, tmp_path / "r", None))
    enter = opened.__enter__

    class Sleeping:
        def open(self, job):
            return self

        def __enter__(self):
            enter()
            opened.task = ray.remote(sleep).options(num_returns="streaming", max_retries=0, num_cpus=0.125)
            return opened

        def __exit__(self, *error):
            opened.__exit__(*error)

    with Store(tmp_path / "s.sqlite", write=True) as store:
        started = None
        for trial, event in dispatch(Sleeping(), opened.job, trials):
            started = started or time.perf_counter()
            if isinstance(event, Finished):
                store.add_result(trial, event.result)
        took = time.perf_counter() - started
        assert len(store.finished()) == 1000
    places = 8 * 2 * 2
    each = (took - 0.05 * 1000 / places) / 1000
    print(f"{1000 * each:.1f} ms of scheduling for each of 1,000 trials")


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("ray(cpus=0)", OptionError, "cpus=0"),
        ("ray(gpus=-1)", OptionError, "gpus=-1"),
        ("ray(address='ray://head:10001')", OptionError, "streams no events"),
    ],
)
def test_what_cannot_be_is_refused(text, error, says):
    with pytest.raises(error, match=says):
        load_engine(text)


def test_no_cluster_at_the_address(tmp_path, monkeypatch):
    ray.shutdown()
    monkeypatch.setattr(ray, "init", lambda *_, **__: (_ for _ in ()).throw(ConnectionError("nobody answers")))
    with pytest.raises(EngineError, match=r"no cluster at 127\.0\.0\.1:1: nobody answers"):
        study.run(made_up.plan(), tmp_path / "s.sqlite", on="ray(address='127.0.0.1:1')", progress=False)


def test_the_command_on_a_cluster_and_a_prediction_with_its_best_network(on, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["compare", "digits", "--methods", "equal,uw", "--seeds", "2", "--epochs", "1", "--on", on]
    monkeypatch.setattr(sys, "argv", ["steelyard", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    said = capsys.readouterr().out
    assert "In your own loop: " in said
    (line,) = [line.strip() for line in said.splitlines() if "model = network(" in line]
    names = {"network": study.network}
    exec(line, names)
    images = names["model"].problem.data().test.inputs
    outputs = names["model"].predict(images)
    assert {task: len(found) for task, found in outputs.items()} == {"left": len(images), "right": len(images)}
