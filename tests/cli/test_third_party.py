"""A method of a module that nobody installed: planned, trained by workers, kept by its name, known by its code."""

import sqlite3
import sys
from pathlib import Path

import pytest

METHOD = """
import steelyard

class Half(steelyard.Balancer):
    name = "half"

    def weigh(self, seen, state):
        return seen.losses * 0 + {part}
"""


@pytest.mark.takes("workers import the module and train")
def test_workers_train_it_and_the_store_knows_it_by_its_path_and_code(run, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("their_half.py").write_text(METHOD.format(part=0.5))
    words = ["--methods", "their_half:Half", "--seeds", "1", "--epochs", "1", "--workers", "1"]
    code, out, err = run("compare", "digits", *words, "--tasks", "left,right")
    assert code == 0, err
    assert "their_half:Half" in out
    assert "their_half:Half" in Path("steelyard-digits.html").read_text()

    def trained():
        with sqlite3.connect("file:steelyard-digits.sqlite?mode=ro", uri=True) as store:
            return [config for (config,) in store.execute("SELECT config FROM trial") if "their_half:Half" in config]

    assert len(trained()) == 1
    assert run("compare", "digits", *words)[0] == 0
    assert len(trained()) == 1
    Path("their_half.py").write_text(METHOD.format(part=0.25))  # another method: its old result is not taken for it
    monkeypatch.delitem(sys.modules, "their_half")
    code, out, err = run("compare", "digits", *words)
    assert code == 0, err
    assert len(trained()) == 2


def test_a_mistake_is_told_before_anything_is_trained(run):
    code, _, err = run("compare", "digits", "--methods", "their_hal:Half")
    assert code == 2
    assert "there is no module 'their_hal'" in err
    assert not list(Path().iterdir())
