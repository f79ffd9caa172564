"""What the command line gives as text is read without ambiguity, or refused with the fix."""

import pytest

from steelyard.cli.arguments import ArgumentError, beside, default_store, parse_fractions, parse_seeds


@pytest.mark.parametrize(
    ("texts", "settings"),
    [
        (["1.0"], [1.0]),
        (["0.1,1.0"], [0.1, 1.0]),
        (["10%, 100%"], [0.1, 1.0]),
        (["left=0.1,right=1.0"], [{"left": 0.1, "right": 1.0}]),
        (["left=10%"], [{"left": 0.1}]),
        (["0.1;left=0.1,right=1;0.5,1"], [0.1, {"left": 0.1, "right": 1.0}, 0.5, 1.0]),
        (["0.1", "left=0.1,right=1.0"], [0.1, {"left": 0.1, "right": 1.0}]),
    ],
)
def test_fractions(texts, settings):
    assert parse_fractions(texts) == settings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.1,left=1.0", "mixes.*semicolon"),
        ("ten", "'ten' is no number"),
        ("0.1,", "'' is no number"),
        ("", "an empty setting"),
        ("0.1;", "an empty setting"),
        ("0", "0 must be above 0"),
        ("1.5", "at most 1"),
        ("150%", "at most 1"),
        ("nan", "must be above 0"),
        ("left=0.1,left=1", "gives 'left' twice"),
    ],
)
def test_fractions_that_cannot_be_read_say_why(text, message):
    with pytest.raises(ArgumentError, match=message):
        parse_fractions([text])


@pytest.mark.parametrize(("text", "message"), [("0", "at least one"), ("3,7,3", "names a seed twice")])
def test_seeds_that_say_nothing_are_refused(text, message):
    with pytest.raises(ArgumentError, match=message):
        parse_seeds(text)


def test_seeds_are_a_number_or_a_list():
    assert parse_seeds("5") == 5
    assert parse_seeds("3, 7,11") == [3, 7, 11]
    for text in ("five", "-1", "1.5", "", "3,"):
        with pytest.raises(ArgumentError, match="--seeds"):
            parse_seeds(text)


def test_files_are_named_after_the_problem():
    assert str(default_store("multi-mnist")) == "steelyard-multi-mnist.sqlite"
    assert str(default_store("../my problem")) == "steelyard-..-my-problem.sqlite"
    assert str(beside(default_store("digits"), ".html")) == "steelyard-digits.html"
