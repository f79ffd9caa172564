"""A class by where it is imported from: found, or an error that names the thing and what to do."""

import sys

import pytest

import steelyard
from steelyard.base.specs import parse_spec
from steelyard.errors import OptionError, UnknownNameError

MINE = """
import steelyard

class Half(steelyard.Balancer):
    '''Half of everything.

    Args:
        tasks: task names.
        part: of everything.
        common: the options of `Balancer`.
    '''

    name = "half"

    def __init__(self, tasks, *, part=0.5, **common):
        super().__init__(tasks, **common)
        self.part = part

    def weigh(self, seen, state):
        return seen.losses * 0 + self.part

class Twice(steelyard.Stage):
    def transform(self, losses, state):
        return 2 * losses, losses * 0 + 2

class Other:
    pass

def function(tasks):
    pass
"""


@pytest.fixture(autouse=True)
def mine(tmp_path, monkeypatch):
    """Modules in the current folder, which is not on the import path; forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each])
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    (tmp_path / "their_methods.py").write_text(MINE)
    (tmp_path / "their_broken.py").write_text("1 / 0")
    (tmp_path / "their_needy.py").write_text("import a_package_that_is_not_there")
    return tmp_path


def test_a_method_is_made_by_its_path_with_options_and_stages():
    balancer = steelyard.make("log+their_methods:Twice+their_methods:Half(part=0.25)", ["a", "b"])
    assert (type(balancer).__name__, balancer.part) == ("Half", 0.25)
    assert [type(stage).__name__ for stage in balancer.loss_stages()] == ["LogLosses", "Twice"]


def test_the_text_of_a_path_is_canonical():
    text = "their_methods:Half(part=0.25)"
    assert str(parse_spec(text)) == text
    assert parse_spec("a.b_c:_D").name == "a.b_c:_D"


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("their_method:Half", OptionError, "there is no module 'their_method', neither installed nor in "),
        ("their_methods.sub:Half", OptionError, "there is no module 'their_methods.sub'"),
        ("their_methods:Halv", UnknownNameError, "Did you mean 'Half'?"),
        ("their_methods:Nothing", UnknownNameError, "Known: Half."),
        ("their_methods:Other", OptionError, "is the class Other, not a subclass of steelyard.Balancer"),
        ("their_methods:Twice", OptionError, "is the class Twice, not a subclass of steelyard.Balancer"),
        ("their_methods:function", OptionError, "is a function, not a subclass of steelyard.Balancer"),
        ("their_methods:Half+equal", OptionError, "is the class Half, not a subclass of steelyard.Stage"),
        ("their_broken:Half", OptionError, "importing their_broken fails: ZeroDivisionError"),
        ("their_needy:Half", OptionError, "needs 'a_package_that_is_not_there': install it"),
        ("their_methods:Half(parts=1)", UnknownNameError, "Did you mean 'part'?"),
        ("their_methods:", OptionError, "write it as name or name(option=value,…)"),
        (":Half", OptionError, "write it as name or name(option=value,…)"),
        ("their_methods:Half:More", OptionError, "write it as name or name(option=value,…)"),
    ],
)
def test_what_is_no_method_is_named_with_the_fix(text, error, said):
    before = list(sys.path)
    with pytest.raises(error) as raised:
        steelyard.make(text, ["a", "b"])
    assert said in str(raised.value)
    if "their_method:" in text:
        assert sys.path == before  # what is not here is not looked for here again


def test_what_is_installed_is_not_hidden_by_the_current_folder(mine):
    (mine / "colorsys.py").write_text(MINE)
    with pytest.raises(UnknownNameError, match=r"unknown method in colorsys .*lib.*colorsys\.py"):
        steelyard.make("colorsys:Half", ["a", "b"])
