"""What worker processes inherit."""

from __future__ import annotations

import os
import select
import signal
import threading

import pytest

from steelyard.study.running.environment import no_interrupts


@pytest.mark.parametrize("threads", [0, 1])
def test_an_interrupt_while_a_worker_starts_is_delivered_afterwards(threads: int) -> None:
    """With another thread as well: the system may hand it the signal, and the main thread must still wait."""
    done = threading.Event()
    others = [threading.Thread(target=done.wait) for _ in range(threads)]
    for other in others:
        other.start()
    reached = False
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # deaf where run in the background
    heard, hears = os.pipe()  # is written to when the signal has arrived, in whatever thread
    os.set_blocking(hears, False)
    waker = signal.set_wakeup_fd(hears)
    try:
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012  (where it is raised is the point)
            with no_interrupts():
                os.kill(os.getpid(), signal.SIGINT)
                if threads:  # it waits for this thread otherwise, which blocks it
                    assert select.select([heard], [], [], 60)[0]
                reached = True
            select.select([heard], [], [], 60)
            raise AssertionError("the interrupt was lost")
    finally:
        signal.set_wakeup_fd(waker)
        os.close(heard)
        os.close(hears)
        signal.signal(signal.SIGINT, before)
        done.set()
        for other in others:
            other.join()
    assert reached, "the interrupt came too early"


def test_the_handler_of_interrupts_is_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with no_interrupts():
        pass
    assert signal.getsignal(signal.SIGINT) is before
