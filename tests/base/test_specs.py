"""Whatever a user writes as a method: a balancer, or an error that says what is wrong; never a traceback."""

from __future__ import annotations

import random
import warnings
from typing import Any

import pytest
import torch

from steelyard.balancing.balancer import Balancer
from steelyard.base.specs import parse_spec
from steelyard.errors import OptionError, SteelyardError, UnknownNameError
from steelyard.method_registry import _parameters, make, method_class, options_of, stage_class
from steelyard.methods import METHODS
from steelyard.methods.loss_stages import STAGES

TASKS = ["left", "right", "3"]
COMMON = [*_parameters(method_class("equal"))]
NAMES = [*METHODS, *STAGES, "single-task", "emma", "EMA", "é", "3"]
OPTIONS = {name: [*options_of(method_class(name))] for name in METHODS} | {
    name: [*_parameters(stage_class(name))] for name in STAGES if name not in METHODS
}
VALUES = [
    *("0", "1", "2", "-1", "3", "0.5", "0.9", "1.0", "1e-300", "1e300", "1e999", "-1e999", "1_000", "0x1f", "1j", "+1"),
    *(
        "10" + "0" * 400,
        "9" * 30,
        "0x" + "f" * 5000,
        "9" * 5000,
        "1.5.2",
        "2**70",
        "nan",
        "inf",
        "None",
        "True",
        "False",
    ),
    *("left", "right", "plain", "weighted", "sum", "paper", "to-max", "'quoted'", '"x"', "''", "'3'", "none", "rows"),
    *("numbers", "external", "exact", "local-mean", "off", "step", "epoch", "first-order", "held-out", "l2", "cosine"),
    *("{}", "{{}}", "[]", "[1,2]", "()", "(1,)", "{1,2}", "{'left':1}", "{'left':-1}", "{'left':'a'}", "{'a':1}"),
    *(
        "{1:2}",
        "{'left':{}}",
        "{'left':[1]}",
        "{'left':None}",
        "{'left':True}",
        "{'left':1e999}",
        "b'x'",
        "...",
        "f(1)",
    ),
    *("'left: 1, right: 0.5'", "'left: 1 until 80 %, then 0'", "'left: 1 to 0 until 5, then 0'", "'left: 1e999'"),
    *(
        "'left'",
        "'left:'",
        "{'left':'1 until 5 epochs, then 2'}",
        "lambda n: {}",
        "__import__('os')",
        "#",
        "\\",
        "\x00",
    ),
    *(
        "(" * 300 + ")" * 300,
        "[" * 80 + "]" * 80,
        "-" * 400 + "1",
        "\n",
        "\t1",
        "🙂",
        "１",
        "1 2",
        "a b",
        "x=y",
        "'\\d'",
    ),
]
CHARACTERS = "abcdelmnorstux019.,;:+-*=(){}[]'\"_ \t\n\\#%é\x00"


def spec(draw: random.Random) -> str:
    """A text that follows the grammar, with any options and values."""
    parts = [draw.choice([*STAGES]) for _ in range(draw.choice([0, 0, 0, 1, 2]))] + [draw.choice(NAMES)]
    return "+".join(part(draw, name) for name in parts)


def part(draw: random.Random, name: str) -> str:
    keys = OPTIONS.get(name, []) * 3 + COMMON + ["bta", "", "tasks", "self"]
    items = [f"{draw.choice(keys)}={draw.choice(VALUES)}" for _ in range(draw.choice([0, 1, 1, 1, 2, 3]))]
    return name + draw.choice([f"({','.join(items)})", f"( {' , '.join(items)} )"]) if items else name


def mutated(draw: random.Random, text: str) -> str:
    """Some characters taken out, put in, or doubled."""
    for _ in range(draw.randint(1, 4)):
        place = draw.randint(0, len(text))
        kind = draw.random()
        if kind < 0.4:
            text = text[:place] + draw.choice(CHARACTERS) + text[place:]
        elif kind < 0.8:
            text = text[:place] + text[place + draw.randint(1, 3) :]
        else:
            text = text[:place] + text[draw.randint(0, len(text)) :][:20] + text[place:]
    return text


def outcome(text: str) -> Balancer | str:
    """The balancer, or what the refusal says."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's own, at a backslash in a literal
            return make(text, TASKS)
    except SteelyardError as error:
        return str(error)
    except BaseException as error:
        raise AssertionError(f"{text[:300]!r} ends in {type(error).__name__}: {error}") from error


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow("fuzzing: five thousand more")) for seed in (1, 2, 3))]
)
@pytest.mark.takes("five thousand specs")
def test_twenty_thousand_specs_make_a_balancer_or_are_refused(seed: int) -> None:
    draw = random.Random(seed)
    made = 0
    for number in range(5000):
        text = spec(draw)
        text = mutated(draw, text) if number % 2 else text
        answer = outcome(text)
        if isinstance(answer, str):
            assert 0 < len(answer) < 2000 + 3 * len(text), f"{text[:200]}: {answer[:200]}"
        else:
            made += 1
    assert made > 200, "nearly all were refused: few constructors were run to their end"


@pytest.mark.parametrize("seed", range(1000, 1010))
def test_a_spec_that_is_read_is_read_the_same_once_written(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(100):
        text = spec(draw)
        try:
            canonical = str(parse_spec(text))
        except SteelyardError:
            continue
        assert str(parse_spec(canonical)) == canonical


WRONG: dict[str, Any] = {
    "text": "high",
    "mapping": {},
    "list": [1],
    "object": object(),
    "bytes": b"1",
    "complex": 1j,
    "nan": float("nan"),
    "inf": float("inf"),
    "tensor": torch.ones(2),
    "huge": 10**400,
}


def every_option() -> list[tuple[str, str]]:
    return [(name, option) for name in METHODS for option in _parameters(method_class(name))]


@pytest.mark.parametrize("kind", WRONG)
def test_every_option_of_every_method_refuses_what_is_of_another_kind(kind: str) -> None:
    """Those that take such a value are left out by name: texts that list weights or name a layer, and mappings."""
    takes = {
        "text": {("fixed", "weights"), ("schedule", "weights")} | {(name, "look") for name in METHODS},
        "mapping": {(name, "priorities") for name in METHODS}
        | {("fixed", "weights"), ("schedule", "weights"), ("pe-ltr", "least")},
    }
    for name, option in every_option():
        mandatory = {"main": "left"} if "main" in options_of(method_class(name)) else {}
        if (name, option) in takes.get(kind, ()):
            continue
        with pytest.raises((OptionError, UnknownNameError), match=rf"{option}|task 'high'") as found:
            make(name, TASKS, **{**mandatory, option: WRONG[kind]})
        assert len(str(found.value)) < 1000
        with pytest.raises((OptionError, UnknownNameError)):
            method_class(name)(TASKS, **{**mandatory, option: WRONG[kind]})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ema(beta={{}})", "beta of ema must be a finite number, got '{{}}'"),
        ("uw(initial=high)", "initial of uw must be a finite number, got 'high'"),
        ("ema(priorities=left)", "priorities of ema must be a mapping from task names to numbers.*got 'left'"),
        ("ema(generator=1)", "generator of ema must be a torch.Generator.*got 1"),
        ("equal(floor=1e999)", "floor of equal must be a finite number, or None, got inf"),
        ("cagrad(rescale=no)", "rescale of cagrad must be True or False, got 'no'"),
        ("ema-scale(beta=left)+ema", "beta of EMAScale must be a finite number, got 'left'"),
        ("equal(every=2.5)", "every of equal must be a whole number, got 2.5"),
        ("schedule(weights='left: 1e999')", "the weight '1e999': .*as large as that"),
    ],
)
def test_what_an_error_says(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make(text, TASKS)


def test_a_method_that_is_no_text() -> None:
    with pytest.raises(OptionError, match=r"a method is named by text such as .*, got 3"):
        make(3, TASKS)  # type: ignore[arg-type]
