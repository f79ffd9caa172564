"""Engines for tests: the trials of a study in this very process, or made up."""

from steelyard.study.running.events import Finished
from steelyard.study.running.worker import Work, perform
from study import made_up


class InProcess:
    """Trains one piece of work after another, here. It is its own session."""

    places = 1

    def __init__(self):
        self.waiting, self.trained = [], []

    def get_ready(self):
        pass

    def open(self, job):
        self.job = job
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.waiting.clear()

    def submit(self, trials):
        self.waiting.append(trials)

    def events(self):
        while self.waiting:
            trials = self.waiting.pop(0)
            self.trained.extend(trials)
            yield from ((trials[place], event) for place, event in self.told(trials))

    def told(self, trials):
        told = []
        work = Work(self.job.reference, trials, self.job.checkpoints, self.job.origin, self.job.keep)
        perform(work, lambda *event: told.append(event))
        return told


class MadeUp(InProcess):
    """Trains nothing: every metric is 0.5."""

    def told(self, trials):
        results = [made_up.result({task: [0.5, 0.5] for task in trial.tasks}) for trial in trials]
        return [(place, Finished(result)) for place, result in enumerate(results)]
