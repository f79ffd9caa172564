"""One trial of a program: it runs as it is, and what it reports becomes what every worker tells."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from steelyard.errors import ProgramError, TrainingError
from steelyard.io.printable_text import LONGEST_MESSAGE, printable
from steelyard.study.planning.provenance import Origin
from steelyard.study.program.assignment import VARIABLE, Assignment
from steelyard.study.program.command import Program
from steelyard.study.program.process import Ending, run
from steelyard.study.program.reported_network import read_weights
from steelyard.study.program.reports import History, ReportReader
from steelyard.study.running.events import Epoch, Event, Finished, Lost, Warned
from steelyard.study.storage.trial_checkpoint import Folder, folder_of
from steelyard.study.trial import Failed, Trial

REPORTS, ASSIGNMENT = "reports.jsonl", "assignment.json"


def train_by_program(
    trial: Trial,
    program: Program,
    checkpoints: Folder | None,
    origin: Origin | None,
    tell: Callable[[Event], None],
    keep: bool = False,
) -> Event:
    """Run it for this trial, tell how far it is, and say how that ended.

    Raises:
        TrainingError: its files were changed since the study was planned.
    """
    assert origin is not None
    assert origin.declared is not None
    if files := origin.code.edited():
        raise TrainingError(f"{', '.join(files)} was changed while the study was running: start the study again")
    declaration = origin.declared
    with ExitStack() as stack:
        if isinstance(checkpoints, Path):
            folder = folder_of(checkpoints, trial)
        else:  # an address, which a program cannot write to as to a folder: what it keeps stays on this machine
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="steelyard-trial-")))
        folder.mkdir(parents=True, exist_ok=True)
        run_id = uuid.uuid4().hex
        assignment = Assignment(run_id, str(folder / REPORTS), declaration, trial, str(folder), keep)
        assignment.write(folder / ASSIGNMENT)
        history, reader = History(declaration.only(trial.tasks), declaration.main), ReportReader(folder / REPORTS)

        def look() -> None:
            before = len(history.epochs)
            for report in reader.new():
                history.take(report)
            if len(history.epochs) != before:
                tell(Epoch(len(history.epochs)))

        try:
            ending = run(program, {VARIABLE: str(folder / ASSIGNMENT)}, look)
        except ProgramError as error:
            return Failed(printable(error, LONGEST_MESSAGE), "")
        told = _told(trial, history, run_id, ending, tell)
        if keep and isinstance(told, Finished):
            weights, why_not = read_weights(folder, told.result.chosen_epoch)
            told = Finished(told.result, weights)
            if why_not:
                tell(Warned(why_not))
        return told


def _told(trial: Trial, history: History, run_id: str, ending: Ending, tell: Callable[[Event], None]) -> Event:
    """How the trial ended: what the program itself refused comes first, then how it ended, then what is missing."""
    output = f"The program's output:\n{ending.output}"
    if refused := history.refused.get(run_id):
        return Failed(printable(refused, LONGEST_MESSAGE), output)
    if ending.code:
        how = printable(ending.how, LONGEST_MESSAGE)
        return Lost(how) if ending.sent_away else Failed(how, output)
    count = f"{ending.left} process{'' if ending.left == 1 else 'es'}"
    left = f"{count} of the program outlived it, and {'was' if ending.left == 1 else 'were'} ended"
    if run_id not in history.asked:
        return Failed("the program ends without having called steelyard.trial(…)", output)
    try:
        result = history.result(trial)
    except ProgramError as error:
        waits = f"; {left}: what is started has to stay until all is trained" if ending.left else ""
        return Failed(f"{error}{waits}", output)
    if ending.left:
        tell(Warned(left))
    return Finished(result)
