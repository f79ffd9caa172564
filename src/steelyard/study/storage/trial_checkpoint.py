"""Checkpoints of running trials, so that a killed one goes on where it was."""

from __future__ import annotations

import io
import shutil
import warnings
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch
from fsspec.core import url_to_fs

from steelyard import __version__
from steelyard.errors import SteelyardWarning, StoreError
from steelyard.io.writing import replacing
from steelyard.study.storage.checksum import seal, unseal
from steelyard.study.trial import Trial

BESIDE_STORE = ".checkpoints"
"""What is put behind a store's name for the folder of its checkpoints."""

LAYOUT = 3  # raised whenever what a checkpoint holds changes
HEAD = b"Steelyard checkpoint\n"
MADE_BY = {"steelyard": __version__, "torch": str(torch.__version__), "layout": LAYOUT}


Folder = Path | str
"""Of checkpoints; text like ``s3://bucket/folder`` is one that fsspec opens."""


def as_folder(given: Folder) -> Folder:
    """A path to a folder that is there from now on, or the text of an address as fsspec takes them.

    Raises:
        StoreError: nothing can be written in it; it is no address, or nothing that is installed opens it.
    """
    if isinstance(given, Path) or "://" not in given:
        if not str(given).strip():
            raise StoreError("the folder for checkpoints has no name: give a folder, or leave it away")
        folder = Path(given).absolute()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=folder):
                pass
        except OSError as error:
            why = "it is no folder" if isinstance(error, FileExistsError) else error.strerror
            raise StoreError(f"cannot keep checkpoints in {given}: {why}. Choose another folder") from error
        return folder
    try:
        url_to_fs(given)
    except (ValueError, ImportError, OSError) as error:
        raise StoreError(f"cannot keep checkpoints at {given}: {error}") from error
    return given


def checkpoint_of(folder: Folder, trial: Trial) -> Folder:
    """The file in which a trial has its checkpoint."""
    name = f"{trial.key}.pt"
    return folder / name if isinstance(folder, Path) else f"{folder.rstrip('/')}/{name}"


def folder_of(folder: Path, trial: Trial) -> Path:
    """The folder in which a program that trains it keeps what it likes."""
    return folder / trial.key


def save_checkpoint(path: Folder, trial: Trial, state: dict[str, Any]) -> None:
    """Write whole or not at all: a kill or a power cut leaves the old checkpoint or the new one, never half.

    (At an address that is as its service has it; one of which half was written is noticed when it is read.)

    Raises:
        StoreError: the disk is full or the folder cannot be written.
    """
    content = io.BytesIO()
    torch.save({"trial": trial.key, "made by": MADE_BY, **state}, content)
    sealed = seal(HEAD, content.getvalue())
    try:
        if isinstance(path, Path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file:
                file.write(sealed)
        else:
            service, place = url_to_fs(path)
            service.makedirs(place.rpartition("/")[0], exist_ok=True)
            service.pipe_file(place, sealed)
    except OSError as error:
        raise StoreError(
            f"cannot write the checkpoint {path}: {error}. Free some space and run the same command again; finished "
            "trials are stored."
        ) from error


def load_checkpoint(path: Folder, trial: Trial) -> dict[str, Any] | None:
    """The state of this trial, None where there is none that is whole and fits: then the trial starts anew."""
    try:
        file = _read(path)
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


def _read(path: Folder) -> bytes:
    if isinstance(path, Path):
        return path.read_bytes()
    service, place = url_to_fs(path)
    content: bytes = service.cat_file(place)
    return content


def remove_checkpoint(path: Folder) -> None:
    """Remove a trial's checkpoint, and what its program kept beside it."""
    with suppress(OSError):  # a short trial has none
        if isinstance(path, Path):
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
            path.unlink()
        else:
            service, place = url_to_fs(path)
            service.rm_file(place)


def let_go(folder: Folder, trials: Iterable[Trial]) -> None:
    """Remove the checkpoints of trials that are stored: a kill may come between the one and the other."""
    try:
        if isinstance(folder, Path):
            there = {path.name for path in folder.iterdir()}
        else:
            service, place = url_to_fs(folder)
            there = {name.rpartition("/")[2] for name in service.ls(place, detail=False)}
    except OSError:  # there is none, or nothing in it can be read: the first checkpoint to be written says so
        return
    for trial in trials:
        if f"{trial.key}.pt" in there or trial.key in there:
            remove_checkpoint(checkpoint_of(folder, trial))


def tidy(folder: Folder) -> None:
    """Remove what killed workers were writing, and the folder if that leaves it empty; no worker may be running."""
    if not isinstance(folder, Path):  # nothing is written there under another name
        return
    with suppress(OSError):  # it can be no folder: the first checkpoint to be written says so
        for partial in folder.glob(".steelyard-*.partial"):  # others are not ours
            partial.unlink(missing_ok=True)
    if folder.suffix == BESIDE_STORE:  # beside the store; one that somebody chose stays
        with suppress(OSError):  # there are checkpoints to go on from
            folder.rmdir()


def _discard(path: Folder, reason: str) -> None:
    warnings.warn(f"the checkpoint {path} {reason}: its trial starts anew", SteelyardWarning, stacklevel=3)
