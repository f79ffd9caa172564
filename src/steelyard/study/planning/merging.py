"""The trials of several stores in one: seeds that were trained on several machines, or a study that came by mail."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from steelyard.errors import StoreError
from steelyard.io.writing import replacing
from steelyard.study.planning.readable_rows import check_readable
from steelyard.study.storage.short_curves import is_short_of, same_training
from steelyard.study.storage.sqlite_file import COLUMNS
from steelyard.study.storage.store import Store
from steelyard.study.storage.trials_file import StoreRow, canonical, is_trials_file, read_rows


@dataclass(frozen=True)
class Merged:
    """What came out of one source.

    Attributes:
        taken: trials that were new, or finished where they had failed.
        known: trials that were there, with the same values.
        differ: finished trials that were there with other values; what was there is kept.
        plans: plans that were new.
    """

    source: Path
    taken: int
    known: int
    differ: int
    plans: int


def merge(into: Path | str, sources: list[Path]) -> list[Merged]:
    """Bring all trials of stores, or files of trials, into a store, which is made if it is not there.

    Nothing that is in it changes, but for trials that failed there and finished elsewhere, and curves that were
    shortened there and are whole elsewhere; its latest plan stays the latest. Trained networks come along from stores
    that kept them.

    Args:
        into: the store.
        sources: stores, and files that `steelyard report STORE --trials FILE` wrote.

    Raises:
        DamagedStoreError: something in a source, or in the store, is not as it was written.
        StoreError: a source is missing, no store, or is the store itself. Sources are looked through first: nothing is
            merged if one is refused.

    Example:
        >>> from steelyard.study import merge
        >>> [found] = merge(folder / "all.sqlite", [folder / "digits.sqlite"])
        >>> found.taken, found.known, found.differ
        (3, 0, 0)
    """
    into = Path(into)
    if not sources:
        raise StoreError("there is nothing to merge: name one or more stores, or files of trials (.jsonl, .jsonl.xz)")
    for source in sources:
        if os.path.exists(source) and os.path.exists(into) and os.path.samefile(source, into):
            raise StoreError(f"{source} is the store itself: name others")
        with _opened(source) as (rows, _):  # all of it is read, and checked, before anything is written
            for row in rows:
                check_readable(row, source)
    merged = []
    with Store(into, write=True) as store:
        for source in sources:
            with _opened(source) as (rows, networks):
                merged.append(_merge_one(store, source, rows, networks))
    return merged


@contextmanager
def _opened(source: Path) -> Iterator[tuple[Iterator[StoreRow], Path | None]]:
    """Its rows, and the folder of its networks if it is a store."""
    if is_trials_file(source):
        yield read_rows(source), None
        return
    with Store(source) as store:
        yield store.rows(), store.networks.folder


def _merge_one(store: Store, source: Path, rows: Iterator[StoreRow], networks: Path | None) -> Merged:
    taken = known = differ = plans = 0
    contents = set(map(canonical, store.plans()))
    first = []
    for row in rows:
        named = row.named
        if row.table == "plan":
            first.append(str(named["content"]))
            continue
        key = str(named["key"])
        there = store.row(key)
        statuses = None if there is None else (there["status"], named["status"])
        if there is None or statuses == ("failed", "finished"):
            _bring_network(store, key, networks)
            store.add_row(row)
            taken += 1
        elif statuses == ("finished", "finished") and not same_training(there, named):
            differ += 1
        else:
            known += 1
            if statuses == ("finished", "finished"):
                _bring_network(store, key, networks)
                if is_short_of(there, named):  # its own times stay
                    whole = {**there, "curves": named["curves"]}
                    store.add_row(StoreRow("trial", tuple(whole[name] for name in COLUMNS["trial"])))
    for content in reversed(first):  # the latest of them first, each before the ones that are there
        if canonical(json.loads(content)) not in contents:
            contents.add(canonical(json.loads(content)))
            store.add_earlier_plan(content)
            plans += 1
    return Merged(source, taken, known, differ, plans)


def _bring_network(store: Store, key: str, networks: Path | None) -> None:
    """Copy a trial's trained network, where its source kept it and the store has none."""
    if networks is None:
        return
    file, target = networks / f"{key}.safetensors", store.networks.folder / f"{key}.safetensors"
    try:
        if not file.is_file() or target.exists():
            return
        target.parent.mkdir(exist_ok=True)
        with replacing(target) as opened:
            opened.write(file.read_bytes())
    except OSError as error:
        raise StoreError(f"cannot copy the network {file} to {target}: {error.strerror or error}") from error
