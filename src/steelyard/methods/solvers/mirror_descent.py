"""One step towards what the exact solvers find, from the product ``p = G w`` of the last training step alone.

Weights move by factors, ``log w ← log w - η · e / max(1, q)``: the entropic mirror descent of each method's own
problem, in units in which no rescaling of the losses shows. ``e`` is its relative residual. ``q`` is its curvature
along one weight, next to which a step of ``η`` would oscillate where gradients nearly cancel; it needs the length of
``g_k``, of which ``⟨g_k, d⟩ / ‖d‖`` is known never to be more. The most that recent steps have shown is remembered.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

FADING = 0.9
"""By what a remembered bound of a squared length fades in a step."""
LARGEST_STEP = 1.0
"""By what the logarithm of a weight moves at most in a step."""
LEFT_OUT = 0.05
"""What the tasks that the least norm leaves out add to the direction all the same, of what the first task adds: they
go on learning, and are soon back in the game. The exact solution lets each in now and then, by a batch's noise."""


def squared_lengths(before: Tensor, products: Tensor, squared_length: Tensor) -> Tensor:
    """``[T]``, what the squared lengths of the task gradients are at least.

    Args:
        before: what the last steps have shown of them.
        products: ``⟨g_k, d⟩``.
        squared_length: ``‖d‖² > 0``.
    """
    return torch.maximum(FADING * before, products.square() / squared_length)


def min_norm_step(
    log_shares: Tensor, weights: Tensor, products: Tensor, lengths: Tensor, power: Tensor, rate: float
) -> Tensor:
    """``log v [T]`` a step nearer to ``argmin ½ ‖Σ_k v_k g_k / π_k‖²`` over the simplex.

    There ``⟨g_k, d⟩ / π_k`` is ``‖d‖²`` for every task that has a share, and no less for the others, which keep a
    small share: of the largest ``v_k ‖g_k‖ / π_k``, `LEFT_OUT` in all.

    Args:
        log_shares: ``log v``, up to a constant.
        weights: ``w [T]``, with which the products were found.
        products: ``G w [T]``, with ``wᵀ G w > 0``.
        lengths: bounds of ``‖g_k‖²``.
        power: ``π [T] ≥ 0``; a task without any has no share.
        rate: ``η``.
    """
    squared_length = weights @ products
    total = power @ weights
    inverse = torch.where(power > 0, 1 / power, torch.zeros_like(power))
    gains = products * inverse * total / squared_length  # their mean by share is 1
    curvature = power * weights * total * lengths * inverse.square() / squared_length
    step = (rate * (gains - 1) / curvature.clamp(min=1.0)).clamp(-LARGEST_STEP, LARGEST_STEP)
    moved = log_shares - torch.where(power > 0, step, torch.zeros_like(step))
    adds = moved + torch.where(power > 0, 0.5 * lengths.log() + inverse.log(), torch.full_like(moved, -torch.inf))
    missing = (adds.max() + math.log(LEFT_OUT / len(adds)) - adds).clamp(min=0.0)
    return moved + missing.where(adds.isfinite(), torch.zeros_like(adds))


def bargaining_step(
    log_weights: Tensor, weights: Tensor, products: Tensor, lengths: Tensor, power: Tensor, alpha: float, rate: float
) -> Tensor:
    """``log w [T]`` a step nearer to ``w > 0`` with ``(G w)_k = p_k w_k^{-1/α}``.

    That is where ``½ wᵀGw - Σ_k p_k ψ(w_k)``, ``ψ'(w) = w^{-1/α}``, is least. Along ``w`` itself the minimum is known,
    and taken: ``s^{1+1/α} = Σ p_k w_k^{1-1/α} / wᵀGw``. The rest is one step by ``η`` in each logarithm.

    Args:
        log_weights: ``log w``, kept as it is where a task takes no part: no power, no weight, or no gradient.
        weights: ``w [T]``, with which the products were found.
        products: ``G w [T]``, with ``wᵀ G w > 0``.
        lengths: bounds of ``‖g_k‖²``.
        power: ``p [T] ≥ 0``.
        alpha: ``α > 0``.
        rate: ``η``.
    """
    plays = (power > 0) & (weights > 0) & (lengths > 0)
    if not bool(plays.any()):
        return log_weights
    p, log_w, gains = power[plays], weights[plays].log(), products[plays]
    log_squared = (weights[plays] @ gains).log()
    log_scale = (torch.logsumexp(p.log() + (1 - 1 / alpha) * log_w, 0) - log_squared) / (1 + 1 / alpha)
    scaled = log_w + log_scale
    wanted = p.log() - scaled / alpha  # log of what the gain of each task is to be
    gain_in_units = gains.sign() * (gains.abs().log() + log_scale - wanted).exp()
    curvature = (scaled + lengths[plays].log() - wanted).exp()
    # That of ψ alone is 1 + 1/α. Gradients that go together add to it; from 2 on a whole step (η = 1) settles.
    damped = rate * (gain_in_units - 1) / curvature.clamp(min=max(2.0, 1 + 1 / alpha))
    step = damped.clamp(-LARGEST_STEP, LARGEST_STEP)
    return log_weights.masked_scatter(plays, scaled - step)
