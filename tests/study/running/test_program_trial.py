"""One trial of a program, by a worker: what it tells of programs that do as they should, and of all others by name.

The programs here speak to the study without Steelyard, so that they start in a moment.
"""

import dataclasses
import json
import sys

import pytest

from steelyard.errors import TrainingError
from steelyard.study.planning.provenance import Origin
from steelyard.study.program import process
from steelyard.study.program.command import Program
from steelyard.study.program.declaration import declare
from steelyard.study.running.events import Epoch, Finished, Lost, Started, Warned
from steelyard.study.running.worker import Work, perform
from steelyard.study.trial import Failed, Trial

linux = pytest.mark.skipif(sys.platform != "linux", reason="orphans in other sessions are found on Linux alone")
SPEAKS = """
import json, os, sys, time
HERE = json.load(open(os.environ["STEELYARD_TRIAL"]))
TRIAL = HERE["trial"]
def say(kind, **values):
    with open(HERE["answer"], "a") as file:
        file.write("\\n" + json.dumps({"run": HERE["run"], "process": os.getpid(), "kind": kind, **values}) + "\\n")
def epoch(number, value=0.5, process=None):
    each = dict.fromkeys(TRIAL["tasks"], 1.0)
    validation = dict.fromkeys(TRIAL["tasks"], value + number / 100)
    say("epoch", epoch=number, validation=validation, losses=each, weights=each, spreads=each, steps=10,
        seconds=2.0, memory=1.0, test={task: [value] for task in TRIAL["tasks"]},
        **({} if process is None else {"process": process}))
say("asked")
"""


@pytest.fixture
def train(tmp_path):
    """Has a worker run a script for a trial; gives what it tells."""
    trial = Trial("mine", "equal", ("a", "b"), 0, (("a", 1.0), ("b", 1.0)), epochs=2, batch_size=0)

    def run(script, command=None, speaks=SPEAKS, checkpoints=tmp_path / "checkpoints", keep=False):
        (tmp_path / "program.py").write_text(speaks + script)
        program = Program(command or (sys.executable, "-S", "program.py"), str(tmp_path))
        origin = Origin.of_program(program, declare({"a": "rmse", "b": "rmse"}, epochs=2), [trial])
        told = []
        work = Work(program.reference, (trial,), checkpoints, origin, keep)
        perform(work, lambda place, event: told.append(event))
        return told

    run.trial, run.folder = trial, tmp_path / "checkpoints" / trial.key
    return run


def test_a_program_that_reports_is_finished(train):
    told = train("epoch(1); epoch(2)")
    assert isinstance(told[0], Started)
    assert Epoch(2) in told
    assert isinstance(told[-1], Finished)
    found = told[-1].result
    assert (found.chosen_epoch, found.steps, found.seconds, found.steps_per_second) == (1, 20, 4.0, 5.0)
    assert found.curves.validation["a"] == [0.51, 0.52]


def test_it_is_told_its_trial_and_where_it_may_keep_things(train):
    told = train("json.dump(HERE, open('seen', 'w')); epoch(1); epoch(2)")
    assert isinstance(told[-1], Finished)
    seen = json.loads((train.folder.parent.parent / "seen").read_text())
    assert seen["folder"] == str(train.folder)
    assert seen["trial"]["method"] == "equal"


def test_where_checkpoints_are_an_address_its_folder_is_one_of_this_machine(train):
    told = train("open(HERE['folder'] + '/kept', 'w'); epoch(1); epoch(2)", checkpoints="memory://checkpoints")
    assert isinstance(told[-1], Finished)


def test_a_program_that_was_stopped_goes_on_with_what_it_reported(train):
    (lost,) = [event for event in train("epoch(1, .3); os.kill(os.getpid(), 15)") if isinstance(event, Lost)]
    assert lost.reason.startswith("the program was killed by SIGTERM")
    told = train("epoch(2)")
    assert told[-1].result.curves.validation["a"] == [0.31, 0.52]


NETWORK = """
def network(number):  # as safetensors has it: the length of a header of JSON, the header, and numbers
    header = json.dumps({"__metadata__": {"epoch": str(number)}}).encode()
    with open(HERE["folder"] + f"/network-{number}.safetensors", "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
"""


@pytest.mark.parametrize("checkpoints", ["here", "memory://checkpoints"])
def test_the_network_of_the_chosen_epoch_comes_with_the_result(train, tmp_path, checkpoints):
    there = tmp_path / "checkpoints" if checkpoints == "here" else checkpoints
    told = train("network(1); epoch(1); epoch(2)", speaks=SPEAKS + NETWORK, checkpoints=there, keep=True)
    assert b'"epoch": "1"' in told[-1].weights
    assert not [event for event in told if isinstance(event, Warned)]


def test_after_a_stop_the_network_that_was_kept_is_still_there(train):
    train("network(1); epoch(1, .3); os.kill(os.getpid(), 15)", speaks=SPEAKS + NETWORK, keep=True)
    assert b'"epoch": "1"' in train("epoch(2)", keep=True)[-1].weights


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("network(2)", "validation chose epoch 1, and the program gave that of epoch 2 last"),
        (
            "open(HERE['folder'] + '/network-1.safetensors', 'w').write('text')",
            "network-1.safetensors of epoch 1 is not whole",
        ),
    ],
)
def test_a_network_of_another_epoch_is_not_kept_and_that_is_said(train, script, says):
    told = train(f"epoch(1); {script}; epoch(2)", speaks=SPEAKS + NETWORK, keep=True)
    assert isinstance(told[-1], Finished)
    assert told[-1].weights is None
    (warned,) = [event.text for event in told if isinstance(event, Warned)]
    assert f"the network is not kept: {says}" in warned


@pytest.mark.parametrize("keep", [True, False])
def test_a_program_that_gives_no_network_or_is_not_asked_for_it_keeps_none(train, keep):
    gives = "" if keep else "network(1); "
    assert train(f"{gives}epoch(1); epoch(2)", speaks=SPEAKS + NETWORK, keep=keep)[-1].weights is None


FAILURES = {
    "reports nothing": ("print('hello')", "ends without an error and reports nothing"),
    "stops early": ("epoch(1); print('hello')", "ends without an error and reports 1 of 2 epochs"),
    "raises an error": ("print('hello'); raise ValueError('bad')", "exit code 1.*ValueError: bad"),
    "ends with a code": ("print('hello'); sys.exit(7)", "the program ends with exit code 7: hello"),
    "crashes": ("print('hello', flush=True); os.abort()", "the program was killed by SIGABRT: hello"),
    "refuses": ("print('hello'); say('refused', error='accuracy is nan')", "^accuracy is nan$"),
    "refuses and dies": ("print('hello'); say('refused', error='it is nan'); sys.exit(1)", "^it is nan$"),
    "takes no such flag": (
        "print('hello'); import argparse; argparse.ArgumentParser().parse_args(['--data', 'x'])",
        "exit code 2: hello / usage: .* error: unrecognized arguments: --data x",
    ),
    "waits for somebody to type": ("print('hello'); input()", "exit code 1.*EOFError"),
    "prints what is no text": (
        "print('hello', flush=True); sys.stdout.buffer.write(bytes(range(256)) * 100); sys.exit(3)",
        "exit code 3: ",
    ),
    "prints one line without an end": ("print('hello'); print('x' * 10**7, end=''); sys.exit(3)", "exit code 3: "),
    "forks, and both go on": (
        "print('hello', flush=True); child = os.fork(); epoch(1); epoch(2); child and os.waitpid(child, 0)",
        "two of its processes report epoch 1: report from the first alone",
    ),
    "two report": ("print('hello'); epoch(1); epoch(1, process=1); epoch(2)", "two of its processes report epoch 1"),
}


FINE = {
    "changes its folder": "os.chdir('/')",
    "closes what it prints to": "os.close(1); os.close(2)",
    "is deaf to signals": "import signal; [signal.signal(each, signal.SIG_IGN) for each in (1, 2, 15)]",
    "forks children that report nothing": "child = os.fork(); child or os._exit(0); os.waitpid(child, 0)",
    "has flags like those of a study": "assert sys.argv[1:] == ['--seeds', '7', '--', '--methods=uw', ''], sys.argv",
    "closes its input": "os.close(0)",
    "forgets its environment": "os.environ.clear()",
}


@pytest.mark.parametrize("habit", FINE)
def test_what_programs_may_do_costs_them_nothing(train, habit):
    flags = (sys.executable, "-S", "program.py", "--seeds", "7", "--", "--methods=uw", "")
    told = train(f"{FINE[habit]}\nepoch(1); epoch(2)", flags)
    assert isinstance(told[-1], Finished), told[-1]
    assert not [event for event in told if isinstance(event, Warned)]


@pytest.mark.parametrize("failure", FAILURES)
def test_each_way_to_fail_has_its_name_and_shows_the_output(train, failure):
    script, says = FAILURES[failure]
    failed = train(script)[-1]
    assert isinstance(failed, Failed)
    with pytest.raises(Exception, match=says):
        raise RuntimeError(failed.error)
    assert failed.traceback.startswith("The program's output:\n")
    assert "hello" in failed.traceback


def test_a_program_that_never_asks_for_its_trial_is_told(train):
    failed = train("print('hello')", speaks="")[-1]
    assert failed.error == "the program ends without having called steelyard.trial(…)"
    assert failed.traceback.endswith("hello")


def test_a_command_that_is_not_there_is_told(train):
    failed = train("", command=("not-here", "x"))[-1]
    assert failed.error.startswith("cannot start 'not-here' in ")


def test_a_million_lines_are_capped(train):
    failed = train("for _ in range(200_000): print('a line')\nsys.exit('over')")[-1]
    assert failed.error.endswith("a line / a line / over")
    assert len(failed.traceback) < process.HEAD + process.TAIL + 200


@linux
def test_children_that_outlive_the_program_are_ended_and_that_is_said(train, short_grace):
    told = train("import subprocess; subprocess.Popen(['sleep', '600'], start_new_session=True); epoch(1); epoch(2)")
    assert Warned("1 process of the program outlived it, and was ended") in told
    assert isinstance(told[-1], Finished)


@linux
def test_a_program_that_goes_into_the_background_is_told(train, short_grace):
    failed = train("os.fork() and os._exit(0); os.setsid(); time.sleep(60); epoch(1); epoch(2)")[-1]
    assert failed.error.endswith(
        "reports nothing: trial.report(…) follows each epoch; 1 process of the program outlived it, and was ended: "
        "what is started has to stay until all is trained"
    )


def test_a_program_that_was_edited_since_is_not_run(train, tmp_path):
    program = Program((sys.executable, "program.py"), str(tmp_path))
    (tmp_path / "program.py").write_text("")
    origin = Origin.of_program(program, declare({"a": "rmse", "b": "rmse"}, epochs=2), [train.trial])
    (tmp_path / "program.py").write_text("edited = True")
    told = []
    perform(Work(program.reference, (train.trial,), None, origin), lambda place, event: told.append(event))
    assert isinstance(told[-1], Failed)
    assert told[-1].error.startswith(f"{TrainingError.__module__}.TrainingError")
    assert "program.py was changed while the study was running" in told[-1].error


def test_trials_are_known_by_the_command_and_the_code(train, tmp_path):
    (tmp_path / "program.py").write_text("")
    declared = declare({"a": "rmse", "b": "rmse"}, epochs=2)

    def mark(*words):
        return Origin.of_program(Program(words, str(tmp_path)), declared, [train.trial]).mark(train.trial)

    first = mark("python", "program.py", "--size", "1")
    assert mark("python", "program.py", "--size", "2") != first
    assert mark("python", "program.py", "--size", "1") == first
    (tmp_path / "program.py").write_text("edited = True")
    assert mark("python", "program.py", "--size", "1") != first
    assert dataclasses.replace(train.trial, problem="x").key != train.trial.key
