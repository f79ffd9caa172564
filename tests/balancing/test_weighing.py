"""From one observation to weights: what is applied in which order, and that a proposal changes nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import steelyard
from steelyard.balancing.weighing import LARGEST, _priorities, propose, stage_slopes, within_reach
from steelyard.base.observation import Balance, Seen
from steelyard.base.stage import Stage
from steelyard.base.state import State
from steelyard.errors import LossError, OptionError

F64 = torch.float64
TASKS = ("a", "b", "c")


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=F64)


def seen(*losses: float, tasks: Sequence[str] = TASKS, **more: Any) -> Seen:
    return Seen(tasks=tuple(tasks), losses=vector(*losses), counts=torch.ones(len(losses), dtype=F64), **more)


class Given(steelyard.Balancer):
    """Weights as they are told, and the last losses as state."""

    name = "given"

    def __init__(self, tasks: Sequence[str], answer: Any, **common: Any) -> None:
        super().__init__(tasks, **common)
        self.answer = answer
        self.asked: list[Seen] = []
        self.declare("last", default=-1.0)

    def weigh(self, seen: Seen, state: State) -> Tensor | Balance:
        self.asked.append(seen)
        state.last = seen.losses
        return self.answer(seen) if callable(self.answer) else self.answer


class Squared(Stage):
    """``L² / 2``, whose slope is ``L``."""

    def __init__(self) -> None:
        super().__init__()
        self.declare("count", ())

    def transform(self, losses: Tensor, state: State) -> tuple[Tensor, Tensor]:
        state.count = state.count + 1
        return losses**2 / 2, losses


def given(answer: Any, stages: int = 0, **common: Any) -> Given:
    made = Given(TASKS, answer, **common)
    if stages:
        made.prepend_stages([Squared() for _ in range(stages)])
    return made


def test_a_proposal_changes_nothing_until_it_is_committed() -> None:
    method = given(vector(1, 2, 3), stages=1)
    first, second = (propose(method, seen(1, 2, 4), None, True) for _ in range(2))
    assert torch.equal(first.weights, second.weights)
    assert method.last.tolist() == [-1, -1, -1]
    for module, state, index in first.commits:
        module.commit(state, index)
    assert method.last.tolist() == [0.5, 2, 8], "the method sees what lies behind the stages"
    assert method.loss_stages()[0].count.item() == 1
    assert [index for *_, index in first.commits] == [None, None]
    assert first.index is None
    assert (first.direction, first.generator_state, first.parameter_gradients) == (None, None, {})


def test_weights_multiply_the_gradients_of_the_losses_themselves() -> None:
    """Behind two stages, w · f'(L): of f = (L²/2)²/2 it is L²/2 · L."""
    method = given(vector(1, 2, 3), stages=2)
    found = propose(method, seen(1, 2, 4), None, True)
    slopes = vector(0.5, 4, 32)
    assert torch.equal(stage_slopes(method, vector(1, 2, 4), None), slopes)
    assert stage_slopes(given(vector(1, 1, 1)), vector(1, 2, 4), None) is None
    assert found.weights.tolist() == (vector(1, 2, 3) * slopes).tolist()
    assert found.head_weights.tolist() == found.weights.tolist()
    assert found.value.item() == (vector(1, 2, 3) * vector(0.125, 2, 32)).sum().item()
    assert [len(commits) for commits in (found.commits,)] == [3]


def test_scale_comes_before_guards_and_guards_before_priorities() -> None:
    """(4, 2, 1) sums to three as (12, 6, 3) / 7; 12 / 7 is cut to 1; then the priority doubles it."""
    answer = vector(4, 2, 1)
    assert propose(given(answer, scale="sum"), seen(1, 1, 1), None, True).weights == pytest.approx(3 * answer / 7)
    capped = propose(given(answer, scale="sum", cap=1.0), seen(1, 1, 1), None, True)
    assert capped.weights.tolist() == pytest.approx([1, 6 / 7, 3 / 7])
    twice = propose(given(answer, scale="sum", cap=1.0, priorities={"a": 2.0}), seen(1, 1, 1), None, True)
    assert twice.weights.tolist() == pytest.approx([2, 6 / 7, 3 / 7])
    floored = propose(given(answer, floor=3.0, priorities={"c": 0.5}), seen(1, 1, 1), None, True)
    assert floored.weights.tolist() == [4, 3, 1.5]
    staged = propose(given(answer, stages=1, scale="sum"), seen(1, 2, 4), None, True)
    assert staged.weights.tolist() == pytest.approx([1, 1, 1]), "the stages' slopes come before the scale"


def test_a_change_is_limited_by_what_was_committed_last() -> None:
    method = given(vector(1, 2, 3), max_change=0.5)
    first = propose(method, seen(1, 1, 1), None, True)
    assert first.weights.tolist() == [1, 2, 3], "nothing came before"
    for module, state, index in first.commits:
        module.commit(state, index)
    method.answer = vector(9, 2.5, -9)
    second = propose(method, seen(1, 1, 1), None, True)
    assert second.weights.tolist() == [2, 2.5, 2]
    method.answer = lambda seen: vector(9, -9)
    some = propose(method, seen(1, 1, tasks=("a", "c")), torch.tensor([0, 2]), True)
    assert some.weights.tolist() == [2, 2], "of two tasks: within half of their mean, which is 2"


def test_weights_of_zero_have_no_sum_to_be_scaled_to() -> None:
    assert propose(given(vector(0, 0, 0), scale="sum"), seen(1, 1, 1), None, True).weights.tolist() == [0, 0, 0]


def test_priorities_of_some_tasks_go_to_those_that_are_there() -> None:
    method = given(lambda seen: torch.ones_like(seen.losses), priorities={"a": 2.0, "c": 5.0})
    found = propose(method, seen(1, 1, tasks=("b", "c")), torch.tensor([1, 2]), True)
    assert found.weights.tolist() == [1, 5]
    native = given(vector(1, 1, 1), priorities={"a": 2.0})
    native.native_priorities = True
    assert propose(native, seen(1, 1, 1), None, True).weights.tolist() == [1, 1, 1]


def test_plain_heads_get_the_stages_and_the_priorities_alone() -> None:
    losses = (1, 2, 4)
    plain = propose(given(vector(5, 6, 7), heads="plain"), seen(*losses), None, True)
    assert plain.weights.tolist() == [5, 6, 7]
    assert plain.head_weights.tolist() == [1, 1, 1]
    assert plain.value.item() == 7
    staged = propose(given(vector(5, 6, 7), stages=1, heads="plain", priorities={"b": 3.0}), seen(*losses), None, True)
    assert staged.head_weights.tolist() == [1, 6, 4]
    assert staged.value.item() == 1 + 3 * 2 + 4
    scaled = propose(given(vector(5, 6, 7), stages=1, heads="plain", scale="sum"), seen(*losses), None, True)
    assert scaled.head_weights.tolist() == pytest.approx([3 / 7, 6 / 7, 12 / 7])


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({}, 42.0),  # the method's own objective, as published
        ({"scale": "sum"}, 1 * 1 + 1 * 2 + 1 * 4),
        ({"cap": 0.5}, 0.5 * (1 + 2 + 4)),
        ({"priorities": {"c": 3.0}}, 2 * 1 + 2 * 2 + 6 * 4),
    ],
)
def test_the_value_is_the_published_objective_unless_the_weights_were_changed(options: dict, value: float) -> None:
    method = given(Balance(vector(2, 2, 2), value=vector(42)[0]), **options)
    assert propose(method, seen(1, 2, 4), None, True).value.item() == pytest.approx(value)


def test_rows_make_a_direction_of_the_weights_before_the_stages() -> None:
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    method = given(lambda seen: Balance(vector(1, 2, 3), rows=seen.rows), stages=1)
    found = propose(method, seen(1, 2, 4, rows=rows), None, True)
    scaled = rows * torch.tensor([1.0, 2.0, 4.0])[:, None]  # the stages' slopes
    assert torch.equal(found.direction, torch.tensor([1.0, 2.0, 3.0]) @ scaled)
    assert found.direction.dtype == torch.float32
    assert found.value.item() == 7, "the plain sum: no scalar has this direction as its gradient"
    straight = propose(
        given(lambda seen: Balance(vector(1, 2, 3), rows=seen.rows)), seen(1, 2, 4, rows=rows), None, True
    )
    assert straight.direction.tolist() == [4, 5]


def test_weights_are_kept_to_what_float32_can_multiply() -> None:
    huge, inf = 1e40, float("inf")
    assert within_reach(vector(huge, -huge, inf, 1.0)).tolist() == [LARGEST, -LARGEST, inf, 1.0]
    assert LARGEST == 2.0**108
    found = propose(given(vector(huge, 1, 1), heads="plain", priorities={"b": huge}), seen(1, 1, 1), None, True)
    assert found.weights.tolist() == [LARGEST, LARGEST, 1]
    assert found.head_weights.tolist() == [1, LARGEST, 1]


def test_every_counts_the_weights_that_were_used() -> None:
    method = given(vector(1, 2, 3), scale="sum")
    for _ in range(2):
        for module, state, index in propose(method, seen(1, 1, 1), None, True).commits:
            module.commit(state, index)
    assert method.weight_sums.tolist() == [[2, 2, 2], [1, 2, 3], [0.5, 2, 4.5]]


def test_weights_are_held_between_refreshes_as_the_method_gave_them() -> None:
    """Held before scale and priorities, which are applied anew; an unknown task gets the mean of the others."""
    method = given(lambda seen: vector(2, 4), every=2, scale="sum")
    some = propose(method, seen(1, 1, tasks=("a", "b")), torch.tensor([0, 1]), True)
    for module, state, index in some.commits:
        module.commit(state, index)
    assert method.held_weights[:2].tolist() == [2, 4]
    held = propose(method, seen(1, 1, 1), None, False)
    assert held.weights.tolist() == [2 / 3, 4 / 3, 1]
    assert len(method.asked) == 1, "the method is not asked again"
    fresh = given(vector(7, 7, 7), every=2)
    assert propose(fresh, seen(1, 1, 1), None, False).weights.tolist() == [1, 1, 1], "nothing is held yet"
    alone = propose(given(vector(7, 7, 7)), seen(1, 1, 1), None, True)
    assert "held_weights" not in {name for _, state, _ in alone.commits for name, _ in state.rebound()}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (vector(1, 2), r"Given.weigh must return one weight for each of the 3 present tasks, .* \(3,\), got \(2,\)"),
        ([1, 2, 3], "got list"),
        (Balance([1, 2, 3]), "got list"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_an_answer_of_another_shape_is_refused(answer: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        propose(given(answer), seen(1, 1, 1), None, True)


class Drawn(steelyard.Balancer):
    name = "drawn"
    draws = True

    def weigh(self, seen: Seen, state: State) -> Tensor:
        return torch.rand(len(seen.losses), generator=self.generator, dtype=F64)


def test_draws_are_proposed_too() -> None:
    method = Drawn(TASKS, generator=torch.Generator().manual_seed(3))
    before = method.generator.get_state()
    first, again = (propose(method, seen(1, 1, 1), None, True) for _ in range(2))
    assert torch.equal(first.weights, again.weights)
    assert torch.equal(method.generator.get_state(), before), "the generator is put back"
    method.generator.set_state(first.generator_state)
    assert not torch.equal(propose(method, seen(1, 1, 1), None, True).weights, first.weights)


class Positive(Given):
    name = "positive"
    positive_losses = True


class Minus(Stage):
    def transform(self, losses: Tensor, state: State) -> tuple[Tensor, Tensor]:
        return losses - 2, torch.ones_like(losses)


def test_who_takes_logarithms_refuses_what_a_stage_made_negative() -> None:
    method = Positive(TASKS, vector(1, 1, 1))
    propose(method, seen(-1, 1, 1), None, True)  # what the caller gave is checked where it comes in
    method.prepend_stages([Minus()])
    propose(method, seen(3, 3, 3), None, True)
    with pytest.raises(LossError, match=r"'b'.*positive, which reads it after the stages in front"):
        propose(method, seen(3, 1, 3), None, True)
    method.on_nonfinite = "ignore"
    propose(method, seen(3, 1, 3), None, True)
    log = steelyard.LogLosses()
    staged = given(vector(1, 1, 1))
    staged.prepend_stages([Minus(), log])
    with pytest.raises(LossError, match=r"'a'.*LogLosses, which reads it after the stages in front"):
        propose(staged, seen(1, 3, 3), None, True)


def remembering(answer: Any, **common: Any) -> Given:
    method = given(answer, memory="numbers", **common)
    for module, state, index in propose(method, seen(2, 4, 8), None, True).commits:
        module.commit(state, index)
    method.asked.clear()
    return method


def test_absent_tasks_are_weighed_by_what_was_last_seen_of_them() -> None:
    """The batch holds `c` alone; the weights are those of all three, of which `c` gets its own."""
    method = remembering(lambda seen: 1 / seen.losses, stages=1)
    found = propose(method, seen(3, tasks=("c",)), torch.tensor([2]), True)
    (asked,) = method.asked
    assert asked.tasks == TASKS
    assert asked.losses.tolist() == [2, 8, 4.5]
    assert asked.counts.tolist() == [1, 1, 1]
    assert found.weights.tolist() == [3 / 4.5]
    assert found.head_weights.tolist() == [3 / 4.5]
    assert found.value.item() == pytest.approx(1.0)
    for module, state, index in found.commits:
        module.commit(state, index)
    assert method.last_losses.tolist() == [2, 8, 4.5], "only what is in the batch moves"
    assert method.last_slopes.tolist() == [2, 4, 3]
    assert method.weight_sums[0].tolist() == [1, 1, 2]
    assert method.last.tolist() == [2, 8, 4.5]


def test_counts_of_tasks_that_are_remembered_are_one() -> None:
    method = remembering(lambda seen: torch.ones_like(seen.losses))
    one = Seen(tasks=("b",), losses=vector(5), counts=vector(7))
    propose(method, one, torch.tensor([1]), True)
    assert method.asked[0].counts.tolist() == [1, 7, 1]
    assert method.asked[0].losses.tolist() == [2, 5, 8]


def test_a_task_that_was_never_seen_is_not_there() -> None:
    method = given(lambda seen: seen.losses, memory="numbers", scale="sum", priorities={"c": 2.0})
    first = propose(method, seen(2, tasks=("a",)), torch.tensor([0]), True)
    assert first.weights.tolist() == [1]
    for module, state, index in first.commits:
        module.commit(state, index)
    second = propose(method, seen(6, tasks=("c",)), torch.tensor([2]), True)
    assert method.asked[-1].tasks == ("a", "c")
    assert second.weights.tolist() == [2 * 2 * 6 / 8], "scaled among the two that are known, then its priority"
    assert second.index.tolist() == [2]


def test_all_at_once_need_no_memory_and_no_memory_is_none() -> None:
    method = remembering(lambda seen: seen.losses)
    propose(method, seen(1, 2, 3), None, True)
    assert method.asked[0].losses.tolist() == [1, 2, 3]
    forgetful = given(lambda seen: seen.losses)
    propose(forgetful, seen(2, 4, 8), None, True)
    propose(forgetful, seen(3, tasks=("c",)), torch.tensor([2]), True)
    assert forgetful.asked[-1].tasks == ("c",)
    assert not hasattr(forgetful, "last_losses")


class ByNorms(Given):
    name = "by-norms"
    reads = "norms"


def test_norms_are_remembered_where_norms_are_read() -> None:
    method = ByNorms(TASKS, lambda seen: seen.squared_norms, memory="numbers", every=2)
    for module, state, index in propose(method, seen(2, 4, 8, squared_norms=vector(1, 2, 3)), None, True).commits:
        module.commit(state, index)
    assert method.last_squared_norms.tolist() == [1, 2, 3]
    one = seen(9, tasks=("b",), squared_norms=vector(7))
    found = propose(method, one, torch.tensor([1]), True)
    assert method.asked[-1].squared_norms.tolist() == [1, 7, 3]
    assert found.weights.tolist() == [7]
    held = {name: value.tolist() for _, state, _ in found.commits for name, value in state.rebound()}
    assert held["held_weights"] == [1, 7, 3], "weights of all are held, also of the absent"
    between = propose(method, one, torch.tensor([1]), False)
    assert "last_squared_norms" not in {name for _, state, _ in between.commits for name, _ in state.rebound()}


def test_a_method_that_reads_losses_remembers_no_norms() -> None:
    """They are known where heads are plain, but nobody asks for them."""
    method = given(lambda seen: seen.losses, memory="numbers")
    first = propose(method, seen(2, 4, 8, squared_norms=vector(1, 2, 3)), None, True)
    for module, state, index in first.commits:
        module.commit(state, index)
    propose(method, seen(9, tasks=("b",), squared_norms=vector(7)), torch.tensor([1]), True)
    assert method.asked[-1].losses.tolist() == [2, 9, 8]
    assert method.asked[-1].squared_norms is None


def test_a_task_whose_norm_was_never_read_is_not_there_for_a_method_that_reads_norms() -> None:
    method = ByNorms(TASKS, lambda seen: seen.squared_norms, memory="numbers", every=2)
    for module, state, index in propose(method, seen(2, tasks=("a",)), torch.tensor([0]), False).commits:
        module.commit(state, index)
    assert method.last_losses[0] == 2
    propose(method, seen(9, tasks=("b",), squared_norms=vector(7)), torch.tensor([1]), True)
    assert method.asked[-1].tasks == ("b",)


class ByRows(Given):
    name = "by-rows"
    reads = "rows"
    where = ("trunk", "features")


def test_rows_are_remembered_and_their_gramian_follows() -> None:
    rows = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    method = ByRows(TASKS, lambda seen: Balance(torch.ones_like(seen.losses), rows=seen.rows), memory="rows")
    first = seen(1, 1, 1, rows=rows, squared_norms=vector(1, 4, 9))
    for module, state, index in propose(method, first, None, True).commits:
        module.commit(state, index)
    new = torch.tensor([[0.0, 5.0]])
    found = propose(method, seen(1, tasks=("a",), rows=new, squared_norms=vector(25)), torch.tensor([0]), True)
    asked = method.asked[-1]
    assert asked.rows.tolist() == [[0, 5], [0, 2], [3, 0]]
    assert asked.gramian.tolist() == [[25, 10, 0], [10, 4, 0], [0, 0, 9]]
    assert asked.squared_norms.tolist() == [25, 4, 9]
    assert found.direction.tolist() == [0, 5], "the batch's own row alone is applied"
    for module, state, index in found.commits:
        module.commit(state, index)
    assert method.last_rows.tolist() == [[0, 5], [0, 2], [3, 0]]
    new.zero_()
    assert method.last_rows[0].tolist() == [0, 5], "kept as it was, whatever becomes of the gradient's memory"


def test_absent_tasks_whose_rows_were_never_seen_stand_in_with_zeros() -> None:
    method = ByRows(TASKS, lambda seen: Balance(torch.ones_like(seen.losses), rows=seen.rows), memory="rows")
    for module, state, index in propose(method, seen(1, 2, 3), None, True).commits:
        module.commit(state, index)
    propose(method, seen(1, tasks=("b",), rows=torch.tensor([[3.0, 4.0]])), torch.tensor([1]), True)
    asked = method.asked[-1]
    assert asked.rows.tolist() == [[0, 0], [3, 4], [0, 0]]
    assert asked.squared_norms.tolist() == [0, 25, 0]


def test_at_features_of_the_batch_there_are_no_rows_to_remember() -> None:
    method = ByRows(TASKS, lambda seen: torch.ones_like(seen.losses), memory="rows")
    found = propose(method, seen(1, 2, 3), None, True)
    assert "last_rows" not in {name for _, state, _ in found.commits for name, _ in state.rebound()}


def test_priorities_stand_where_the_weights_stand() -> None:
    assert _priorities(given(vector(1, 1, 1), priorities={"a": 2.0}), None, torch.empty(3, device="meta")).is_meta


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        (ByRows, {"memory": "numbers"}, "memory='numbers' keeps losses and norms, and by-rows reads the tasks' rows"),
        (
            Given,
            {"memory": "rows"},
            "memory='rows' keeps the tasks' gradients .*, and given has no use for them",
        ),
        (ByRows, {"memory": "rows", "every": 2}, "it does not go with every=2"),
    ],
)
def test_a_memory_that_does_not_fit_is_refused(kind: type[Given], options: dict, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        kind(TASKS, vector(1, 1, 1), **options)


@pytest.mark.parametrize(("scale", "alone"), [("paper", True), ("sum", False)])
def test_where_nobody_looks_a_weight_that_depends_on_its_own_loss_alone_stands(scale, alone):
    """Another task's infinite loss makes NaN of those weights alone that it may have a part in: a common scale."""
    method = steelyard.make("uw", TASKS, scale=scale, on_nonfinite="ignore")
    for losses, wrong in (((1.0, math.inf, 2.0), [1]), ((math.nan, 1.0, 2.0), [0]), ((1.0, 3.0, 2.0), [])):
        weights = propose(method, seen(*losses), None, True).weights
        unknown = [place for place in range(3) if math.isnan(weights[place])]
        assert unknown == (wrong if alone or not wrong else [0, 1, 2])
    measured = seen(1.0, math.inf, 2.0, squared_norms=vector(1.0, 1.0, 1.0))
    assert propose(method, measured, None, True).weights.isnan().all(), "what gradients tell may have had a part in it"
