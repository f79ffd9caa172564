"""Names of arms that can be read, in sentences too. (What pages call them: `report/test_study_page.py`.)"""

from __future__ import annotations

from steelyard.study.planning.readable_arms import named_once, readable_methods, renamed

FEW, MANY = "uw{a b|c}", "equal{a1 a2 a3 a4 +b1 +b2|b1 b2 +a1|c1}"
ALIKE = "equal{a1 a2 a3 b1 +b2 +a4|a4 b2|c1}"


def test_networks_are_spelt_out_where_they_come_first_and_counted_from_then_on() -> None:
    sentences = [f"{FEW} before {MANY}.", f"{MANY} again, {MANY}.", f"{FEW} stays."]
    methods = ["single-task", FEW, MANY]
    assert named_once(sentences, methods) == [
        f"{FEW} before {MANY}.",
        "equal{4|2|1} again, equal{4|2|1}.",
        f"{FEW} stays.",
    ]


def test_arms_that_are_counted_alike_have_their_number_from_the_start() -> None:
    said = named_once([f"{MANY}, {ALIKE}.", f"{ALIKE}, not {MANY}."], ["equal", MANY, ALIKE])
    assert said == [f"{MANY} #2, {ALIKE} #3.", "equal{4|2|1} #3, not equal{4|2|1} #2."]


def test_an_arm_that_holds_anothers_name_keeps_its_own() -> None:
    branched, stacked = f"{MANY}@mmoe", f"log+{MANY}"
    methods = [MANY, ALIKE, branched, stacked]
    said = named_once([f"{branched}; {branched}; {stacked}; {stacked}; {MANY}; {MANY}"], methods)
    assert said == [f"{branched}; equal{{4|2|1}}@mmoe; {stacked}; log+equal{{4|2|1}}; {MANY} #1; equal{{4|2|1}} #1"]
    assert renamed([f"{MANY}, {branched}, {stacked}"], readable_methods(methods)) == [
        "equal{4|2|1} #1, equal{4|2|1}@mmoe, log+equal{4|2|1}"
    ]


def test_a_command_to_be_copied_keeps_its_arms() -> None:
    command = f"  steelyard compare p.py --methods 'equal,{MANY}' --epochs 8"
    text = f"Train {MANY} longer:\n{command}"
    assert renamed([text], readable_methods([MANY])) == [f"Train equal{{4|2|1}} longer:\n{command}"]
    assert named_once([MANY, text], [MANY]) == [MANY, f"Train equal{{4|2|1}} longer:\n{command}"]


def test_nothing_is_nothing() -> None:
    assert named_once([], [MANY]) == []
    assert named_once([FEW], []) == renamed([FEW], {}) == [FEW]
