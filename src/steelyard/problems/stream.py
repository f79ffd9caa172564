"""Rows that are read when they are needed, from a map-style Dataset, by workers where a DataLoader asks for them."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    default_collate,
)

from steelyard.errors import ProblemError
from steelyard.io.lists_and_counts import first_few
from steelyard.problems.batches_for_rows import WHAT_TO_GIVE, of_a_loader, size_of_batch
from steelyard.problems.rows import DataRows, Draw, ReadBatch, Reader, Targets
from steelyard.problems.task import Task

SAMPLE = 8
"""Rows that are looked at when data are checked, and by which they are known."""
PROGRAM = "A program of your own does what this cannot: see steelyard.trial"


class Stream(DataRows):
    """Rows ``(inputs, {task: target})`` of a Dataset, read anew for every batch: they need not fit into memory.

    A batch's order, and all that reading it draws from the generators of torch, NumPy and `random`, follow from the
    trial's seed, the epoch and the step, whatever number of workers reads.

    Args:
        dataset: has ``len()`` and gives a row by its number. A task that is absent from a row, or None there, has no
            label. Where it has an attribute ``targets``, by task, the rows without a label are known before.
        collate: makes a batch ``(inputs, {task: targets})`` of a list of rows; by default, rows are stacked.
        loader: whose workers, and whose order of rows if it has one of its own, are used.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        collate: Callable[[list[Any]], Any] | None = None,
        loader: DataLoader[Any] | None = None,
    ) -> None:
        self.dataset, self.collate, self.loader = dataset, collate, loader
        self.workers = 0 if loader is None else loader.num_workers

    @classmethod
    def of(cls, given: Dataset[Any] | DataLoader[Any], where: str) -> Stream:
        """Of what a user has; `where` is for messages."""
        dataset = given.dataset if isinstance(given, DataLoader) else given
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
            raise ProblemError(
                f"{where}: {type(dataset).__name__} gives its rows in an order of its own, so that no seed can decide "
                f"it: give a map-style Dataset, with __len__ and __getitem__. {PROGRAM}"
            )
        if not hasattr(dataset, "__len__"):
            raise ProblemError(f"{where}: {type(dataset).__name__} has no __len__, which says how many rows there are")
        if not isinstance(given, DataLoader):
            return cls(dataset)
        if given.batch_sampler is None:
            raise ProblemError(f"{where}: the DataLoader has batch_size=None: give it a batch_size")
        drawn = getattr(given.batch_sampler, "sampler", None)
        if type(given.batch_sampler) is BatchSampler and type(drawn) is SubsetRandomSampler:
            given = _over(given, drawn.indices)  # its rows are these, and no others are there to be evaluated
        collate = None if given.collate_fn is default_collate else given.collate_fn
        return cls(given.dataset, collate, given)

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def labelled(self, task: Task) -> Tensor:
        known = _known_targets(self.dataset)
        if known is None or task.name not in known:
            return torch.ones(len(self), dtype=torch.bool)
        return task.labelled(torch.as_tensor(known[task.name]))

    def known_targets(self) -> dict[str, Tensor]:
        """Targets by task, of those that the dataset has at hand."""
        return {name: torch.as_tensor(each) for name, each in (_known_targets(self.dataset) or {}).items()}

    def labels(self, task: Task, chosen: Tensor) -> None:
        return None

    def some(self, rows: Tensor) -> Stream:
        found = Stream(Subset(self.dataset, rows.tolist()), self.collate)
        found.workers = self.workers
        found.loader = self.loader if self.workers else None
        return found

    # --- the order of rows --------------------------------------------------------------------------------------------
    @property
    def has_own_order(self) -> bool:
        """Whether the loader draws rows otherwise than each once, in random order."""
        if self.loader is None or len(self) != len(self.loader.dataset):  # type: ignore[arg-type]
            return False
        sampler = self.loader.batch_sampler
        plain = type(sampler) is BatchSampler and not sampler.drop_last
        drawn = type(self.loader.sampler)
        return not (plain and (drawn is SequentialSampler or _is_shuffle(self.loader.sampler)))

    @property
    def own_steps(self) -> int:
        """Batches of an epoch in the loader's own order."""
        assert self.loader is not None
        return len(self.loader.batch_sampler)  # type: ignore[arg-type]

    def own_order(self, seed: int) -> list[Tensor]:
        """The batches of one pass as the loader's sampler draws them from this seed."""
        assert self.loader is not None
        sampler = self.loader.batch_sampler
        for each in (sampler, getattr(sampler, "sampler", None), self.loader.sampler, self.loader):
            if isinstance(generator := getattr(each, "generator", None), torch.Generator):
                generator.manual_seed(seed)
        with _seeded(seed):
            return [torch.as_tensor(rows) for rows in sampler]  # type: ignore[union-attr]

    @property
    def never_drawn(self) -> int:
        """How many rows a pass of the loader's sampler leaves out, beyond those of a batch that is not full.

        Batches of the user's own making are not looked at: they may drop what they cannot fill, and never end.
        """
        if not self.has_own_order:
            return 0
        assert self.loader is not None
        batches: Any = self.loader.batch_sampler
        if type(batches) is not BatchSampler or not hasattr(batches.sampler, "__len__"):
            return 0
        with _seeded(0):
            drawn = {int(row) for rows in itertools.islice(batches, len(batches)) for row in rows}
        left = len(self) - len(drawn)
        return left if left >= (batches.batch_size if batches.drop_last else 1) else 0

    # --- reading ------------------------------------------------------------------------------------------------------
    def reader(self, ahead: bool) -> Reader:
        return _Batches(self, self.workers if ahead else 0)

    def sample(self) -> Tensor:
        """A few row numbers, spread evenly."""
        return torch.tensor(sorted({k * (len(self) - 1) // max(1, SAMPLE - 1) for k in range(SAMPLE)}))


class _Batches:
    """Reads batches; its workers live as long as it does."""

    def __init__(self, stream: Stream, workers: int) -> None:
        self.order = _Order()
        self.workers = workers
        options: dict[str, Any] = {}
        if workers and stream.loader is not None:
            options = {
                "prefetch_factor": stream.loader.prefetch_factor,
                "worker_init_fn": stream.loader.worker_init_fn,
                "timeout": stream.loader.timeout,
                "multiprocessing_context": stream.loader.multiprocessing_context or _context(),
                "persistent_workers": True,
            }
        self.loader: DataLoader[Any] = DataLoader(
            _DrawnBatches(stream.dataset, stream.collate),
            batch_sampler=self.order,  # type: ignore[arg-type]
            collate_fn=_as_it_is,
            num_workers=workers,
            generator=torch.Generator(),  # which no step draws from
            **options,
        )

    def __call__(self, draws: Sequence[Draw]) -> Iterator[ReadBatch]:
        self.order.draws = draws
        with _may_have_children() if self.workers else contextlib.nullcontext():
            reading = iter(self.loader)
        for draw, (inputs, targets) in zip(draws, reading, strict=True):
            yield ReadBatch(draw.rows, inputs, targets)


class _Order:
    """What a DataLoader takes for a sampler of batches: those of the epoch at hand."""

    draws: Sequence[Draw] = ()

    def __iter__(self) -> Iterator[Draw]:
        return iter(self.draws)

    def __len__(self) -> int:
        return len(self.draws)


class _DrawnBatches(Dataset[Any]):
    """A dataset that gives batches; each starts from a seed, in whichever process it is read."""

    def __init__(self, dataset: Dataset[Any], collate: Callable[[list[Any]], Any] | None) -> None:
        self.dataset, self.collate = dataset, collate

    def __getitem__(self, draw: Draw) -> tuple[Any, Targets]:
        return self.__getitems__(draw)

    def __getitems__(self, draw: Draw) -> tuple[Any, Targets]:
        rows = draw.rows.tolist()
        with _seeded(draw.seed):
            several = getattr(self.dataset, "__getitems__", None)
            items = several(rows) if several else [self.dataset[row] for row in rows]
            for row, item in zip(rows, items, strict=True):
                _check_item(row, item)
            if self.collate is not None:
                return _collated(self.collate(items), len(rows))
            try:
                return _tuples(_batched([inputs for inputs, _ in items], "inputs")), _stacked([own for _, own in items])
            except ProblemError as error:
                if not of_a_loader(items):
                    raise
                sizes = ", ".join(str(size_of_batch(item)) for item in items)
                raise ProblemError(
                    f"rows {first_few([str(row) for row in rows], 8)} hold {sizes} inputs and as many targets each: "
                    f"these are batches, not rows. {WHAT_TO_GIVE}. If they are rows of several lengths, give a "
                    "DataLoader(…, collate_fn=…) that pads them"
                ) from error


def _as_it_is(batch: Any) -> Any:
    return batch


def _check_item(row: int, item: Any) -> None:
    if not isinstance(item, Sequence) or len(item) != 2 or not isinstance(item[1], Mapping):
        found = f"{len(item)} values" if isinstance(item, tuple | list) else type(item).__name__
        size = size_of_batch(item)
        batch = "" if size is None else f". If it is a batch of {size} rows: {WHAT_TO_GIVE}"
        raise ProblemError(
            f"row {row} of the Dataset is {found}: give (inputs, {{task: target}}), as `return x, {{'a': y}}`{batch}"
        )


def _stacked(rows: Sequence[Mapping[str, Any]]) -> Targets:
    """Targets by task, of the rows that have them."""
    found: Targets = {}
    for name in dict.fromkeys(name for each in rows for name in each):
        here = [place for place, each in enumerate(rows) if each.get(name) is not None]
        if here:
            values = _numbers(_batched([rows[place][name] for place in here], f"targets of {name!r}"), name)
            found[name] = values, None if len(here) == len(rows) else torch.tensor(here)
    return found


def _batched(values: list[Any], what: str) -> Any:
    """As torch puts rows together, or an error that says why it cannot and what to write."""
    try:
        return default_collate(values)
    except (RuntimeError, TypeError) as error:
        shapes = sorted({str(list(np.shape(each))) for each in values if isinstance(each, Tensor | np.ndarray)})
        if any(isinstance(each, Tensor) and each.layout != torch.strided for each in values):
            why = "are sparse: call .to_dense() in the Dataset"
        elif any(each is None for each in values):
            why = "are None in some rows: leave these rows out, or fill them"
        elif len(shapes) > 1:
            why = f"have several shapes, {first_few(shapes, 3)}: give a DataLoader(…, collate_fn=…) that pads them"
        else:
            why = f"cannot be put together ({error}): give a DataLoader(…, collate_fn=…) that does it"
        raise ProblemError(f"the {what} {why}") from error


def _numbers(values: Any, name: str) -> Tensor:
    """Targets of a task as a tensor."""
    if isinstance(values, Tensor):
        return values
    try:
        return torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        given = list(values)[:1] if isinstance(values, list | tuple | Mapping) else [type(values).__name__]
        raise ProblemError(
            f"the targets of {name!r} are no numbers ({given[0]!r}): give a number, or a tensor, for each row (a class "
            "as a whole number from 0, a missing label as None)"
        ) from error


def _collated(batch: Any, count: int) -> tuple[Any, Targets]:
    """What a collate_fn of the user's made."""
    if not isinstance(batch, Sequence) or len(batch) != 2 or not isinstance(batch[1], Mapping):
        raise ProblemError(
            f"collate_fn returned {type(batch).__name__}: give (inputs, {{task: targets}}) of the list of rows"
        )
    inputs, given = batch
    targets: Targets = {name: (_numbers(each, name), None) for name, each in given.items() if each is not None}
    for name, (each, _) in targets.items():
        if len(each) != count:
            raise ProblemError(f"collate_fn gives {len(each)} targets of {name!r} for {count} rows: mark missing ones")
    return _tuples(inputs), targets


def _tuples(inputs: Any) -> Any:
    """Inputs of several tensors as a trunk takes them; torch makes a list of what a Dataset gives as a tuple.

    A list of texts is one input.
    """
    return tuple(inputs) if type(inputs) is list and not all(isinstance(each, str) for each in inputs) else inputs


def _known_targets(dataset: Any) -> Mapping[str, Any] | None:
    """A dataset's targets by task, if it has them at hand; through what picks some of its rows, too."""
    if isinstance(dataset, Subset):
        above = _known_targets(dataset.dataset)
        rows = torch.as_tensor(dataset.indices)
        return None if above is None else {name: torch.as_tensor(each)[rows] for name, each in above.items()}
    found = getattr(dataset, "targets", None)
    return found if isinstance(found, Mapping) else None


def _over(loader: DataLoader[Any], rows: Sequence[int]) -> DataLoader[Any]:
    """The same loader over these rows, each once, in random order."""
    names = ("collate_fn", "num_workers", "timeout", "worker_init_fn", "multiprocessing_context", "generator")
    options = {name: getattr(loader, name) for name in (*names, "prefetch_factor")}
    batches: Any = loader.batch_sampler
    chosen: Dataset[Any] = Subset(loader.dataset, [int(row) for row in rows])
    return DataLoader(chosen, batches.batch_size, shuffle=True, drop_last=batches.drop_last, **options)


def _is_shuffle(sampler: Any) -> bool:
    return (
        type(sampler) is RandomSampler and not sampler.replacement and sampler.num_samples == len(sampler.data_source)
    )


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """What is drawn here starts from this seed, and what is drawn outside goes on as if nothing had been."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def _context() -> str | None:
    """Forked where that is safe: a Dataset of a problem's file need not be pickled then."""
    return "fork" if sys.platform == "linux" else None


@contextlib.contextmanager
def _may_have_children() -> Iterator[None]:
    """A study's worker is a daemon, which Python lets have no children; those that read end with it by themselves."""
    config: dict[str, Any] = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    was = config.get("daemon", False)
    config["daemon"] = False
    try:
        yield
    finally:
        config["daemon"] = was
