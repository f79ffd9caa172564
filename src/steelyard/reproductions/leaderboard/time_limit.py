"""Stop a study in order after some time: what is finished is kept, and what runs goes on from its checkpoint."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from steelyard.study.running.engines.interface import Engine, Job, Session, device_for
from steelyard.study.running.events import Event
from steelyard.study.trial import Trial


class TimeIsUpError(Exception):
    """The time that was given is over; nothing is wrong."""


@dataclass(frozen=True)
class Deadline:
    """A moment of `time.monotonic`; infinity never comes."""

    moment: float

    @classmethod
    def after(cls, hours: float) -> Deadline:
        return cls(time.monotonic() + 3600 * hours)

    def check(self) -> None:
        """Raise `TimeIsUpError` once it is over."""
        if time.monotonic() >= self.moment:
            raise TimeIsUpError


@dataclass(frozen=True)
class UntilEngine:
    """An engine until a deadline: between two events of its trials it looks at the clock.

    Trials tell of their epochs several times a second, so that this is soon.
    """

    engine: Engine
    deadline: Deadline

    def get_ready(self) -> None:
        self.engine.get_ready()

    def device(self, asked: str) -> str:
        return device_for(self.engine, asked)

    @contextmanager
    def open(self, job: Job) -> Iterator[Session]:
        opened: AbstractContextManager[Session] = self.engine.open(job)
        with opened as session:
            yield _UntilSession(session, self.deadline)


@dataclass(frozen=True)
class _UntilSession:
    session: Session
    deadline: Deadline

    @property
    def places(self) -> int:
        return self.session.places

    def submit(self, trials: tuple[Trial, ...]) -> None:
        self.session.submit(trials)

    def events(self) -> Iterator[tuple[Trial, Event]]:
        self.deadline.check()
        for trial, event in self.session.events():
            yield trial, event  # first: what is finished is written down
            self.deadline.check()
