"""Docstrings in a terminal: every word stays, lines fit, examples and tables are left alone."""

import inspect
import re

import pytest

import steelyard
from steelyard.cli.docstrings import rewrapped
from steelyard.methods import STAGES
from steelyard.models.building import architecture_class, architecture_names
from steelyard.registry import stage_class

KEPT = """\
Example::

    loss = balancer(losses, shared=features)  # stays as it is

    loss.backward()

========  =====
option    what
========  =====
a         first
========  ====="""

TEXT = f"""\
A summary that is a little longer than the line.

Words follow, and
more words; then

- ``a``: one thing which is said at some length
- ``b``: another

{KEPT}

Args:
    tasks: task names.
    beta: a number whose description does not fit
        on one line.

Cost: none."""

NARROW = f"""\
A summary that is a little
longer than the line.

Words follow, and more words;
then

- ``a``: one thing which is
  said at some length
- ``b``: another

{KEPT}

Args:
    tasks: task names.
    beta: a number whose
        description does not
        fit on one line.

Cost: none."""


def test_paragraphs_lists_and_arguments_are_wrapped_and_the_rest_is_left():
    assert rewrapped(TEXT, 30) == NARROW


DOCSTRINGS = {
    **{row.name: row.cls for row in steelyard.methods()},
    **{f"stage {name}": stage_class(name) for name in STAGES},
    **{f"architecture {name}": architecture_class(name) for name in architecture_names()},
}


@pytest.mark.parametrize("name", DOCSTRINGS)
@pytest.mark.parametrize("width", [5, 60, 80, 200])
def test_no_word_of_ours_is_lost(name, width):
    docstring = inspect.getdoc(DOCSTRINGS[name])
    assert docstring
    assert rewrapped(docstring, width).split() == docstring.split()


@pytest.mark.parametrize("name", DOCSTRINGS)
def test_ours_fit_a_terminal_with_formulas_whole_and_lists_as_long(name):
    docstring = inspect.getdoc(DOCSTRINGS[name])
    lines = rewrapped(docstring, 80).splitlines()
    long = [line for line in lines if len(line) > 80 and " " in line.strip()]
    assert all(line in docstring.splitlines() for line in long)  # examples and tables
    for paragraph in docstring.split("\n\n"):
        for formula in re.findall(r"``[^`]+``", " ".join(paragraph.split())):
            assert len(formula) > 70 or any(formula in line for line in lines)
    for start in (r"\s*- ", r"    \w[\w, ]*: "):  # bullets, arguments
        assert sum(bool(re.match(start, line)) for line in lines) == sum(
            bool(re.match(start, line)) for line in docstring.splitlines()
        )


def test_an_example_stays_as_it_is() -> None:
    code = ">>> a = 1  # a comment that is longer than the terminal is wide, by far"
    text = f"Words.\n\nExample:\n    {code}\n    >>> a\n    1"
    assert rewrapped(text, 40) == text
