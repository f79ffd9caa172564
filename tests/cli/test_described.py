"""What describes a method, a stage or an architecture loses no word in any terminal."""

import inspect

import pytest

import steelyard
from cells import every
from steelyard.cli.described import print_docstring
from steelyard.method_registry import stage_class
from steelyard.methods.loss_stages import STAGES
from steelyard.models.build_network import architecture_class, architecture_names

DESCRIBED = {
    **{row.name: row.cls for row in steelyard.methods()},
    **{f"stage {name}": stage_class(name) for name in STAGES},
    **{f"architecture {name}": architecture_class(name) for name in architecture_names()},
}


@every("name", DESCRIBED)
@pytest.mark.parametrize("width", [60, 200])
def test_no_word_is_lost_and_what_fits_stays_as_it_is(name, width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    print_docstring(name, "made", DESCRIBED[name])
    said = [line.rstrip() for line in capsys.readouterr().out.splitlines()][2:]
    docstring = inspect.getdoc(DESCRIBED[name]).splitlines()
    assert "".join("".join(said).split()) == "".join("".join(docstring).split())  # a word that is too wide breaks
    assert max(map(len, said)) <= width
    assert said == docstring or width == 60


def test_a_line_that_is_too_long_goes_on_below_its_own_indent(monkeypatch, capsys):
    class Made:
        """Words.

        Args:
            tasks: names which are many and long.
        """

    monkeypatch.setenv("COLUMNS", "24")
    print_docstring("made", "made up", Made)
    said = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert said == ["made (made up)", "", "Words.", "", "Args:", "    tasks: names which", "    are many and long."]
