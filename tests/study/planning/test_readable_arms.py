"""Names of arms that can be read, in sentences too. (What pages call them: `report/test_study_page.py`.)"""

from __future__ import annotations

from steelyard.study.planning.readable_arms import named_once

FEW, MANY = "uw{a b|c}", "equal{a1 a2 a3 a4 +b1 +b2|b1 b2 +a1|c1}"
ALIKE = "equal{a1 a2 a3 b1 +b2 +a4|a4 b2|c1}"


def test_networks_are_named_where_they_come_first_and_counted_from_then_on() -> None:
    sentences = [f"{FEW} before {MANY}.", f"{MANY} again, {MANY}.", f"{FEW} stays."]
    methods = ["single-task", FEW, MANY]
    assert named_once(sentences, methods) == [
        f"{FEW} before {MANY}.",
        "equal{4|2|1} again, equal{4|2|1}.",
        f"{FEW} stays.",
    ]


def test_networks_that_were_named_before_are_counted_from_the_start() -> None:
    assert named_once([f"{MANY} on a.", f"{MANY} on b."], [MANY], named=True) == [
        "equal{4|2|1} on a.",
        "equal{4|2|1} on b.",
    ]


def test_arms_that_are_counted_alike_are_numbered_by_their_place_as_in_tables() -> None:
    said = named_once([f"{MANY}, {ALIKE}.", f"{ALIKE}, not {MANY}."], ["equal", MANY, ALIKE])
    assert said == [f"{MANY}, {ALIKE}.", "equal{4|2|1} #3, not equal{4|2|1} #2."]


def test_one_arm_whose_name_begins_with_anothers_keeps_its_own() -> None:
    branched = f"{MANY}@mmoe"
    said = named_once([f"{branched}; {branched}; {MANY}; {MANY}"], [MANY, branched])
    assert said == [f"{branched}; equal{{4|2|1}}@mmoe; equal{{4|2|1}}; equal{{4|2|1}}"]
    assert named_once([], [MANY]) == []
