"""A section of a user's text is renewed, and every byte outside it is left as it is."""

import random
from types import SimpleNamespace

import pytest

from damage import damaged
from steelyard.errors import SteelyardError
from steelyard.reproductions import markdown

START, END = markdown._markers("ema")
SUMMARY = SimpleNamespace(reproduction=SimpleNamespace(name="ema"))
TIMES = 300


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(markdown, "section", lambda summary: "## New\n\nwords\n")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_stands_around_a_section_stays_byte_for_byte(tmp_path, end):
    path = tmp_path / "notes.md"
    before, after = f"# Notes{end}é\ufeff{end}", f"{end}More, without an end of its line"
    path.write_bytes(f"{before}{START}{end}old{end}{END}{after}".encode())
    markdown.write_section(path, SUMMARY)
    text = path.read_bytes().decode()
    assert text == f"{before}{START}{end}## New{end}{end}words{end}{END}{after}"
    markdown.write_section(path, SUMMARY)
    assert path.read_bytes().decode() == text


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_section_that_is_added_keeps_what_is_before_it_and_its_line_ends(tmp_path, end):
    path = tmp_path / "notes.md"
    before = f"    indented: code{end}{end}More{end}"
    path.write_bytes(before.encode())
    markdown.write_section(path, SUMMARY)
    added = f"{end}{START}{end}## New{end}{end}words{end}{END}{end}"
    assert path.read_bytes().decode() == before + added
    blank = tmp_path / "blank.md"
    blank.write_text("  \n")
    markdown.write_section(blank, SUMMARY)
    assert blank.read_text() == f"{START}\n## New\n\nwords\n{END}\n"


@pytest.mark.parametrize(
    "text",
    [
        f"{START}\n{markdown._markers('other')[0]}\nmine\n{markdown._markers('other')[1]}\n{END}\n",
        f"{START}\nmine\n{markdown._markers('other')[1]}\n{END}\n",
        f"{START}\n{markdown._markers('other')[0]}\n{END}\nmine\n{markdown._markers('other')[1]}\n",
        f"{END}\nmine\n{START}\nmine too\n",
        f"{START}\n{END}\nmine\n{START}\n{END}\nmine too\n",
        f"{START}\n{START}\n{END}\nmine",
        f"{START}\nmine",
        f"mine\n{END}",
    ],
)
def test_lines_out_of_order_are_named_and_nothing_is_lost(tmp_path, text):
    path = tmp_path / "notes.md"
    path.write_text(text)
    with pytest.raises(SteelyardError, match=r"notes\.md"):
        markdown.write_section(path, SUMMARY)
    assert path.read_text() == text


def test_of_a_damaged_text_nothing_outside_the_section_is_lost(tmp_path):
    draw, path, renewed = random.Random(0), tmp_path / "notes.md", 0
    whole = f"# Notes\n\nbefore\n\n{START}\nold words\n{END}\n\nafter\n".encode()
    for _ in range(TIMES):
        content = damaged(whole, draw)
        path.write_bytes(content)
        try:
            markdown.write_section(path, SUMMARY)
        except SteelyardError as error:
            assert "notes.md" in str(error)  # noqa: PT017
            assert path.read_bytes() == content
            continue
        head, start, rest = content.partition(START.encode())
        kept = (head, rest.partition(END.encode())[2]) if start else (content.rstrip(), b"")
        text = path.read_bytes()
        assert text.startswith(kept[0])
        assert text.endswith(kept[1])
        assert b"## New" in text
        renewed += 1
    assert 0 < renewed < TIMES
