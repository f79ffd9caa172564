"""All of a store as text and back; what is damaged, cut or foreign is named."""

import json
import lzma
import os
import random

import pytest

from damage import damaged
from steelyard.errors import DamagedStoreError, StoreError
from steelyard.io.writing import replacing
from steelyard.study.storage.checksum import checksum
from steelyard.study.storage.sqlite_file import COLUMNS
from steelyard.study.storage.store import Store
from steelyard.study.storage.trials_file import HEAD, MARK, StoreRow, read_rows, write_rows
from steelyard.study.trial import Failed
from study import made_up
from study.storage.test_damage import FAILED, values

FLIPS = 300


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Of a store with two plans, finished trials and a failed one."""
    path, plan = tmp_path_factory.mktemp("whole") / "s.sqlite", made_up.plan()
    with Store(path, write=True) as store:
        store.add_plan(made_up.plan(seeds=2).to_dict())
        store.add_plan(plan.to_dict())
        made_up.fill(store, plan, values())
        store.add_failure(FAILED, Failed("ValueError: \u2028 no\nline", "Traceback"))
    with Store(path) as store:
        return list(store.rows())


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.xz"])
def test_every_row_comes_back_as_it_was(tmp_path, rows, name):
    assert len(rows) == 2 + len(made_up.plan().trials) + 1
    write_rows(tmp_path / name, rows)
    assert list(read_rows(tmp_path / name)) == rows
    write_rows(tmp_path / name, [])
    assert list(read_rows(tmp_path / name)) == []


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.xz"])
def test_damage_anywhere_is_named_or_changes_nothing(tmp_path, rows, name):
    file, draw = tmp_path / name, random.Random(1)
    write_rows(file, rows)
    content, said = file.read_bytes(), 0
    for _ in range(FLIPS):
        with replacing(file) as opened:
            opened.write(damaged(content, draw))
        try:
            found = list(read_rows(file))
        except StoreError as error:
            said += str(file) in str(error)
        else:
            assert found == rows
    assert said > 0.7 * FLIPS  # a block that is written over itself is no damage


def test_a_file_that_ends_between_two_lines_or_goes_on_is_known(tmp_path, rows):
    file = tmp_path / "t.jsonl"
    write_rows(file, rows)
    lines = file.read_bytes().splitlines(keepends=True)
    for kept in range(1, len(lines)):
        file.write_bytes(b"".join(lines[:kept]))
        with pytest.raises(DamagedStoreError, match="ends too early"):
            list(read_rows(file))
    for changed in (lines[:3] + lines[4:], lines[:4] + lines[3:], [*lines, lines[-1]], [*lines, b"\n"]):
        file.write_bytes(b"".join(changed))
        with pytest.raises(DamagedStoreError, match="damaged"):
            list(read_rows(file))


def forged(**changed):
    """A line whose checksum is right of what no store holds."""
    row = {"key": "k", "status": "finished", "config": "{}", "result": "{}", "curves": "{}", "error": None}
    row |= {"traceback": None, "written": 1.0, **changed}
    return {"table": "trial", **row, "checksum": checksum(row[name] for name in COLUMNS["trial"])}


@pytest.mark.parametrize(
    "line",
    [
        forged(written="soon"),
        forged(written=True),
        forged(result={"test": {}}),
        {**forged(), "more": 1},
        {**forged(), "table": "plans"},
        {**forged(), "table": ["trial"]},
        {"table": "plan", "id": True, "content": "{}", "checksum": checksum([True, "{}"])},
        [],
        "trial",
        None,
    ],
)
def test_a_line_that_no_store_wrote_is_refused(tmp_path, line):
    file = tmp_path / "t.jsonl"
    file.write_text("\n".join(map(json.dumps, ({"format": HEAD}, forged(), line, {"rows": 2}))) + "\n")
    with pytest.raises(DamagedStoreError, match="line 3 is not as it was written"):
        list(read_rows(file))


def test_what_is_none_is_named(tmp_path):
    for name, content, message in (
        ("missing.jsonl", None, "cannot read"),
        ("empty.jsonl", b"", "is no file of trials"),
        ("text.jsonl", b"hello\n", "is no file of trials"),
        ("text.jsonl.xz", b"hello\n", "is damaged"),
        ("packed.jsonl.xz", lzma.compress(b"hello\n"), "is no file of trials"),
        ("later.jsonl", b'{"format": "steelyard-trials/2"}\n', "of another version"),
        ("bytes.jsonl", b"\xff\xfe\n", "is damaged"),
    ):
        file = tmp_path / name
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(StoreError, match=message):
            list(read_rows(file))


@pytest.mark.parametrize("head", ['{"format": "steelyard-trials/' + "1" * 5000 + '"}', MARK.decode() + "[" * 100_000])
def test_a_head_that_no_parser_takes_is_damage(tmp_path, head):
    (tmp_path / "t.jsonl").write_text(head + "\n", encoding="utf-8")
    with pytest.raises(StoreError, match=r"t\.jsonl is (damaged|of another version)"):
        list(read_rows(tmp_path / "t.jsonl"))


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "p.jsonl")
    (tmp_path / "f.jsonl").mkdir()
    for name, kind in (("p.jsonl", "a pipe"), ("f.jsonl", "a folder")):
        with pytest.raises(StoreError, match=f"{name}: it is {kind}"):
            list(read_rows(tmp_path / name))


def test_a_row_is_named_by_its_columns():
    assert StoreRow("plan", (1, "{}")).named == {"id": 1, "content": "{}"}
