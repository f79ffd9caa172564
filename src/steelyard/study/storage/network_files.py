"""Trained networks as safetensors, in a folder beside the store: one file for each trial that is kept."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from torch import Tensor

from steelyard import __version__
from steelyard.errors import StoreError
from steelyard.io.writing import replacing
from steelyard.study.trial import Trial

MADE_BY = "steelyard-network/1"


def pack(trial: Trial, state: Mapping[str, Tensor], epoch: int | None = None) -> bytes:
    """A ``state_dict()`` as a file of safetensors that says which trial it is of, and of which epoch."""
    from safetensors.torch import save

    # Copies: tensors that share memory are refused.
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    told = {"made by": f"{MADE_BY} {__version__}", "trial": trial.canonical()}
    packed: bytes = save(tensors, metadata=told if epoch is None else {**told, "epoch": str(epoch)})
    return packed


def epoch_of(file: Path) -> int | None:
    """The epoch that `pack` was given; None where it was none, or the file is not whole."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as opened:
            said = (opened.metadata() or {}).get("epoch", "")
    except SafetensorError:
        return None
    return int(said) if said.isdecimal() else None


def unpack(file: Path) -> dict[str, Tensor]:
    """What `pack` was given."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        found: dict[str, Tensor] = load(file.read_bytes())
    except SafetensorError as error:
        raise StoreError(f"the network {file} cannot be read: {error}") from error
    return found


class Networks:
    """The folder of a store's networks; it is made with the first and goes with the last."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def file(self, trial: Trial) -> Path:
        return self.folder / f"{trial.key}.safetensors"

    def has(self, trial: Trial) -> bool:
        return self.file(trial).is_file()

    def add(self, trial: Trial, weights: bytes) -> None:
        """Write whole or not at all.

        Raises:
            StoreError: the disk is full or the folder cannot be written.
        """
        try:
            self.folder.mkdir(exist_ok=True)
            with replacing(self.file(trial)) as file:
                file.write(weights)
        except OSError as error:
            raise StoreError(
                f"cannot write the network {self.file(trial)}: {error}. Free some space and run the same command "
                "again, or keep none"
            ) from error

    def tidy(self) -> None:
        """Remove what a study that was killed had half written."""
        for partial in self.folder.glob("*.partial"):
            partial.unlink(missing_ok=True)

    def drop(self, trial: Trial) -> None:
        self.file(trial).unlink(missing_ok=True)
        with suppress(OSError):  # others are in it
            self.folder.rmdir()
