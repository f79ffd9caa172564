"""Architectures by the command: a study, its store, and the listing."""

import json
import sqlite3
import subprocess
import sys

import pytest


@pytest.mark.slow("three studies by the command")
def test_a_study_of_mixtures_and_its_single_tasks_serve_other_architectures(run, tmp_path):
    words = ["compare", "digits", "--methods", "equal", "--seeds", "2", "--epochs", "2", "--workers", "2"]
    steelyard = [sys.executable, "-m", "steelyard", *words, "--architecture", "mmoe"]
    done = subprocess.run(steelyard, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    with sqlite3.connect(tmp_path / "steelyard-digits.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM trial WHERE status = 'finished'").fetchone() == (2 * (2 + 1),)
    assert run("report", "steelyard-digits.sqlite", "--json", "all.json")[0] == 0
    assert json.loads((tmp_path / "all.json").read_text())["complete"] is True

    code, out, err = run(*words, "--architecture", "cross-stitch", "--shared", "trunk", "--dry-run")
    assert code == 0, err
    assert "(4 finished, 0 failed)" in " ".join(out.split())


def test_the_listing_names_all_and_describes_one(run):
    code, out, err = run("architectures")
    assert code == 0, err
    for name in ("hard-sharing", "mmoe", "cgc", "ple", "cross-stitch", "mtan", "dselect-k", "amtfl"):
        assert f"\n{name} " in out
    _, out, _ = run("architectures", "mmoe")
    assert "Options: mmoe(experts=4,gate=None)" in out
    assert "KDD 2018" in out


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("mmoo", "Did you mean 'mmoe'"),
        ("mmoe(expert=2)", "Did you mean 'experts'"),
        ("mtan(stages=9)", "choose 1 to 2"),
    ],
)
def test_wrong_architectures_end_with_two_and_the_fix(run, tmp_path, architecture, message):
    code, _, err = run("compare", "digits", "--architecture", architecture)
    assert code == 2
    assert message in " ".join(err.split())
    assert not list(tmp_path.iterdir())
