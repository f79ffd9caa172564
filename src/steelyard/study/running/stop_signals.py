"""End in order when told to end: workers stopped, the store closed, the terminal as it was."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class _Stop(KeyboardInterrupt):
    """Unwinds what is running, as Ctrl-C does."""


@contextmanager
def ending_in_order() -> Iterator[None]:
    """SIGTERM and SIGHUP leave the block as an exception does, and end the process only then, as they always would.

    Signals that the program handles itself or ignores (``nohup``) are left alone. A second one ends it at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = [number for number in ENDING if signal.getsignal(number) is signal.SIG_DFL]
    told: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        told.append(number)
        for each in heard:
            signal.signal(each, signal.SIG_DFL)
        raise _Stop

    for number in heard:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, signal.SIG_DFL)
        if told:
            signal.raise_signal(told[0])
