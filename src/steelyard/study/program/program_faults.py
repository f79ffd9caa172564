"""What a program can do wrong with its trial, each refused with the line that mends it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from steelyard.errors import ProgramError, UnknownNameError
from steelyard.study.program.reported_values import Values
from steelyard.study.program.step_meter import StepMeter
from steelyard.study.trial import Trial


def check_epoch(epoch: int, expected: int | None, known: int, epochs: int) -> None:
    """Raise a `ProgramError` unless this is the epoch that comes.

    Args:
        epoch: that is reported.
        expected: the one after the last that this process reported; None before its first.
        known: how many an earlier start of the trial has reported.
        epochs: how many the trial has.
    """
    if isinstance(epoch, bool) or not isinstance(epoch, int) or epoch < 1:
        raise ProgramError(f"epoch {epoch!r}: epochs are whole numbers, counted from 1")
    if expected is None:
        if epoch > known + 1:
            before = f"before it epochs 1 to {known} were reported" if known else "epochs are counted from 1"
            before += " (call trial.save after trial.report, so that no epoch is saved and not reported)"
            raise ProgramError(f"epoch {epoch} is the first to be reported: {before}")
    elif epoch < expected:
        raise ProgramError(f"epoch {epoch} is reported twice")
    elif epoch > expected:
        raise ProgramError(f"epoch {epoch} is reported, and epoch {expected} was not")
    if epoch > epochs:
        raise ProgramError(f"epoch {epoch} is reported, and the trial has {epochs}: train trial.epochs of them")


def check_balanced(meter: StepMeter | None) -> None:
    """Raise a `ProgramError` where an epoch is reported that no balancer had a part in."""
    if meter is None:
        raise ProgramError(
            "the program never calls trial.balancer(), so that every method would train the same: write balancer = "
            "trial.balancer() and loss = balancer(losses)"
        )
    if not meter.steps:
        raise ProgramError("the balancer of trial.balancer() was not called before the first report")
    if not meter.count:
        raise ProgramError(
            "the balancer of trial.balancer() was not called in training mode since the last report: is it in eval(), "
            "as a part of a network that is? Call .train() before each epoch"
        )


def check_read(read: Collection[str], planned: Trial) -> None:
    """Raise a `ProgramError` where the program trains something else than its study asks: it never `read` what differs
    from trial to trial."""
    asked = {
        "seed": ("trial.seed", True),
        "fraction": ("trial.fraction", any(each != 1 for _, each in planned.fractions)),
        "learning_rate": ("trial.learning_rate", planned.learning_rate is not None),
        "division": ("trial.division", planned.resplit),
    }
    for what, (attribute, wanted) in asked.items():
        if wanted and what not in read:
            raise ProgramError(
                f"the program never reads {attribute}, and the study asks for a {what.replace('_', ' ')} of its "
                "own: trials would differ in name alone"
            )


def check_patience(epoch: int, patience: int, read: Collection[str], ended: bool) -> None:
    """Raise a `ProgramError` where the program trains on when it is to stop, or never asks whether it is."""
    how = "write `if trial.should_stop: break` after trial.report"
    if "should_stop" not in read:
        raise ProgramError(f"the program never reads trial.should_stop, and the study asks for patience: {how}")
    if ended:
        raise ProgramError(
            f"epoch {epoch} is reported, and training was to end after epoch {epoch - 1}: the last "
            f"{patience} were no better on validation data; {how}"
        )


def refuse_others(values: Values, tasks: Sequence[str], declared: Sequence[str]) -> None:
    """Raise where values are reported of tasks that are not trained, or that nobody has declared."""
    others = [name for name in values if name not in tasks]
    if not others:
        return
    if all(name in declared for name in others):
        raise ProgramError(
            f"the program reports {', '.join(others)}, and is asked to train {', '.join(tasks)} alone: "
            "build, train and report trial.tasks"
        )
    raise UnknownNameError("task of the program:", others[0], declared)
