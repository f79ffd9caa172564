"""What a look at the gradients says, in words: never more than the numbers hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from steelyard.diagnosis.measurements import CONFLICT, Measurements

# Known remedies, the first registered ones are named: lengths or sizes made equal; directions that spare every task.
_EVEN = ("db-mtl", "inverse-norm", "imtl-g", "ema", "uw")
_PEACEFUL = ("upgrad", "mgda", "cagrad", "pcgrad", "nash-mtl")
_NAMED = 5


def advise(measured: Measurements) -> tuple[str, ...]:
    """The sentences, the most urgent first."""
    return (*_broken(measured), *_dominance(measured), *_conflict(measured), *_limits(measured))


def _broken(measured: Measurements) -> Iterator[str]:
    where = "features" if measured.place == "features" else "trunk"
    losses = dict(zip(measured.tasks, measured.losses.isfinite().tolist(), strict=True))
    spoiled = [task for task in measured.non_finite if not losses[task]]
    if spoiled:
        yield (
            f"The loss of {quoted(spoiled)} is not finite: find the cause first (learning rate, a logarithm of or "
            "division by 0, half precision). Balancers refuse it, or leave it out with on_nonfinite='drop_task'."
        )
    steep = [task for task in measured.non_finite if losses[task]]
    if steep:
        yield (
            f"The gradient of {quoted(steep)} is not finite, though the loss is: a square root or logarithm at 0, or "
            "half precision that overflows."
        )
    if measured.silent:
        yield (
            f"No gradient of {quoted(measured.silent)} arrives at the {where}: the head reads something else (a "
            "detached copy?), is saturated, or the loss has reached its minimum."
        )


def _dominance(measured: Measurements) -> Iterator[str]:
    moving = [task for task in measured.tasks if task not in (*measured.silent, *measured.non_finite)]
    if len(measured.tasks) == 1:
        yield "One task: there is nothing to balance."
    if len(moving) < 2:
        return
    if measured.dominant is None:
        yield f"No task dominates: the longest gradient is {measured.ratio:.1f} x the shortest."
        return
    share = float(measured.shares[measured.tasks.index(measured.dominant)])
    part = "" if share != share else f" and makes up {100 * share:.0f} % of the plain sum's step"
    yield (
        f"{measured.dominant!r} dominates: its gradient is {measured.ratio:.3g} x the shortest{part}; "
        f"{quoted(measured.drowned)} hardly move{'s' if len(measured.drowned) == 1 else ''} what is shared. "
        f"To even this out: {registered(_EVEN, measured.place)}."
    )


def _conflict(measured: Measurements) -> Iterator[str]:
    blind, pairs = measured.blind, measured.pairs
    if blind:
        which = f"{blind[0][0]!r} and {blind[0][1]!r}" if len(blind) == 1 else f"{len(blind)} of {len(pairs)} pairs"
        yield (
            f"{which} share no samples, so their angles cannot be seen at the features (0 whatever they do): look at "
            "the trunk, shared=trunk."
        )
    visible = [pair for pair in pairs if pair[:2] not in blind]
    if not visible:
        return
    conflicts = measured.conflicts
    if not conflicts:
        first, second, value = visible[0]
        yield f"No conflict: the lowest cosine is {value:+.2f}, {first!r} and {second!r}."
    else:
        shown = ", ".join(f"{i!r} and {j!r} ({value:+.2f})" for i, j, value in conflicts[:3])
        more = f"; {len(conflicts)} of {len(pairs)} pairs conflict, these the most" if len(conflicts) > 3 else ""
        yield (
            f"In conflict, cosine {CONFLICT} or lower: {shown}{more}. Methods that seek a direction good for all: "
            f"{registered(_PEACEFUL, measured.place)}."
        )
    rates = measured.conflict_rates.nan_to_num(0)
    if measured.looks > 1 and float(rates.max()) > 0:
        place = int(rates.triu(1).argmax())
        first, second = measured.tasks[place // len(rates)], measured.tasks[place % len(rates)]
        yield f"Most often in conflict: {first!r} and {second!r}, in {100 * float(rates.max()):.0f} % of the looks."
    if measured.worsened:
        yield (
            f"A small step of the plain sum makes {quoted(measured.worsened)} worse, as far as the shared part goes: "
            "the others outvote it."
        )


def _limits(measured: Measurements) -> Iterator[str]:
    if len(measured.tasks) == 1:
        return
    if measured.looks == 1:
        yield "This is one batch: look at several before you believe it, also later in training."
    yield (
        "Whether sharing hurts cannot be read from gradients (their cosine does not predict negative transfer: "
        "ForkMerge, Jiang et al. 2023). `steelyard compare` trains each task alone and decides."
    )


def registered(names: Sequence[str], place: str, most: int = 3) -> str:
    """Those of the methods that are there and read gradients at this place, if they read any."""
    from steelyard.method_registry import method_class, method_names

    known = method_names()
    usable = [
        name
        for name in names
        if name in known and (method_class(name).reads == "losses" or place in method_class(name).where)
    ]
    return ", ".join(usable[:most])


def quoted(names: Sequence[str]) -> str:
    """Names in quotes, the first few of many."""
    shown = [repr(name) for name in names[:_NAMED]]
    if len(names) > _NAMED:
        return f"{', '.join(shown)} and {len(names) - _NAMED} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
