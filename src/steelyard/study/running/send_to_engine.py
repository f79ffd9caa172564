"""Hand the trials of a study to an engine, and try again what gets lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence

from steelyard.errors import StoreError
from steelyard.study.program.command import Program
from steelyard.study.running.engines.interface import Engine, Job
from steelyard.study.running.events import Alone, Event, Lost, Unwritable
from steelyard.study.training.ensemble import groups
from steelyard.study.trial import Failed, Trial

TRIES = 3


def dispatch(engine: Engine, job: Job, trials: Sequence[Trial]) -> Generator[tuple[Trial, Event], None, None]:
    """What happens to the trials; each ends once, finished or failed. Close it to stop them all.

    A trial whose worker is gone is tried again, by itself. One that is lost `TRIES` times ends as failed, without a
    traceback: the next run of the study goes on from its checkpoint.

    Raises:
        StoreError: a checkpoint cannot be written.
    """
    losses: Counter[Trial] = Counter()
    with engine.open(job) as session:
        alone = Program.read(job.reference) is not None
        for group in [(trial,) for trial in trials] if alone else groups(trials, session.places):
            session.submit(group)
        for trial, event in session.events():
            if isinstance(event, Unwritable):
                raise StoreError(event.reason)
            if isinstance(event, Alone):
                session.submit((trial,))
                continue
            if isinstance(event, Lost):
                losses[trial] += 1
                if losses[trial] == TRIES:
                    yield trial, Failed(f"lost {TRIES} times: {event.reason}", "")
                    continue
                session.submit((trial,))
            yield trial, event
