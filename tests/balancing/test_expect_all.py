"""A rank that does not come to balance with the others: named for what is known of it, and waited for."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from steelyard.balancing.distributed import pace
from steelyard.errors import StateError, SteelyardWarning

dist = pytest.importorskip("torch.distributed")
if not dist.is_available():
    pytest.skip("torch without torch.distributed", allow_module_level=True)


class Ranks:
    """Three ranks, of which this process plays one at a time, and a clock that only moves while one waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, minutes: int = 10) -> None:
        self.group, self.rank, self.now = "all", 0, 0.0
        self.comes: dict[float, Callable[[], None]] = {}
        self.store = dist.HashStore()
        self.store.set_timeout(datetime.timedelta(minutes=minutes))
        self.counted: dict[int, Any] = {}
        monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: self.now, sleep=self.sleep))
        monkeypatch.setattr(pace.dist, "get_process_group_ranks", lambda group: [0, 1, 2])
        monkeypatch.setattr(pace.dist, "get_rank", lambda: self.rank)
        monkeypatch.setattr(pace.dist.distributed_c10d, "_get_default_store", lambda: self.store)
        monkeypatch.setattr(pace, "_COUNTED", self)

    def setdefault(self, key: int, value: Any) -> Any:
        return self.counted.setdefault(self.rank, value)

    def sleep(self, seconds: float) -> None:
        self.now += 1.0
        for when in [each for each in self.comes if each <= self.now]:
            self.comes.pop(when)()

    def on(self, rank: int, act: Callable[[], Any]) -> None:
        before, self.rank = self.rank, rank
        act()
        self.rank = before

    def comes_at(self, when: float, rank: int) -> None:
        """To the common balancer; it does not wait for itself here."""
        self.comes[when] = lambda: self.on(rank, functools.partial(pace._note, "together/0,1,2"))


def test_a_late_rank_with_a_balancer_of_its_own_is_named_once_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = Ranks(monkeypatch)
    ranks.on(1, pace.leave_alone)
    ranks.on(1, pace.leave_alone)
    ranks.comes_at(5, 2)
    ranks.comes_at(300, 1)
    with pytest.warns(SteelyardWarning) as said:
        pace.expect_all(ranks, "exact")
    (text,) = [str(each.message) for each in said]
    assert text.startswith(
        "rank 1 has not come for 20 s to the first call of a balancer that rank 0 has made with sync="
    )
    assert "it is late or stopped, or its balancer was made with sync='off' (a balancer with sync='off' has" in text
    assert ranks.now == 300


def test_ranks_of_which_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = Ranks(monkeypatch)
    ranks.comes_at(50, 1)
    ranks.comes_at(60, 2)
    with pytest.warns(SteelyardWarning, match="ranks 1, 2 have not come for 20 s") as said:
        pace.expect_all(ranks, "exact")
    (text,) = [str(each.message) for each in said]
    assert "they are late or stopped, or their balancers were made with sync='off'. Make" in text


def test_ranks_that_come_in_time_hear_nothing(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    ranks = Ranks(monkeypatch)
    for _ in range(2):  # a second balancer's first call is another one
        ranks.comes_at(ranks.now + 19, 1)
        ranks.comes_at(ranks.now + 18, 2)
        pace.expect_all(ranks, "exact")
    assert ranks.now == 38
    assert not recwarn.list


def test_a_rank_that_never_comes_is_waited_for_as_a_collective_would(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ranks = Ranks(monkeypatch)
    ranks.on(2, pace.leave_alone)
    ranks.comes_at(5, 1)
    with pytest.warns(SteelyardWarning), pytest.raises(StateError, match="rank 2 has not come for 600 s"):
        pace.expect_all(ranks, "local-mean")
    assert ranks.now == 601
