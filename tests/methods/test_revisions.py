"""Results are known by a method's name, its `revision` and Steelyard's version: another default is another revision."""

from pathlib import Path

from steelyard.base.stage import Stage
from steelyard.method_registry import method_class, options_of, stage_class
from steelyard.methods import METHODS
from steelyard.methods.loss_stages import STAGES

DEFAULTS = Path(__file__).with_name("defaults.txt")


def line(name, cls):
    """``fairgrad: revision 1, heads='plain', alpha=1.0, …``."""
    heads = {} if issubclass(cls, Stage) else {"heads": cls.default_heads}
    options = {option: found.default for option, found in options_of(cls).items() if found.default is not found.empty}
    said = [f"{option}={value!r}" for option, value in {**heads, **options}.items()]
    return f"{name}: {', '.join([f'revision {cls.revision}', *said])}"


def test_every_default_is_the_one_that_stored_results_were_trained_with():
    now = [line(name, method_class(name)) for name in METHODS] + [
        line(f"{name}+", stage_class(name)) for name in STAGES
    ]
    before = DEFAULTS.read_text(encoding="utf-8").splitlines()
    other = sorted({*now} ^ {*before})
    assert not other, (
        "raise the `revision` of the class where an option that was there has another default, for its stored results "
        f"are those of the old one; then write the line anew in {DEFAULTS.name}:\n" + "\n".join(other)
    )


def test_a_revision_is_told_from_the_one_before():
    assert "fairgrad: revision 1, heads='plain'" in DEFAULTS.read_text(encoding="utf-8")
