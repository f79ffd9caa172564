"""What the methods' authors run, restated: order of operations, constants and defaults of their published code.

A reference is a generator. It is sent a `Look` in every step and yields the weights ``[T]`` of the task gradients, or
the direction ``[P]`` itself; what lies between two ``yield`` is one step. The first lines say whose code it is.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import least_squares, minimize
from torch import Tensor

Reference = Generator[Tensor, "Look", None]


@dataclass(frozen=True)
class Look:
    """One step: losses ``[T]``, rows ``[T, P]``, those of two more batches, and what else some codes ask for."""

    losses: Tensor
    rows: Tensor
    probes: tuple[Tensor, Tensor]
    epoch: int
    after_last: Tensor | None  # the losses of the last step's batch, after the last step
    validation: Tensor
    twin: torch.Generator  # in the state of the balancer's own


def ones(size: int, value: float = 1.0) -> Tensor:
    return torch.full((size,), value, dtype=torch.float64)


def nearest_shares(point: Tensor) -> Tensor:
    """The nearest point of the simplex."""
    ordered = point.sort(descending=True).values
    levels = (ordered.cumsum(0) - 1) / torch.arange(1, len(point) + 1)
    return (point - levels[ordered > levels][-1]).clamp(min=0)


# Losses alone ---------------------------------------------------------------------------------------------------------


def random(size: int) -> Reference:
    """LibMTL, by the authors of RLW: a softmax of standard normal draws."""
    look = yield ones(size)
    while True:
        look = yield torch.randn(size, generator=look.twin, dtype=torch.float64).softmax(0)


def random_dirichlet(size: int) -> Reference:
    """The same code softens Dirichlet draws, which are shares already, by a softmax; without it they are ours."""
    look = yield ones(size)
    while True:
        draw = torch.empty(size, dtype=torch.float64).exponential_(generator=look.twin)
        look = yield draw / draw.sum()


def uw(size: int) -> Reference:
    """yaringal/multi-task-learning-example: the sum of ``e^-s L + s``, s beside the network in one Adam at 1e-3.

    Half of that is ours, and Adam moves s alike.
    """
    s = ones(size, 0.0).requires_grad_()
    adam = torch.optim.Adam([s])
    look = yield ones(size)
    while True:
        weights = (-s.detach()).exp()
        adam.zero_grad()
        ((-s).exp() * look.losses + s).sum().backward()
        adam.step()
        look = yield weights / 2


def uw_o(size: int) -> Reference:
    """lukaskirchdorfer/MTL4PPM, by the first author: 1e-8 is added to the losses."""
    look = yield ones(size)
    while True:
        look = yield 1 / (look.losses + 1e-8)


def uw_so(size: int) -> Reference:
    """lukaskirchdorfer/MTL4PPM, by the first author, at the temperature 1."""
    look = yield ones(size)
    while True:
        look = yield (1 / (look.losses + 1e-8)).softmax(0)


def dwa(size: int) -> Reference:
    """lorenmt/mtan: the last two epochs' mean losses, temperature 2, ones in the first two epochs."""
    means: list[Tensor] = []
    seen: list[Tensor] = []
    look = yield ones(size)
    while True:
        if look.epoch > len(means):
            means.append(torch.stack(seen).mean(0))
            seen = []
        seen.append(look.losses)
        weights = ones(size) if len(means) < 2 else size * (means[-1] / means[-2] / 2).softmax(0)
        look = yield weights


def cov(size: int, decay: float | None = None) -> Reference:
    """rickgroen/cov-weighting: shares are formed before the statistics take this step's losses in."""
    mean_loss, mean_ratio, squares = ones(size, 0.0), ones(size, 0.0), ones(size, 0.0)
    count = 0
    look = yield ones(size)
    while True:
        ratio = look.losses / (look.losses if count == 0 else mean_loss)
        shares = ones(size, 1 / size)
        if count > 1:
            coefficient = (squares / count + 1e-8).sqrt() / mean_ratio
            shares = coefficient / coefficient.sum()
        keep = 0.0 if count == 0 else 1 - 1 / (count + 1) if decay is None else decay
        moved = keep * mean_ratio + (1 - keep) * ratio
        squares = squares + (ratio - mean_ratio) * (ratio - moved)
        mean_ratio, mean_loss = moved, keep * mean_loss + (1 - keep) * look.losses
        count += 1
        look = yield shares


def slaw(size: int, beta: float = 0.99) -> Reference:
    """mtcrawshaw/meta, under the name CLAW: two running means, plain ones over the first ``1/(1 - β)`` steps."""
    mean, mean_square, count = ones(size, 0.0), ones(size, 0.0), 0
    look = yield ones(size)
    while True:
        count += 1
        part = 1 / count if count <= round(1 / (1 - beta)) else 1 - beta
        mean = (1 - part) * mean + part * look.losses
        mean_square = (1 - part) * mean_square + part * look.losses**2
        inverse = 1 / (mean_square - mean**2).clamp(min=0).sqrt().clamp(min=1e-5)
        look = yield ones(size) if count == 1 else size * inverse / inverse.sum()


def lbtw(size: int) -> Reference:
    """chao1224/Loss-Balanced-Task-Weighting: square roots of the losses' ratios, made to sum to T."""
    first, epoch = None, -1
    look = yield ones(size)
    while True:
        if look.epoch > epoch:
            first, epoch = look.losses, look.epoch
        weights = (look.losses / first) ** 0.5
        look = yield size * weights / weights.sum()


def stch(size: int) -> Reference:
    """Xi-L/STCH: epochs 0 to 3 warm up, epoch 4 does too and gives the nadir; μ = 1."""
    nadir: list[Tensor] = []
    look = yield ones(size)
    while True:
        losses = look.losses.clone().requires_grad_()
        if look.epoch <= 4:
            value = (losses + 1e-20).log().sum()
            if look.epoch == 4:
                nadir.append(look.losses)
        else:
            relative = (losses / torch.stack(nadir).mean(0) + 1e-20).log()
            value = size * (relative - relative.detach().max()).exp().sum().log()
        (weights,) = torch.autograd.grad(value, losses)
        look = yield weights


def famo(size: int) -> Reference:
    """Cranial-XIX/FAMO: the logits learn, after the step, from the same batch; Adam at 0.025 with a decay of 0.01."""
    logits = ones(size, 0.0).requires_grad_()
    adam = torch.optim.Adam([logits], lr=0.025, weight_decay=0.01)
    before = None
    look = yield ones(size)
    while True:
        if before is not None and look.after_last is not None:
            fallen = (before + 1e-8).log() - (look.after_last + 1e-8).log()
            (logits.grad,) = torch.autograd.grad(logits.softmax(0), logits, fallen)
            adam.step()
        before = look.losses
        losses = look.losses.clone().requires_grad_()
        z = logits.detach().softmax(0)
        (weights,) = torch.autograd.grad((z * (losses + 1e-8).log()).sum(), losses)
        look = yield weights / (z / (look.losses + 1e-8)).sum()


def softadapt(size: int, variant: str = "original", order: int = 3) -> Reference:
    """dr-aheydari/SoftAdapt: forward differences at the oldest of ``order + 1`` losses, β = 0.1.

    ``normalised`` divides by the sum of the slopes, without their absolute values.
    """
    places = torch.arange(order + 1).double()
    coefficients = torch.linalg.solve(places ** places[:, None], torch.eye(order + 1).double()[1])  # exact on powers
    history: list[Tensor] = []
    look = yield ones(size)
    while True:
        history = [*history, look.losses][-order - 1 :]
        known = torch.stack(history)
        slopes = coefficients @ known if len(known) > order else ones(size, 0.0)
        if variant == "normalised" and len(known) > order:
            slopes = slopes / slopes.sum()
        powers = (0.1 * (slopes - slopes.max())).exp()
        if variant == "loss-weighted":
            powers = known.mean(0) * powers
        look = yield powers / (powers.sum() + 1e-8)


def relobralo(size: int, keep: float = 1.0) -> Reference:
    """rbischof/relative_balancing: α is 1 in the first step, 0 in the second, 0.999 from then on."""
    weights, last, first = ones(size), ones(size), None
    step = 0
    look = yield ones(size)
    while True:
        alpha = (1.0, 0.0, 0.999)[min(step, 2)]
        first = look.losses if first is None else first
        saved = float(torch.rand((), generator=look.twin, dtype=torch.float64) < keep)
        by_last = size * (look.losses / (last + 1e-12)).softmax(0)
        by_first = size * (look.losses / (first + 1e-12)).softmax(0)
        weights = alpha * (saved * weights + (1 - saved) * by_first) + (1 - alpha) * by_last
        last, step = look.losses, step + 1
        look = yield weights


def coba(size: int, warm_up: int = 4) -> Reference:
    """codefuse-ai/MFTCoder, up to its last softmax and its least weight, and with the ``min`` of the paper.

    The factor's slope is that of the largest ratio, task by task the same one here.
    """

    def slope(values: Tensor) -> Tensor:
        line = torch.stack([torch.arange(len(values)).double(), torch.ones(len(values)).double()], 1)
        return torch.linalg.lstsq(line, values).solution[0]

    ratios: list[Tensor] = []
    slopes: list[Tensor] = []
    largest: list[Tensor] = []
    first = None
    look = yield ones(size)
    while True:
        first = look.validation if first is None else first
        ratios.append(look.validation / first)
        known = torch.stack(ratios)
        if len(known) < warm_up:
            look = yield ones(size, 1 / size)
            continue
        slopes.append(torch.stack([slope(known[:, task]) for task in range(size)]))
        largest.append(slope(known.max(1).values))
        by_task, overall = torch.stack(slopes), torch.stack(largest)
        relative = (size * slopes[-1] / slopes[-1].abs().sum()).softmax(0)
        absolute = (-len(by_task) * by_task / by_task.abs().sum(0))[-1].softmax(0)
        factor = len(overall) * (-5 * len(overall) * overall / overall.abs().sum()).softmax(0)[-1]
        factor = factor.clamp(max=1)
        look = yield factor * relative + (1 - factor) * absolute


def go4align(size: int) -> Reference:
    """autumn9999/GO4Align with two groups; the best of all ways to cut the line in two, where it starts k-means at
    random."""
    memory = ones(size, 1 / size)
    look = yield ones(size)
    while True:
        memory = memory * (-1e-4 * look.losses).exp()
        memory = memory / memory.sum()
        indicator = memory * look.losses.sum() / look.losses
        order = indicator.argsort()
        cuts = [_group_means(indicator, (order[:place], order[place:])) for place in range(1, size)]
        look = yield min(cuts, key=lambda means: float((indicator - means).square().sum()))


def _group_means(values: Tensor, groups: tuple[Tensor, ...]) -> Tensor:
    means = values.clone()
    for group in groups:
        means[group] = values[group].mean()
    return means


def igb(size: int) -> Reference:
    """YanqiDai/IGB4MTL: log losses; the base is the mean of epoch 1, counted from 0, and in use from epoch 2 on."""
    base: list[Tensor] = []
    look = yield ones(size)
    while True:
        pull = ones(size)
        if look.epoch > 1:
            pull = size * (look.losses / torch.stack(base).mean(0)).softmax(0)
        if look.epoch == 1:
            base.append(look.losses)
        look = yield pull / look.losses


def ldc_mtl(size: int) -> Reference:
    """OptMN-Lab/LDC-MTL for 40 tasks: sigmoids of logits that begin at 1, neighbours' differences times 0.01."""
    logits = ones(size).requires_grad_()
    adam = torch.optim.Adam([logits], lr=1e-3)
    look = yield ones(size)
    while True:
        losses = look.losses.clone().requires_grad_()
        weighted = logits.sigmoid() * losses
        value = weighted.sum() / logits.sigmoid().sum().detach() + 0.01 * weighted.diff().abs().sum()
        adam.zero_grad()
        value.backward()
        adam.step()
        look = yield losses.grad


# Lengths and angles ---------------------------------------------------------------------------------------------------


def mgda(size: int, normalise: str = "none", least: float = 0.001) -> Reference:
    """isl-org/MultiObjectiveOptimization at two tasks: a closed form, in which neither has less than 0.001."""
    look = yield ones(size)
    while True:
        norms = look.rows.norm(dim=1)
        divisor = {"none": ones(size), "l2": norms, "loss": look.losses, "loss+": look.losses * norms}[normalise]
        divided = look.rows / divisor[:, None]
        share = _first_of_two(divided @ divided.T, least)
        look = yield torch.tensor([share, 1 - share], dtype=torch.float64)


def mgda_iterated(gramian: Tensor) -> Tensor | None:
    """The same code at more tasks: from the best pair, up to 250 steps with a line search; ``None`` is an error there.

    A step goes down the slope within the simplex, as far as the first share reaches an end, and is projected on it.
    """
    size = len(gramian)
    pairs = [torch.tensor([i, j]) for i in range(size) for j in range(i + 1, size)]
    starts = []
    for pair in pairs:
        share = _first_of_two(gramian[pair][:, pair], 0.001)
        starts.append(ones(size, 0.0).index_put((pair,), torch.tensor([share, 1 - share], dtype=torch.float64)))
    weights = min(starts, key=lambda start: float(start @ gramian @ start))
    for _ in range(250):
        down = -(gramian @ weights)
        down = down - down.mean()
        far = torch.where(down < 0, -weights, 1 - weights) / down
        reach = float(far[(far > 1e-7) & (down != 0)].min()) if bool((far > 1e-7).any()) else 1.0
        ends = torch.stack([weights, nearest_shares(weights + reach * down)])
        share = _first_of_two(ends @ gramian @ ends.T, 0.001)
        moved = share * ends[0] + (1 - share) * ends[1]
        if float((moved - weights).abs().sum()) < 1e-5:
            return weights
        weights = moved
    return None


def _first_of_two(gramian: Tensor, least: float) -> float:
    """The first one's share in the shortest mixture of two."""
    (a, b), (_, c) = gramian.tolist()
    if b >= a or b >= c:
        return 1 - least if b >= a else least
    return float((c - b) / (a + c - 2 * b))


def pe_ltr(size: int) -> Reference:
    """jackielinxiao/PE-LTR: the answer without signs, then projected; it weighs the step *after* with it."""
    look = yield ones(size)
    while True:
        system = torch.ones(size + 1, size + 1, dtype=torch.float64)
        system[:size, :size], system[size, size] = look.rows @ look.rows.T, 0
        answer = torch.linalg.solve(system, torch.cat([ones(size, 0.0), ones(1)]))[:size]
        look = yield nearest_shares(answer.clamp(min=0))


def pcgrad(size: int) -> Reference:
    """tianheyu927/PCGrad: all tasks in the order of the list, for it discards the list that it has shuffled."""
    look = yield ones(size)
    while True:
        moved = look.rows.clone()
        for row in look.rows:
            moved = moved - (moved @ row / (row @ row)).clamp(max=0)[:, None] * row
        look = yield moved.sum(0)


def cagrad(size: int, c: float = 0.5) -> Reference:
    """Cranial-XIX/CAGrad, the code for images: SLSQP from equal shares, ``d / (1 + c²)``; at last it multiplies by T.

    Its SLSQP stops at 1e-6 in the unit of squared gradients; here they have length 1, and it goes on to rounding.
    """
    look = yield ones(size)
    while True:
        unit = look.rows / look.rows.norm(dim=1).mean()
        shares = _worst_shares((unit @ unit.T).numpy(), c * float(unit.mean(0).norm()))
        mean, mixed = look.rows.mean(0), torch.tensor(shares) @ look.rows
        look = yield (mean + c * mean.norm() / mixed.norm() * mixed) / (1 + c**2)


def _worst_shares(gramian: np.ndarray, radius: float) -> np.ndarray:
    """``argmin ⟨g_w, g_0⟩ + radius ‖g_w‖`` over shares ``w``."""
    size = len(gramian)
    answer: np.ndarray = minimize(
        lambda x: float(x @ gramian.mean(0) + radius * np.sqrt(x @ gramian @ x)),
        np.full(size, 1 / size),
        jac=lambda x: gramian.mean(0) + radius * gramian @ x / np.sqrt(x @ gramian @ x),
        bounds=[(0, 1)] * size,
        constraints={"type": "eq", "fun": lambda x: 1 - x.sum()},
        options={"ftol": 1e-16, "maxiter": 500},
    ).x
    return answer


def nash_mtl(size: int) -> Reference:
    """AvivNavon/nash-mtl: up to 20 convex approximations, each from the last weights.

    It divides the Gramian by its length, and *multiplies by it again* in what it asks of the solver: every task's gain
    times its weight is at least 1 on the Gramian as it was. The solver here works in lengths of the gradients, and the
    first step starts from their inverses in place of ones, by which the approximation may have no solution.
    """
    found = np.ones(size)
    look = yield ones(size)
    while True:
        lengths = look.rows.norm(dim=1).numpy()
        gramian = (look.rows @ look.rows.T).numpy()
        size_of_it = np.linalg.norm(gramian)
        for _ in range(20):
            before, normed = found / lengths, gramian / size_of_it
            slope = normed.sum(0) + (1 / before + (1 / (normed @ before)) @ normed) / size_of_it
            last, found = found, _least_with_gains(slope / lengths, gramian / lengths / lengths[:, None])
            if np.linalg.norm(found - last) < 1e-6:
                break
        look = yield torch.tensor(found / lengths)


def _least_with_gains(slope: np.ndarray, cosines: np.ndarray) -> np.ndarray:
    """``argmin slope · x`` over ``x > 0`` with ``x ∘ (cosines x) ≥ 1``."""
    slope = slope / np.abs(slope).max()
    answer: np.ndarray = minimize(
        lambda x: slope @ x,
        np.full(len(slope), 2.0),
        jac=lambda x: slope,
        bounds=[(1e-6, None)] * len(slope),
        constraints={"type": "ineq", "fun": lambda x: x * (cosines @ x) - 1},
        options={"ftol": 1e-15, "maxiter": 300},
    ).x
    return answer


def fairgrad(size: int, alpha: float = 1.0) -> Reference:
    """OptMN-Lab/fairgrad: bounded least squares from equal weights; here in lengths of the gradients, to rounding.

    It multiplies ``d`` by T and leaves the heads plain.
    """
    look = yield ones(size)
    while True:
        gramian = (look.rows @ look.rows.T).numpy()
        units = gramian.diagonal() ** (-alpha / (1 + alpha))  # of the weights, so that G_kk w_k = w_k^(-1/α)
        scaled = gramian * units * units[:, None] ** (1 / alpha)
        look = yield torch.tensor(_root(scaled, alpha) * units)


def _root(gramian: np.ndarray, alpha: float) -> np.ndarray:
    """``x > 0`` with ``gramian x = x^(-1/α)``."""
    answer: np.ndarray = least_squares(
        lambda x: gramian @ x - x ** (-1 / alpha),
        np.ones(len(gramian)),
        bounds=(0, np.inf),
        xtol=1e-15,
        ftol=1e-15,
        gtol=1e-15,
    ).x
    return answer


def aligned_mtl(size: int, common: str = "min") -> Reference:
    """SamsungLabs/MTL: eigenvectors of the Gramian, each brought to the common length."""
    look = yield ones(size)
    while True:
        values, vectors = torch.linalg.eigh(look.rows @ look.rows.T)
        length = {"min": values[0], "median": values.median(), "rmse": values.mean()}[common].sqrt()
        aligned = (vectors * length / values.sqrt()) @ vectors.T
        look = yield aligned.sum(1)


def config(size: int) -> Reference:
    """tum-pbs/ConFIG: least squares on unit gradients; with two, the mean of each one's part beside the other."""
    look = yield ones(size)
    while True:
        unit = look.rows / look.rows.norm(dim=1, keepdim=True)
        if size == 2:
            cosine = unit[0] @ unit[1]
            beside = torch.stack([unit[1] - cosine * unit[0], unit[0] - cosine * unit[1]])
            direction = (beside / beside.norm(dim=1, keepdim=True)).sum(0)
        else:
            direction = torch.linalg.lstsq(unit, ones(size)[:, None], driver="gelsd").solution[:, 0]
        direction = direction / direction.norm()
        look = yield (look.rows @ direction).sum() * direction


def metabalance(size: int) -> Reference:
    """facebookresearch/MetaBalance with one parameter: averages begin at zero, which cancels in their ratio."""
    norms = ones(size, 0.0)
    look = yield ones(size)
    while True:
        norms = 0.9 * norms + 0.1 * look.rows.norm(dim=1)
        look = yield 0.7 * norms[0] / norms + 0.3


# Element by element, and independent batches --------------------------------------------------------------------------


def db_mtl(size: int, logarithm: bool = True) -> Reference:
    """LibMTL, by the authors of DB-MTL: 1e-8 inside the logarithm and beside the norms, β = 0.9 that does not decay."""
    average = None
    look = yield ones(size)
    while True:
        rows = look.rows / (look.losses + 1e-8)[:, None] if logarithm else look.rows
        average = rows + 0.9 * ((torch.zeros_like(rows) if average is None else average) - rows)
        norms = average.norm(dim=1)
        look = yield (norms.max() / (norms + 1e-8)) @ average


def moco(size: int) -> Reference:
    """LibMTL, after code that its authors shared: β = 0.5 and γ = 0.1 over the root of the step, a softmax."""
    y, shares, step = None, ones(size, 1 / size), 0
    look = yield ones(size)
    while True:
        step += 1
        rows = look.losses[:, None] * look.rows / (look.rows.norm(dim=1, keepdim=True) + 1e-8)
        y = torch.zeros_like(rows) if y is None else y
        y = y - 0.5 / step**0.5 * (y - rows)
        shares = (shares - 0.1 / step**0.5 * (y @ y.T) @ shares).softmax(0)
        look = yield shares @ y


def adatask(size: int) -> Reference:
    """EnnengYang/AdaTask: one count for all tasks, the root of v corrected before 1e-8 is added; over the rate."""
    average, squares, step = None, None, 0
    look = yield ones(size)
    while True:
        step += 1
        average = 0.1 * look.rows + (0 if average is None else 0.9 * average)
        squares = 0.001 * look.rows**2 + (0 if squares is None else 0.999 * squares)
        below = squares.sqrt() / (1 - 0.999**step) ** 0.5 + 1e-8
        look = yield (average / below / (1 - 0.9**step)).sum(0)


def excess_mtl(size: int) -> Reference:
    """yifei-he/ExcessMTL: the first step only notes the risks; then 0.01 in the exponent, made to sum to T."""
    squares, first, weights = None, None, ones(size)
    look = yield ones(size)
    while True:
        squares = look.rows**2 + (0 if squares is None else squares)
        risks = (look.rows**2 / (squares + 1e-7).sqrt()).sum(1)
        if first is None:
            first = risks
        else:
            weights = weights * (0.01 * risks / first).exp()
            weights = size * weights / weights.sum()
        look = yield weights


def sdmgrad(size: int, beside: float = 1e-4) -> Reference:
    """OptMN-Lab/sdmgrad: SGD at 10 with momentum 0.5 on kept shares, 20 steps, λ = 0.3; 1e-4 beside squared norms."""
    shares = ones(size, 1 / size)
    look = yield ones(size)
    while True:
        gramian = look.probes[0] @ look.probes[1].T
        gramian = gramian / (gramian.diagonal() + beside).sqrt().mean() ** 2
        sgd = torch.optim.SGD([shares], lr=10, momentum=0.5)
        for _ in range(20):
            shares.grad = gramian @ shares + 0.3 * gramian.mean(1)
            sgd.step()
            shares.copy_(nearest_shares(shares))
        look = yield (shares + 0.3 / size) / 1.3


def modo(size: int) -> Reference:
    """heshandevaka/Trade-Off-MOL with three samples: one projected step, γ = 0.1, ρ = 0.1."""
    shares = ones(size, 1 / size)
    look = yield ones(size)
    while True:
        slope = look.probes[0] @ (look.probes[1].T @ shares) + 0.1 * shares
        shares = nearest_shares(shares - 0.1 * slope)
        look = yield shares


def graddrop(features: Tensor, gradients: Tensor, drawn: Tensor, leak: float) -> Tensor:
    """tensorflow/lingvo, by the authors of GradDrop: ``gradients [T, B, F]``, one uniform draw for each feature.

    At last, unless told not to, it multiplies what is left by its length over that of the plain sum.
    """
    signs = features / (features + (features.abs() <= 1e-7)).abs()
    votes = (signs * gradients).sum(1)
    up = votes.sum(0) / (2 * votes.abs().sum(0) + 1e-7) + 0.5 >= drawn
    passes = torch.where(up, votes >= 0, votes <= 0).double()
    left = ((leak + (1 - leak) * passes)[:, None] * gradients).sum(0)
    return left * left.norm() / (gradients.sum(0).norm() + 1e-7)
