"""Run a program in processes of its own, keep the beginning and the end of what it prints, and leave nothing behind."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from steelyard.errors import ProgramError
from steelyard.io.printable_text import printable
from steelyard.study.program import process_guard
from steelyard.study.program.command import Program

TICK = 0.1
"""Seconds between two looks at what the program has told."""
HEAD, TAIL = 6_000, 12_000
"""Bytes of output that are kept, of its beginning and of its end."""
LAST_WORDS = 3
"""Lines of output that stand beside the name of what happened."""
RANK_FAILED = re.compile(r"torch/distributed/elastic/.*failed \(exitcode: (-?\d+)\) local_rank: (\d+)")
"""The first line of what torchrun reports of a rank that failed: forty lines without what the rank printed."""
SENT_AWAY = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
"""Signals by which somebody else ends a program: memory that is used up, a node that is wanted back."""


class Output:
    """What a program prints, however much: the first bytes and the last ones."""

    def __init__(self) -> None:
        self.head, self.tail, self.size = b"", b"", 0

    def take(self, more: bytes) -> None:
        self.size += len(more)
        room = HEAD - len(self.head)
        self.head += more[:room]
        self.tail = (self.tail + more[room:])[-TAIL:]

    def __str__(self) -> str:
        left_out = self.size - len(self.head) - len(self.tail)
        gap = f"\n… {left_out:,} bytes of output left out …\n".encode() if left_out else b""
        return printable((self.head + gap + self.tail).decode(errors="replace").strip())

    @property
    def last_words(self) -> str:
        """The last lines, in one; of ranks their own, which stand before the launcher's report."""
        lines = [line.strip() for line in str(self).splitlines() if line.strip()]
        if self.failed_rank:
            lines = lines[: next(place for place, line in enumerate(lines) if RANK_FAILED.search(line))]
            lines = [line for line in lines if "torch/distributed/elastic/" not in line]
        return " / ".join(lines[-LAST_WORDS:])

    @property
    def failed_rank(self) -> tuple[int, int] | None:
        """The local rank that torchrun says failed first, and its exit code."""
        found = RANK_FAILED.search(str(self))
        return (int(found[2]), int(found[1])) if found else None


@dataclass(frozen=True)
class Ending:
    """How a program ended.

    Attributes:
        code: as a shell has it: 0 is well, below zero a signal.
        left: processes that it left behind, and that were ended.
    """

    code: int
    left: int
    output: Output

    @property
    def how(self) -> str:
        """Its last words in it; empty where all is well."""
        if not self.code:
            return ""
        who, code = "the program", self.code
        if self.output.failed_rank:
            rank, code = self.output.failed_rank
            who = f"local rank {rank} of the program"
        how = f"ends with exit code {code}" if code > 0 else f"was killed by {_signal(-code)}"
        hint = " (often because memory was used up)" if code == -signal.SIGKILL else ""
        words = self.output.last_words
        return f"{who} {how}{hint}" + (f": {words}" if words else ", and printed nothing")

    @property
    def sent_away(self) -> bool:
        """It, or one of its ranks, was ended by somebody else, and may be tried again."""
        rank = self.output.failed_rank
        return -self.code in SENT_AWAY or bool(self.code and rank and -rank[1] in SENT_AWAY)


def run(program: Program, environment: Mapping[str, str], on_tick: Callable[[], None] = lambda: None) -> Ending:
    """Run it to its end; `on_tick` is called ten times a second. If this process dies, so does the program.

    Raises:
        ProgramError: it cannot be started.
    """
    if os.name != "posix":
        raise ProgramError("programs are run on Linux and macOS; on Windows use its Linux subsystem, or a problem file")
    status, told = os.pipe()
    words = [sys.executable, "-I", "-S", process_guard.__file__, str(told), *program.command]
    try:
        guard = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=program.folder,
            env={**os.environ, **environment},
            pass_fds=(told,),
            start_new_session=True,
        )
    except OSError as error:
        os.close(status)
        raise ProgramError(f"cannot run {program.text} in {program.folder}: {error.strerror}") from error
    finally:
        os.close(told)
    output = Output()
    try:
        _follow(guard, output, on_tick)
        with os.fdopen(status, "rb") as file:
            how, *rest = file.read().decode().split(maxsplit=2) or ["lost"]
    finally:
        assert guard.stdin is not None
        assert guard.stdout is not None
        guard.stdin.close()  # by which the guard knows that it is to end everything
        guard.stdout.close()
        guard.wait()
    if how == "unstartable":
        raise ProgramError(f"cannot start {program.command[0]!r} in {program.folder}: {' '.join(rest)}")
    if how == "lost":
        return Ending(-signal.SIGKILL, 0, output)
    return Ending(int(rest[0]), int(rest[1]), output)


def _follow(guard: subprocess.Popen[bytes], output: Output, on_tick: Callable[[], None]) -> None:
    """Read what is printed until all that could print has ended."""
    assert guard.stdout is not None
    there, ticked = guard.stdout.fileno(), 0.0
    while True:
        if select.select([there], [], [], TICK)[0]:
            more = os.read(there, 2**16)
            if not more:
                break
            output.take(more)
        if time.monotonic() - ticked >= TICK:
            on_tick()
            ticked = time.monotonic()
    on_tick()


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
