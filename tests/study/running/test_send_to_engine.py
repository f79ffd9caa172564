"""What a study does with what an engine tells: lost trials, trials sent back alone, a folder that takes nothing."""

import pytest
from rich.console import Console
from rich.progress import Progress

from steelyard import study
from steelyard.errors import StoreError
from steelyard.study.running import send_to_engine
from steelyard.study.running.engines.interface import Job
from steelyard.study.running.events import Alone, Epoch, Finished, Lost, Started, Unwritable, Warned
from steelyard.study.storage.store import Store
from study import made_up
from study.in_process import InProcess, MadeUp

PLAN = made_up.plan(methods=("equal", "dwa"), seeds=2)


class Losing(MadeUp):
    """Loses some trials so many times."""

    def __init__(self, times):
        super().__init__()
        self.times = times

    def told(self, trials):
        if self.times.get(trials[0], 0) > 0:
            self.times[trials[0]] -= 1
            return [(0, Started("there")), (0, Epoch(1)), (0, Lost("the node there is gone"))]
        return super().told(trials)


def run(tmp_path, engine, plan=PLAN):
    with open(tmp_path / "out", "w") as out, Progress(console=Console(file=out, width=150)) as bar:
        judgement = study.run(plan, tmp_path / "s.sqlite", progress=bar, on=engine)
        (task,) = bar.tasks
    assert (task.finished, task.completed) == (True, task.total)
    return judgement, (tmp_path / "out").read_text()


@pytest.mark.parametrize("times", range(4))
def test_a_lost_trial_is_tried_again_and_after_the_third_time_the_others_go_on(tmp_path, times):
    lost, *others = PLAN.trials
    engine = Losing({lost: times})
    judgement, said = run(tmp_path, engine)
    assert engine.trained == [lost, *others, *[lost] * min(times, 2)]
    assert said.count("is lost and tried again: the node there is gone") == min(times, 2)
    if times < 3:
        assert judgement.complete
        return
    (failure,) = judgement.failures
    assert (failure.method, failure.seed) == (lost.method, lost.seed)
    assert failure.error == "lost 3 times: the node there is gone"
    assert judgement.finished == len(others)


def test_the_next_run_tries_what_was_lost_from_its_checkpoint(tmp_path):
    lost = PLAN.trials[0]
    checkpoint = tmp_path / "s.sqlite.checkpoints" / f"{lost.key}.pt"
    checkpoint.parent.mkdir()
    checkpoint.touch()
    run(tmp_path, Losing({lost: 3}))
    assert checkpoint.exists()
    engine = MadeUp()
    assert run(tmp_path, engine)[0].complete
    assert engine.trained == [lost]
    assert not checkpoint.exists()


def test_what_cannot_be_trained_together_comes_back_alone(tmp_path, monkeypatch):
    class Apart(MadeUp):
        def told(self, trials):
            return super().told(trials) if len(trials) == 1 else [(place, Alone()) for place in range(len(trials))]

    monkeypatch.setattr(send_to_engine, "groups", lambda trials, places: [tuple(trials)])
    engine = Apart()
    assert run(tmp_path, engine)[0].complete
    assert engine.trained == PLAN.trials * 2


def test_a_checkpoint_that_cannot_be_written_stops_the_study_and_the_engine(tmp_path):
    class Full(MadeUp):
        def told(self, trials):
            return super().told(trials) if len(self.trained) == 1 else [(0, Unwritable("no room at all"))]

    engine = Full()
    with pytest.raises(StoreError, match="no room at all"):
        study.run(PLAN, tmp_path / "s.sqlite", progress=False, on=engine)
    assert len(engine.trained) == 2
    assert engine.waiting == []  # the session was left
    with Store(tmp_path / "s.sqlite") as store:
        assert len(store.finished()) == 1


def test_an_interrupt_leaves_the_session(tmp_path):
    class Interrupted(MadeUp):
        def told(self, trials):
            raise KeyboardInterrupt

    engine = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        study.run(PLAN, tmp_path / "s.sqlite", progress=False, on=engine)
    assert engine.waiting == []


def test_a_trial_trains_in_the_process_that_asks_for_it(tmp_path):
    """All that a worker does, without a worker: events in order, and the result of a real training."""
    plan = study.plan("digits", ["equal"], seeds=1, epochs=2)
    engine = InProcess()
    with engine.open(Job("digits", plan.origin, tmp_path, False, tmp_path, 1)):
        engine.submit(tuple(plan.trials))
        kinds = [type(event) for _, event in engine.events() if not isinstance(event, Warned)]
    assert kinds[0] is Started
    assert kinds[-1] is Finished
    assert set(kinds[1:-1]) == {Epoch}


@pytest.mark.parametrize("places", [["here", "here"], ["here", "there"]])
def test_the_bar_says_how_many_run_and_on_how_many_machines(tmp_path, places):
    seen = []

    class Told(MadeUp):
        def events(self):
            first, second = self.waiting.pop(0), self.waiting.pop(0)
            yield first[0], Started(places[0])
            yield second[0], Started(places[1])
            seen.append(self.bar.tasks[0].description)
            self.waiting = [first, second, *self.waiting]
            yield from super().events()

    engine = Told()
    with open(tmp_path / "out", "w") as out, Progress(console=Console(file=out)) as engine.bar:
        study.run(PLAN, tmp_path / "s.sqlite", progress=engine.bar, on=engine)
        (task,) = engine.bar.tasks
    where = "" if places[0] == places[1] else " on 2 machines"
    assert seen == [f"0 of 4 trials, 2 running{where}"]
    assert task.description == "4 of 4 trials"
