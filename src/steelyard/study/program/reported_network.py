"""The networks that a program gives with its reports: weights lie in the trial's folder until the study takes them.

There is a file for each epoch that may still be the chosen one. A program that is killed goes on from what it saved
last and need not find again what it found after that: the best epoch of what is saved keeps its file beside the best.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from steelyard.balancing.balancer import Balancer
from steelyard.errors import ProgramError
from steelyard.io.writing import replacing
from steelyard.study.storage.network_files import epoch_of, pack
from steelyard.study.trial import Trial

FILE = "network-{epoch}.safetensors"
REPLICA, COMPILED = "module.", "_orig_mod"
"""What DDP and DataParallel, and `torch.compile`, put into the names of weights."""
LARGEST = 2**31
"""Bytes of a network's weights: the study holds them in memory while it writes them beside its store."""

GIVE_NONE = "leave network= away (with a callback, TrialCallback(…, network=False))"

NetworkState = Mapping[str, Tensor]
NetworkLike = nn.Module | NetworkState | Callable[[], nn.Module | NetworkState]
"""A network, its ``state_dict()``, or a function that gives one of these."""


def weights_of(network: NetworkLike) -> dict[str, Tensor]:
    """Its tensors under the names that they have without wrappers, and without balancers that are modules of it.

    Of a state dict the names alone are known: where all of them begin with ``module.``, that is taken for DDP's.
    """
    given = network() if callable(network) and not isinstance(network, nn.Module) else network
    if isinstance(given, nn.Module):
        return _of_module(given)
    if not isinstance(given, Mapping):
        raise ProgramError(f"network={type(given).__name__}: give the network, or its state_dict()")
    weights = {_uncompiled(name): value for name, value in given.items() if isinstance(value, Tensor)}
    in_ddp = all(name.startswith(REPLICA) for name in weights)
    return {name.removeprefix(REPLICA): value for name, value in weights.items()} if in_ddp else weights


def _of_module(module: nn.Module) -> dict[str, Tensor]:
    """A module may itself have a submodule named ``module``: that of DDP and DataParallel alone is taken off."""
    parts = [(f"{name}." if name else "", part) for name, part in module.named_modules(remove_duplicate=False)]
    balancers = tuple(name for name, part in parts if isinstance(part, Balancer))
    # Inner ones first: what is taken off further out changes their names.
    wrappers = [name for name, part in reversed(parts) if isinstance(part, DataParallel | DistributedDataParallel)]

    def bare(name: str) -> str:
        for place in wrappers:
            if name.startswith(place + REPLICA):
                name = place + name.removeprefix(place + REPLICA)
        return _uncompiled(name)

    state = module.state_dict()
    return {
        bare(name): value
        for name, value in state.items()
        if isinstance(value, Tensor) and not name.startswith(balancers)
    }


def _uncompiled(name: str) -> str:
    """`torch.compile` puts its name wherever in the network it was called."""
    return ".".join(part for part in name.split(".") if part != COMPILED)


def write_weights(folder: Path, trial: Trial, epoch: int, weights: NetworkState) -> None:
    """Write those of an epoch beside those of others, whole or not at all.

    Raises:
        ProgramError: there are none, or more than a study keeps.
    """
    if not weights:
        raise ProgramError("network= holds no tensors: give the network, or its state_dict()")
    shards = [name for name, value in weights.items() if hasattr(value, "full_tensor")]
    if shards:
        raise ProgramError(
            f"network= holds {shards[0]!r} as a shard of it (DTensor): give a function that gathers, network=lambda: "
            "get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True)); or "
            f"{GIVE_NONE}"
        )
    size = sum(value.numel() * value.element_size() for value in weights.values())
    if size > LARGEST:
        raise ProgramError(
            f"network= holds {size / 2**30:.1f} GiB, and a study keeps at most {LARGEST / 2**30:g}: {GIVE_NONE}, "
            "and keep it in a place of the program's own"
        )
    with replacing(folder / FILE.format(epoch=epoch)) as file:
        file.write(pack(trial, weights, epoch))


def drop_weights(folder: Path, wanted: Callable[[int], bool]) -> None:
    """Remove those of all epochs but the wanted ones."""
    for epoch, file in list(_files(folder)):
        if not wanted(epoch):
            file.unlink(missing_ok=True)


def _files(folder: Path) -> Iterator[tuple[int, Path]]:
    """By epoch."""
    pattern = re.compile(re.escape(FILE).replace(r"\{epoch\}", r"(\d+)"))
    for file in folder.iterdir() if folder.is_dir() else ():
        if found := pattern.fullmatch(file.name):
            yield int(found[1]), file


def read_weights(folder: Path, epoch: int) -> tuple[bytes | None, str]:
    """The file of the chosen epoch's weights; without it, what is to be said of that."""
    files = dict(_files(folder))
    if not files:
        return None, ""  # the program gives none
    if epoch not in files:
        return None, (
            f"the network is not kept: validation chose epoch {epoch}, and the program gave that of "
            f"epoch {max(files)} last: write network= in every trial.report"
        )
    if epoch_of(files[epoch]) != epoch:
        return None, f"the network is not kept: {files[epoch].name} of epoch {epoch} is not whole"
    return files[epoch].read_bytes(), ""
