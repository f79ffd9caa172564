"""Declared state: what a working copy sees, what a commit keeps, and that nothing is written in place."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import steelyard
from steelyard.base.state import ELEMENTS, TASKS, Declaration, State, Stateful
from steelyard.errors import OptionError

F64 = torch.float64


class Kept(Stateful):
    """One value of every shape that methods declare."""

    def __init__(self, tasks: int = 3, learns: bool = True) -> None:
        super().__init__()
        self.bind(tasks)
        self.declare("mean", default=2.0, reduce="mean")
        self.declare("steps", (), reduce="max")
        self.declare("history", (2, TASKS), default=float("nan"))
        self.declare("pairs", (TASKS, TASKS), default=1.0, reduce="sum")
        self.declare("rows", (TASKS, ELEMENTS), reduce="mean")
        if learns:
            self.declare_parameter("logits", 0.5)


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=F64)


def numbered(learns: bool = True) -> Kept:
    """Values that tell every place apart."""
    kept = Kept(learns=learns)
    state = kept.working_state()
    state.mean = vector(1, 2, 3)
    state.steps = vector(7)[0]
    state.history = vector(1, 2, 3, 4, 5, 6).view(2, 3)
    state.pairs = torch.arange(9, dtype=F64).view(3, 3)
    state.rows = torch.arange(6.0).view(3, 2)
    kept.commit(state)
    return kept


def values(kept: Kept) -> dict[str, list]:
    return {each.name: kept.committed(each.name).tolist() for each in kept.declarations()}


def test_declarations_say_shape_default_and_reduction() -> None:
    kept = Kept()
    assert kept.declarations() == (
        Declaration("mean", (TASKS,), 2.0, "mean"),
        Declaration("steps", (), 0.0, "max"),
        Declaration("history", (2, TASKS), kept.declarations()[2].default, "same"),
        Declaration("pairs", (TASKS, TASKS), 1.0, "sum"),
        Declaration("rows", (TASKS, ELEMENTS), 0.0, "mean"),
        Declaration("logits", (TASKS,), 0.5, "same"),
    )
    assert [each.task_axes for each in kept.declarations()] == [(0,), (), (1,), (0, 1), (0,), (0,)]
    assert [each.by_element for each in kept.declarations()] == [False, False, False, False, True, False]
    assert kept.committed("mean").tolist() == [2, 2, 2]
    assert kept.committed("steps").tolist() == 0
    assert kept.committed("history").shape == (2, 3)
    assert kept.committed("history").isnan().all()
    assert kept.committed("pairs").tolist() == [[1] * 3] * 3
    assert kept.committed("rows").shape == (3, 0)
    assert kept.committed("logits").tolist() == [0.5] * 3
    assert {name: kept.committed(name).dtype for name in ("mean", "steps", "rows", "logits")} == {
        "mean": F64, "steps": F64, "rows": torch.float32, "logits": F64,
    }  # fmt: skip
    assert [name for name, _ in kept.named_parameters()] == ["logits"]
    assert not kept.committed("logits").requires_grad
    assert set(kept.state_dict()) == {each.name for each in kept.declarations()}


def test_a_default_by_element_is_as_large_as_the_gradients_and_read_in_their_dtype() -> None:
    assert Declaration("rows", (TASKS, ELEMENTS), 1.5, "mean").initial(2, 3, torch.bfloat16).tolist() == [[1.5] * 3] * 2
    assert Declaration("rows", (TASKS, ELEMENTS), 0.0, "mean").initial(2, 3, torch.float16).dtype == torch.float16
    assert Declaration("mean", (4, TASKS), 0.0, "mean").initial(2, 3, torch.float16).dtype == F64
    assert Declaration("mean", (4, TASKS), 0.0, "mean").initial(2, 3, torch.float16).shape == (4, 2)


def test_a_name_is_declared_once() -> None:
    with pytest.raises(ValueError, match="the state 'mean' is declared twice"):
        Kept().declare("mean")


def test_only_declared_names_are_read_and_set() -> None:
    state = Kept().working_state()
    said = "no state 'men' was declared; declared: mean, steps, history, pairs, rows, logits"
    with pytest.raises(AttributeError, match=said):
        state.men = vector(1)
    with pytest.raises(AttributeError, match=said):
        _ = state.men


def test_a_working_copy_tells_what_was_set() -> None:
    kept = Kept()
    state = kept.working_state()
    assert state.rebound() == []
    new = vector(4, 5, 6)
    state.mean = new
    assert [(name, value.tolist()) for name, value in state.rebound()] == [("mean", [4, 5, 6])]
    assert state.mean is new
    assert kept.committed("mean").tolist() == [2, 2, 2], "nothing is committed yet"
    assert [name for name, _ in state.only("mean").rebound()] == ["mean"]
    assert state.only("mean").mean is new
    assert state.only("steps").rebound() == []
    with pytest.raises(AttributeError, match=r"no state 'mean' was declared; declared: steps$"):
        _ = state.only("steps").mean


def test_a_working_copy_is_restricted_along_every_task_axis() -> None:
    state = numbered().working_state(torch.tensor([2, 0]))
    assert state.mean.tolist() == [3, 1]
    assert state.steps.item() == 7
    assert state.history.tolist() == [[3, 1], [6, 4]]
    assert state.pairs.tolist() == [[8, 6], [2, 0]]
    assert state.rows.tolist() == [[4, 5], [0, 1]]
    assert state.logits.tolist() == [0.5, 0.5]


def test_a_commit_of_some_tasks_keeps_the_others() -> None:
    kept, index = numbered(), torch.tensor([2, 0])
    state = kept.working_state(index)
    state.mean = vector(30, 10)
    state.steps = vector(8)[0]
    state.history = vector(30, 10, 60, 40).view(2, 2)
    state.pairs = vector(80, 60, 20, 0.5).view(2, 2)
    state.rows = torch.tensor([[40.0, 50.0], [0.5, 10.0]])
    kept.commit(state, index)
    assert values(kept) == {
        "mean": [10, 2, 30],
        "steps": 8,
        "history": [[10, 2, 30], [40, 5, 60]],
        "pairs": [[0.5, 1, 20], [3, 4, 5], [60, 7, 80]],
        "rows": [[0.5, 10], [2, 3], [40, 50]],
        "logits": [0.5] * 3,
    }


@pytest.mark.parametrize("name", ["mean", "history", "pairs", "rows"])
def test_a_commit_writes_nothing_in_place(name: str) -> None:
    """What was taken before it, a state dict or a working copy, stays what it was."""
    kept, index = numbered(), torch.tensor([1])
    taken, before = kept.committed(name), kept.committed(name).clone()
    state = kept.working_state(index)
    setattr(state, name, getattr(state, name) + 100)
    kept.commit(state, index)
    assert torch.equal(taken, before)
    assert not torch.equal(kept.committed(name), before)


def test_values_that_were_left_alone_stay_as_they_are_now() -> None:
    kept = numbered()
    late = kept.working_state()
    late.mean = vector(0, 0, 0)
    meanwhile = kept.working_state()
    meanwhile.steps = vector(9)[0]
    kept.commit(meanwhile)
    kept.commit(late)
    assert kept.committed("steps").item() == 9
    assert kept.committed("mean").tolist() == [0, 0, 0]


def test_what_an_outside_optimizer_learns_is_never_committed_nor_reset() -> None:
    kept = numbered()
    state = kept.working_state()
    state.logits = vector(9, 9, 9)
    state.mean = vector(4, 4, 4)  # declared before it, and the one after it is committed too
    kept.commit(state)
    assert kept.committed("logits").tolist() == [0.5] * 3
    with torch.no_grad():
        kept.logits += 1
    kept.reset()
    assert kept.committed("logits").tolist() == [1.5] * 3
    first = Stateful()
    first.bind(2)
    first.declare_parameter("a")
    first.declare("b", default=3.0)
    assert first.committed("a").tolist() == [0.0, 0.0]
    state = first.working_state()
    state.a, state.b = vector(5, 5), vector(6, 6)
    first.commit(state)
    assert (first.committed("a").tolist(), first.committed("b").tolist()) == ([0, 0], [6, 6])
    first.reset()
    assert first.committed("b").tolist() == [3, 3], "what stands behind a parameter is reset as well"


def test_the_first_rows_of_some_tasks_leave_zeros_for_the_others() -> None:
    kept, index = Kept(), torch.tensor([1])
    state = kept.working_state(index)
    state.rows = torch.tensor([[5.0, 6.0]])
    kept.commit(state, index)
    assert kept.committed("rows").tolist() == [[0, 0], [5, 6], [0, 0]]
    assert kept.committed("rows").dtype == torch.float32


def test_reset_returns_to_the_defaults() -> None:
    kept = numbered()
    kept.reset()
    fresh = Kept()
    for each in fresh.declarations():
        assert torch.equal(kept.committed(each.name).nan_to_num(9), fresh.committed(each.name).nan_to_num(9))


def test_other_tasks_start_at_their_defaults_and_the_same_ones_go_on() -> None:
    """Of three tasks: the last, a new one, the first. (`Balancer.set_tasks` refuses where Parameters are learned.)"""
    kept = numbered(learns=False)
    kept.rebind([2, None, 0])
    history = kept.committed("history")
    assert kept.committed("mean").tolist() == [3, 2, 1]
    assert kept.committed("steps").item() == 7
    assert history[:, [0, 2]].tolist() == [[3, 1], [6, 4]]
    assert history[:, 1].isnan().all()
    assert kept.committed("pairs").tolist() == [[8, 1, 6], [1, 1, 1], [2, 1, 0]]
    assert kept.committed("rows").tolist() == [[4, 5], [0, 0], [0, 1]]
    kept.rebind([0, 1, 2, None])
    kept.reset()
    assert kept.committed("mean").tolist() == [2] * 4
    state = kept.working_state(torch.tensor([3]))
    state.rows = torch.ones(1, 5)
    kept.commit(state, torch.tensor([3]))
    assert kept.committed("rows").shape == (4, 5)


def test_a_narrowed_copy_holds_what_was_set_of_some_tasks() -> None:
    kept = numbered()
    state = kept.working_state()
    state.mean = vector(10, 20, 30)
    state.pairs = 10 * state.pairs
    state.steps = vector(8)[0]
    state.parameter_gradients["logits"] = vector(1, 2, 3)
    narrow = kept.narrowed(state, torch.tensor([0, 2]), leave="steps")
    assert {name: value.tolist() for name, value in narrow.rebound()} == {
        "mean": [10, 30],
        "pairs": [[0, 20], [60, 80]],
    }
    assert narrow.parameter_gradients["logits"].tolist() == [1, 3]
    assert state.mean.tolist() == [10, 20, 30]


def test_half_precision_and_loading_leave_the_state_alone() -> None:
    kept = numbered()
    before = values(kept)
    saved = kept.state_dict()
    kept.bfloat16()
    assert kept.committed("mean").dtype == F64
    assert kept.committed("rows").dtype == torch.float32
    assert values(kept) == before
    other = Kept()
    untouched = other.committed("mean")
    other.load_state_dict(saved)
    assert values(other) == before
    assert untouched.tolist() == [2, 2, 2], "loading writes in place: into storage of its own"
    assert saved["mean"].data_ptr() != other.committed("mean").data_ptr()
    with pytest.raises(RuntimeError, match="size mismatch for mean"):
        Kept(2).load_state_dict(saved)


def test_wrong_types_are_refused_before_anything_is_made() -> None:
    with pytest.raises(OptionError, match="temperature"):
        steelyard.make("dwa", ["a", "b"], temperature="warm")


def test_state_made_by_hand_starts_without_anything_set() -> None:
    state = State({"a": vector(1)})
    assert state.rebound() == []
    assert state.parameter_gradients == {}
    assert not math.isnan(state.a.item())


def test_a_checkpoint_of_the_same_tasks_in_another_order_is_put_into_this_one() -> None:
    kept = numbered()
    saved = {f"method.{name}": value for name, value in kept.state_dict().items()}
    saved["method.other"] = vector(1, 2, 3)
    before = saved["method.pairs"]
    kept.reordered(saved, "method.", [2, 0, 1])
    assert saved["method.mean"].tolist() == [3, 1, 2]
    assert saved["method.steps"].item() == 7
    assert saved["method.history"].tolist() == [[3, 1, 2], [6, 4, 5]]
    assert saved["method.pairs"].tolist() == [[8, 6, 7], [2, 0, 1], [5, 3, 4]]
    assert before.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]], "what is in the caller's hands stays"
    assert saved["method.other"].tolist() == [1, 2, 3]
    lacking = {"method.mean": vector(1, 2, 3)}
    kept.reordered(lacking, "method.", [1, 0, 2])
    assert {name: value.tolist() for name, value in lacking.items()} == {"method.mean": [2, 1, 3]}


def test_other_tasks_altogether_start_at_their_defaults() -> None:
    kept = numbered(learns=False)
    kept.rebind([None, None])
    assert kept.committed("mean").tolist() == [2, 2]
    assert kept.committed("pairs").tolist() == [[1, 1], [1, 1]]
    assert kept.committed("rows").tolist() == [[0, 0], [0, 0]]


def test_the_state_follows_the_module_to_another_device() -> None:
    """`meta` stands for an accelerator: it holds no numbers, but says where it is."""
    kept = numbered(learns=False)
    kept.to("meta", torch.bfloat16)

    def places() -> set[tuple[str, torch.dtype]]:
        return {
            (kept.committed(each.name).device.type, kept.committed(each.name).dtype) for each in kept.declarations()
        }

    assert places() == {("meta", F64), ("meta", torch.float32)}
    kept.reset()
    assert places() == {("meta", F64), ("meta", torch.float32)}
    kept.rebind([2, None, 0])
    assert places() == {("meta", F64), ("meta", torch.float32)}
    saved = Kept(learns=False).state_dict()
    saved["rows"] = torch.ones(3, 5)
    kept.load_state_dict(saved)
    assert places() == {("meta", F64), ("meta", torch.float32)}
    assert kept.committed("rows").shape == (3, 5)


def test_a_module_may_be_moved_without_those_inside_it() -> None:
    kept = numbered()
    kept.inside = Kept()
    kept._apply(lambda value: value.to("meta"), recurse=False)
    assert kept.committed("mean").device.type == "meta"
    assert kept.inside.committed("mean").device.type == "cpu"


def test_what_is_declared_before_the_tasks_are_known_waits_for_them() -> None:
    made = Stateful()
    made.declare("early", (2, TASKS), default=1.0)
    assert made.state_dict() == {}
    made.bind(3)
    assert made.committed("early").tolist() == [[1, 1, 1], [1, 1, 1]]
