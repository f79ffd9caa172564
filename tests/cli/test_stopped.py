"""Ctrl-C, in every command: exit code 130, and a word of what is kept."""

import functools

import pytest
import typer

import steelyard.study
from steelyard.cli.app import COMMANDS, app

NAMED = {
    "compare": ["digits"],
    "group": ["digits", "--budget", "1"],
    "diagnose": ["digits"],
    "report": ["one.sqlite"],
    "merge": ["all.sqlite", "one.sqlite"],
    "export": ["one.sqlite", "--method", "equal", "--out", "a.pt2"],
    "new": ["mine.py"],
}
"""What a command cannot do without."""


def raises(error, command):
    """In the place of a command, with its options."""

    @functools.wraps(command)
    def stopped(*args, **options):
        raise error

    return stopped


@pytest.mark.parametrize("stop", [KeyboardInterrupt, typer.Abort])
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_every_command_says_that_it_was_stopped(run, monkeypatch, command, stop):
    (registered,) = [each for each in app.registered_commands if each.callback is command]
    monkeypatch.setattr(registered, "callback", raises(stop, command))
    code, out, err = run(command.__name__, *NAMED.get(command.__name__, []))
    assert (code, out, err) == (130, "", "\nStopped.\n")


def test_merge_goes_on_with_the_same_command(run, monkeypatch):
    monkeypatch.setattr(steelyard.study, "merge", raises(KeyboardInterrupt, steelyard.study.merge))
    code, _, err = run("merge", "all.sqlite", "one two.sqlite")
    assert code == 130
    assert err.count("Stopped") == 1
    assert "the same command takes the rest:\n  steelyard merge all.sqlite 'one two.sqlite'\n" in err
