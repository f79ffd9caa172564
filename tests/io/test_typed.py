"""JSON becomes values of annotated types, or says what is in whose place."""

import json
from dataclasses import asdict, dataclass, field
from typing import Literal

import pytest

from steelyard.io.typed import typed


@dataclass(frozen=True)
class Leaf:
    name: str
    kind: Literal["a", "b"] | None
    pair: tuple[str, float]


@dataclass(frozen=True)
class Tree:
    leaves: tuple[Leaf, ...]
    numbers: dict[int, list[float]]
    flag: bool
    size: int = 3
    hidden: int = field(default=0, init=False)


TREE = Tree((Leaf("x", "a", ("p", 0.5)), Leaf("y", None, ("q", 2))), {3: [1, 0.25], 4: []}, flag=True)


def test_what_was_written_comes_back() -> None:
    values = asdict(TREE)
    del values["hidden"]
    found = typed(Tree, json.loads(json.dumps(values)))
    assert found == typed(Tree, values) == TREE
    assert repr(found) == repr(TREE)  # whole numbers are still whole: keys of trials are made of them


def test_fields_at_their_default_may_be_missing_and_others_not() -> None:
    whole = json.loads(json.dumps(asdict(TREE)))
    del whole["hidden"], whole["size"]
    assert typed(Tree, whole) == TREE
    del whole["flag"]
    with pytest.raises(TypeError, match=r"missing .*'flag'"):
        typed(Tree, whole)
    with pytest.raises(ValueError, match=r"unknown fields \['hidden'\]"):
        typed(Tree, {**whole, "flag": True, "hidden": 3})


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (str, 3),
        (int, True),
        (int, 3.0),
        (float, True),
        (float, "3"),
        (bool, 1),
        (list[float], [0.5, True]),
        (list[float], "ab"),
        (list[str], {"a": 1}),
        (dict[int, str], {"x": "a"}),
        (dict[str, str], ["a"]),
        (tuple[str, float], ["a"]),
        (tuple[str, float], ["a", 1.0, 2.0]),
        (Literal["a", "b"], "c"),
        (Literal["a", "b"], ["a"]),
        (Leaf, ["x"]),
        (str | None, 3),
    ],
)
def test_another_type_is_refused(kind: object, value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        typed(kind, value)


def test_numbers_that_json_does_not_have_are_text() -> None:
    assert repr(typed(list[float], ["NaN", "Infinity", -1])) == "[nan, inf, -1]"
