"""Checkpoints of running trials, so that a killed one goes on where it was."""

from __future__ import annotations

import io
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from steelyard import __version__
from steelyard.errors import SteelyardWarning, StoreError
from steelyard.io.writing import replacing
from steelyard.study.storage.checksum import seal, unseal
from steelyard.study.trial import Trial

LAYOUT = 3  # raised whenever what a checkpoint holds changes
HEAD = b"Steelyard checkpoint\n"
MADE_BY = {"steelyard": __version__, "torch": str(torch.__version__), "layout": LAYOUT}


def save_checkpoint(path: Path, trial: Trial, state: dict[str, Any]) -> None:
    """Write whole or not at all: a kill or a power cut leaves the old checkpoint or the new one, never half.

    Raises:
        StoreError: the disk is full or the folder cannot be written.
    """
    content = io.BytesIO()
    torch.save({"trial": trial.key, "made by": MADE_BY, **state}, content)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(seal(HEAD, content.getvalue()))
    except OSError as error:
        raise StoreError(
            f"cannot write the checkpoint {path}: {error}. Free some space and run the same command again; finished "
            "trials are stored."
        ) from error


def load_checkpoint(path: Path, trial: Trial) -> dict[str, Any] | None:
    """The state of this trial, None where there is none that is whole and fits: then the trial starts anew."""
    try:
        file = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    content = unseal(HEAD, file)
    if content is None:
        _discard(path, "is damaged or of an earlier version")
        return None
    state: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True)
    if state.get("trial") != trial.key or state.get("made by") != MADE_BY:
        _discard(path, f"is of another trial or made by other versions ({state.get('made by')})")
        return None
    return state


def remove_checkpoint(path: Path) -> None:
    with suppress(OSError):  # a short trial has none
        path.unlink()


def tidy(folder: Path) -> None:
    """Remove what killed workers were writing, and the folder if that leaves it empty; no worker may be running."""
    for partial in folder.glob("*.partial"):
        partial.unlink(missing_ok=True)
    with suppress(OSError):  # there are checkpoints to go on from
        folder.rmdir()


def _discard(path: Path, reason: str) -> None:
    warnings.warn(f"the checkpoint {path} {reason}: its trial starts anew", SteelyardWarning, stacklevel=3)
