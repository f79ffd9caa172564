"""How fast every loss falls along the direction of a step: ``J d = G w``, all that amortised methods need of gradients.

Just before an attached optimizer steps, the direction lies in the parameters' ``.grad``, whatever made it:
micro-batches, ranks, a gradient scaler. The losses are then computed once more, a little further along it or in forward
mode. Where there is no second forward pass, two backward passes through the losses at hand give the same
(`products_at_once`).

Clipping, scalers and the mean over ranks multiply the direction by a number that nobody tells. It follows: of
``d' = κ d`` are known ``‖d'‖² = κ² ‖d‖²`` and ``wᵀ(J d') = κ ‖d‖²``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from steelyard.balancing.along_call import GIVE_AGAIN, AlongCall, Step, refuse_several
from steelyard.balancing.commit import proposed
from steelyard.balancing.distributed.ranks import Ranks
from steelyard.balancing.global_batch.losses_together import losses_together
from steelyard.balancing.micro_batches import Window
from steelyard.balancing.state_dict import Persistent
from steelyard.balancing.weighing import Proposal, stage_slopes
from steelyard.base.float64 import double
from steelyard.base.lookahead import Losses
from steelyard.base.observation import Along, Seen
from steelyard.errors import LossError, MissingInputError, OptionError, SharedError
from steelyard.gradients.along import products_at_once
from steelyard.gradients.forward_mode import along_a_direction, dual, tangent_of
from steelyard.gradients.graph import nodes_below, precision_of
from steelyard.gradients.parameters_behind import parameters_behind
from steelyard.gradients.retained import left_as_it_was, retaining_below
from steelyard.gradients.wrappers import is_sharded

CHECK_EVERY = 100
"""Steps after which it is asked again in which precision losses are made, and whether `again` makes them alike."""
_PLAIN_LENGTHS = 40
"""Powers of two up to which a direction is taken as it is."""
_WIDER = 4
"""By what a difference to both sides reaches further: its error is of second order."""
_ALIKE = 8
"""Roundings by which losses that are computed twice may differ."""
_SCATTERED = 0.1
"""Of the root of a rounding, which a difference is about as large as: by so much may losses differ from call to call
(sums in another order, on a GPU), and one to both sides still tells."""


# --- at the call ------------------------------------------------------------------------------------------------------
def call_of(
    balancer: Persistent,
    losses: Mapping[str, Tensor],
    counts: Mapping[str, float] | None,
    again: Any,
    parameters: tuple[Tensor, ...] | None,
    ranks: Ranks | None,
    seen: Seen,
    proposal: Proposal,
) -> AlongCall:
    """Note what the product needs later on; or, where there will be no second forward pass, find it now.

    Raises:
        OptionError, MissingInputError: what was asked for cannot be had here.
        SharedError: parameters are sharded, or an operation cannot be differentiated twice.
    """
    later = balancer._attachment is not None and getattr(again, "parameters", None) is not None
    if later and balancer.product != "backward":
        _check(balancer, later, ranks, tuple(again.parameters.values()) if parameters is None else parameters)
        values = {name: loss.detach() for name, loss in losses.items()}
        coarse = _is_coarse(balancer, losses)
        return AlongCall(seen, proposal.index, values, counts, again, parameters, coarse, ranks)
    if parameters is None:
        parameters = parameters_behind([(loss.grad_fn, 0) for loss in losses.values() if loss.grad_fn is not None])
    _check(balancer, later, ranks, parameters)
    with left_as_it_was(retaining_below(losses.values())):
        products = products_at_once(list(losses.values()), parameters, proposal.weights)
    return AlongCall(seen, proposal.index, {}, counts, None, parameters, False, ranks, products)


def _check(balancer: Persistent, later: bool, ranks: Ranks | None, parameters: tuple[Tensor, ...]) -> None:
    """Refuse what a look along the step cannot be had for."""
    if any(is_sharded(parameter) for parameter in parameters):
        raise SharedError(
            f"{balancer.name} looks along a step of all shared parameters, which are sharded over ranks (DTensor, as "
            "fully_shard makes them), and no rank holds the step in one piece: use the exact solver"
        )
    if later and balancer.product != "backward":
        return
    if balancer.product in ("difference", "forward"):
        raise MissingInputError(
            f"{balancer.name}(product={balancer.product}) takes a second forward pass just before the step: "
            f"{GIVE_AGAIN}"
        )
    if ranks is not None:
        raise OptionError(
            f"{balancer.name} looks along the step of all ranks, which is there once they have averaged their "
            f"gradients: {GIVE_AGAIN}; or use sync='off' where ranks are meant to train apart"
        )
    if balancer._attachment is not None and balancer._attachment.window.calls:
        refuse_several(balancer.name)


def _is_coarse(balancer: Persistent, losses: Mapping[str, Tensor]) -> bool:
    """Whether they are made in half precision; asked now and then, since that takes a walk of the graph."""
    caches = balancer._now.caches
    if _due(balancer, caches.coarse):
        nodes = nodes_below([loss.grad_fn for loss in losses.values()])
        caches.coarse = bool(losses) and precision_of(nodes, losses.values()).coarsest.itemsize < 4
    return bool(caches.coarse)


# --- at the step ------------------------------------------------------------------------------------------------------
def look_along(balancer: Persistent, window: Window, calls: Sequence[AlongCall]) -> Step | None:
    """Look along the gradients that the parameters hold now; ``None`` where they say nothing."""
    with torch.no_grad():
        proposal = proposed(balancer, window)
        seen, index = window.seen()
        if calls[0].products is not None:
            return step_of(balancer, seen, index, proposal, calls[0].products)
        total, labels = torch.zeros_like(seen.losses), torch.zeros_like(seen.losses)
        places = {task: place for place, task in enumerate(seen.tasks)}
        length = 0.0
        for call in calls:
            direction = _direction(balancer, call)
            length = _length(direction.values())
            slopes = _slopes(balancer, call, direction, length) if 0 < length < math.inf else {}
            if call.ranks is not None:
                slopes = losses_together(call.ranks, balancer.tasks, slopes, call.counts, seen.losses.device)
            known = [k for k, task in enumerate(call.seen.tasks) if task in slopes]
            if known:
                found = torch.stack([slopes[call.seen.tasks[k]] for k in known]).to(total)
                at = torch.tensor([places[call.seen.tasks[k]] for k in known], device=total.device)
                total.index_add_(0, at, call.seen.counts[known].to(total) * found)
                labels.index_add_(0, at, call.seen.counts[known].to(total))
        products = total / labels
        inner = proposal.weights @ products
        products = products * torch.where(inner > 0, inner / length**2, torch.nan)
        return step_of(balancer, seen, index, proposal, products)


def step_of(
    balancer: Persistent, seen: Seen, index: Tensor | None, proposal: Proposal, products: Tensor
) -> Step | None:
    """What these products ``⟨∇L_k, d⟩`` teach, seen through the stages; ``None`` where they are not finite."""
    if not bool(products.isfinite().all()) or not bool(proposal.weights.isfinite().all()):
        return None
    slopes = stage_slopes(balancer, seen.losses, index)
    weights, losses = proposal.weights, seen.losses
    if slopes is not None:
        products, weights = products * slopes, weights / slopes
        for stage in balancer.loss_stages():
            losses, _ = stage.transform(losses, stage.working_state(index))
    return Step(Along(seen.tasks, products, weights, losses), index)


def learn(balancer: Persistent, step: Step) -> None:
    """Commit what a step that was taken teaches."""
    with torch.no_grad():
        state = balancer.working_state(step.index)
        balancer.look_along(step.along, state)
        balancer.commit(state, step.index)


def _direction(balancer: Persistent, call: AlongCall) -> dict[str, Tensor]:
    """The gradients of the parameters, by the names under which `again` takes others in their place."""
    names = {id(parameter): name for name, parameter in call.again.parameters.items()}
    wanted = call.parameters if call.parameters is not None else tuple(call.again.parameters.values())
    missing = [parameter for parameter in wanted if parameter.requires_grad and id(parameter) not in names]
    if missing:
        raise MissingInputError(
            f"{balancer.name} looks along the step of the shared parameters, and {len(missing)} of them are none of "
            "again='s model: build it from the model that made the losses, losses_of(model, losses_on, batch)"
        )
    return {
        names[id(each)]: each.grad.to_dense() if each.grad.is_sparse else each.grad
        for each in wanted
        if each.grad is not None
    }


def _slopes(balancer: Persistent, call: AlongCall, direction: dict[str, Tensor], length: float) -> dict[str, Tensor]:
    """``⟨∇L_k, d⟩`` by task, of this rank's part of the batch."""
    here = {name: call.again.parameters[name] for name in direction}
    unit = 1.0
    if abs(math.log2(length)) > _PLAIN_LENGTHS:  # a power of two is exact, and no product overflows or vanishes
        unit = 2.0 ** -math.floor(math.log2(length))
        direction = {name: each * unit for name, each in direction.items()}
    product = balancer.product
    if product == "auto":
        product = "forward" if call.coarse else "difference"
    if product == "forward":
        found = _forward(balancer, call, here, direction)
    else:
        found = _difference(balancer, call, here, direction, length * unit)
    return {name: each / unit for name, each in found.items()}


def _forward(
    balancer: Persistent, call: AlongCall, here: Mapping[str, Tensor], direction: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """By forward-mode differentiation."""
    try:
        with along_a_direction():
            lent = {name: dual(here[name].detach(), each) for name, each in direction.items()}
            found = _of(balancer, call, call.again(lent))
            tangents = {name: tangent_of(loss) for name, loss in found.items()}
    except (NotImplementedError, RuntimeError) as error:
        if "forward AD" not in str(error) and "forward mode" not in str(error):
            raise
        raise SharedError(
            f"{balancer.name}(product=forward): an operation of this network cannot be differentiated in forward mode "
            f"({str(error).splitlines()[0][:120]}): use product='difference', in float32 or better"
        ) from error
    return {name: double(call.values[name]) * 0 if each is None else double(each) for name, each in tangents.items()}


def _difference(
    balancer: Persistent,
    call: AlongCall,
    here: Mapping[str, Tensor],
    direction: Mapping[str, Tensor],
    length: float,
) -> dict[str, Tensor]:
    """By one more forward pass; by two where dropout or the like makes other losses each time."""
    caches = balancer._now.caches
    size = _length(here.values())
    precision = max(torch.finfo(each.dtype).eps for each in (*here.values(), *call.values.values()))
    repeats = _repeats(balancer, call)
    reach = (1 if repeats else _WIDER) * precision**0.5 * (size or 1.0) / length

    def at(sign: float) -> dict[str, Tensor]:
        # Written over in the next step: memory that is new each time takes longer than what is done in it.
        kept, caches.lent = caches.lent, {}
        for name, each in direction.items():
            buffer = kept.get(name)
            if buffer is None or (buffer.shape, buffer.device, buffer.dtype) != (each.shape, each.device, each.dtype):
                buffer = torch.empty_like(each)
            caches.lent[name] = torch.add(here[name], each, alpha=sign * reach, out=buffer)
        return {name: double(loss) for name, loss in _of(balancer, call, call.again(caches.lent)).items()}

    ahead = at(1.0)
    if repeats and not _drew_anew(call.again):
        return {name: (loss - double(call.values[name])) / reach for name, loss in ahead.items()}
    behind = at(-1.0)
    return {name: (loss - behind[name]) / (2 * reach) for name, loss in ahead.items()}


def _repeats(balancer: Persistent, call: AlongCall) -> bool:
    """Whether `again` makes the losses at hand: dropout that draws anew does not.

    Raises:
        LossError: it makes others each time, and no two of its calls have a difference that means anything.
    """
    caches = balancer._now.caches
    if _due(balancer, caches.repeats):
        first = _of(balancer, call, call.again())
        alike = _are_alike(first, call.values)
        if not alike and not _are_alike(_of(balancer, call, call.again()), first, lambda eps: _SCATTERED * eps**0.5):
            raise LossError(
                f"{balancer.name} looks along its step by the difference of losses, and again= computes others each "
                "time it is called, at the same parameters: something in it counts its calls or draws from a generator "
                "of its own. Let it draw from torch's, or use product='forward' or product='backward'"
            )
        caches.repeats = alike and not _drew_anew(call.again)  # where all layers were kept, twice, by chance
    return bool(caches.repeats)


def _drew_anew(again: Any) -> bool:
    """Whether the last call may have drawn other numbers than the losses at hand: layers that are skipped at random."""
    return getattr(again, "drew", False) and not getattr(again, "replays", False)


def _are_alike(
    found: Mapping[str, Tensor],
    losses: Mapping[str, Tensor],
    within: Callable[[float], float] = lambda eps: _ALIKE * eps,
) -> bool:
    """Whether they differ by no more than that part of them, which follows from their precision."""
    return all(
        abs(float(loss) - float(losses[name])) <= within(torch.finfo(loss.dtype).eps) * abs(float(losses[name]))
        for name, loss in found.items()
    )


def _due(balancer: Persistent, known: object) -> bool:
    """Whether what hardly ever changes is looked at again."""
    return known is None or balancer._now.counters.steps % CHECK_EVERY == 0


def _length(parts: Iterable[Tensor]) -> float:
    """Of one vector; waits for the device once."""
    lengths = [torch.linalg.vector_norm(part) for part in parts]
    if not lengths:
        return 0.0
    return float(torch.linalg.vector_norm(torch.stack([each.to(lengths[0].device) for each in lengths]).cpu().double()))


def _of(balancer: Persistent, call: AlongCall, losses: Losses) -> dict[str, Tensor]:
    found = {}
    for name in call.values:
        loss = losses.get(name)
        if loss is None:
            raise LossError(f"{balancer.name} looks along its step, and {name!r} has no loss when again= recomputes it")
        found[name] = loss
    return found
