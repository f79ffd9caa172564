"""Docstrings in a terminal: every word stays, lines fit, examples and tables are left alone."""

import inspect

import pytest

import steelyard
from steelyard.models.building import architecture_class, architecture_names
from steelyard.prose import rewrapped

TEXT = """\
A summary that is a little longer than the line.

Words follow, and
more words; then

- ``a``: one thing which is said at some length
- ``b``: another

Example::

    loss = balancer(losses, shared=features)  # stays as it is

    loss.backward()

========  =====
option    what
========  =====
a         first
========  =====

Args:
    tasks: task names.
    beta: a number whose description does not fit
        on one line.

Cost: none."""

NARROW = """\
A summary that is a little
longer than the line.

Words follow, and more words;
then

- ``a``: one thing which is
  said at some length
- ``b``: another

Example::

    loss = balancer(losses, shared=features)  # stays as it is

    loss.backward()

========  =====
option    what
========  =====
a         first
========  =====

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
    **{f"architecture {name}": architecture_class(name) for name in architecture_names()},
}


@pytest.mark.parametrize("name", DOCSTRINGS)
@pytest.mark.parametrize("width", [5, 60, 80, 200])
def test_no_word_of_ours_is_lost(name, width):
    docstring = inspect.getdoc(DOCSTRINGS[name])
    assert docstring
    assert rewrapped(docstring, width).split() == docstring.split()
