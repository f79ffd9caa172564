"""What worker processes inherit."""

from __future__ import annotations

import os
import signal

import pytest

from steelyard.study.pool import _no_interrupts


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="signals cannot be blocked on this system")
def test_an_interrupt_while_a_worker_starts_is_delivered_afterwards() -> None:
    reached = False
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # deaf where run in the background
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012  (where it is raised is the point)
        with _no_interrupts():
            os.kill(os.getpid(), signal.SIGINT)
            reached = True
        raise AssertionError("the interrupt was lost")
    signal.signal(signal.SIGINT, before)
    assert reached, "the interrupt came too early"
