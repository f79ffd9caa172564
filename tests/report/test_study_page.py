"""The page: complete, self-contained, well formed, safe with any text."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from report import judgements
from report.reading import parse
from steelyard.report.numbers import fixed
from steelyard.report.short_names import short_methods, split_method, split_methods
from steelyard.report.study_page import page, study_section, write_page
from steelyard.study.planning.readable_arms import readable_methods

VOID = {"meta", "link", "br", "hr", "img", "input", "wbr"}


class Outline(HTMLParser):
    """Checks nesting and collects what a test asks about."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> repeats an attribute: {names}"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes something else at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.text.append(data)


def read(text: str) -> Outline:
    outline = Outline()
    outline.feed(text)
    outline.close()
    assert outline.open == []
    return outline


@pytest.mark.parametrize("name", judgements.ALL)
def test_well_formed_and_complete(name: str) -> None:
    judgement = judgements.ALL[name]()
    outline = read(page(judgement))
    shown = " ".join(" ".join(outline.text).split())
    for text in (judgement.command, judgement.machine):
        assert " ".join(text.split()) in shown
    letters = re.sub(r"[\s:]", "", shown).lower()
    for sentence in judgement.verdict:  # its setting may have become a heading, its colon typography
        said = re.sub(r"^With .* of the labels: ", "", sentence)
        assert re.sub(r"[\s:]", "", said).lower() in letters
    if judgement.cells:
        titles = {attributes.get("title") for tag, attributes in outline.tags if tag == "th"}
        assert set(judgement.methods) <= titles
        assert {task.label for task in judgement.tasks} <= titles
    for verdict in {cell.verdict for cell in judgement.cells} - {None}:
        assert verdict in shown
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


# Charts and sections have names of their own, by which tests and those who save a chart find them.
NAMES = {"plot", "forest", "intervals", "fractions", "end", "about", "table", "others"}


@pytest.mark.parametrize("name", judgements.ALL)
def test_every_class_is_one_that_the_style_knows(name: str) -> None:
    root = parse(page(judgements.ALL[name]()))
    known = set(re.findall(r"\.([a-z][\w-]*)", "".join(style.own for style in root.all("style"))))
    used = {(element.tag, name) for element in root.walk() for name in element.classes}
    assert {(tag, name) for tag, name in used if name not in known | NAMES} == set()


@pytest.mark.parametrize("name", ["digits", "twelve", "hostile"])
def test_nothing_is_fetched(name: str) -> None:
    text = page(judgements.ALL[name]())
    outline = read(text)
    for tag, attributes in outline.tags:
        assert "src" not in attributes, tag
        assert not any(key.startswith("on") for key in attributes), tag
        assert (attributes.get("href") or "#").startswith("#")
    assert not re.search(r"https?:|//\w+\.\w+/|@import|url\(", text)


def test_user_text_is_escaped_everywhere() -> None:
    outline = read(page(judgements.hostile()))
    scripts = [attributes for tag, attributes in outline.tags if tag == "script"]
    assert len(scripts) == 2  # the page's own
    assert not any(tag == "img" for tag, _ in outline.tags)
    assert '<script>alert("x")</script>' in " ".join(outline.text)


def test_every_number_of_the_judgement_is_written() -> None:
    judgement = judgements.digits()
    shown = " ".join(read(page(judgement)).text)
    for cell in judgement.cells:
        assert f"{100 * cell.mean:.2f}" in shown
        if cell.difference:
            assert fixed(100 * cell.difference.mean, 2, signed=True) in shown


def test_ordinary_pages_stay_light() -> None:
    assert all(len(page(judgements.ALL[name]()).encode()) < 1_000_000 for name in judgements.ALL)


@pytest.mark.slow("a page of a hundred panels is made and read back")
def test_many_tasks_methods_and_settings() -> None:
    text = page(judgements.large())
    read(text)
    assert len(text.encode()) < 8_000_000


def test_the_page_is_replaced_only_when_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "study.html"
    write_page(judgements.digits(), target)
    before = target.read_text(encoding="utf-8")
    assert before == page(judgements.digits())

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_page(judgements.seven(), target)
    assert target.read_text(encoding="utf-8") == before
    assert [path.name for path in tmp_path.iterdir()] == ["study.html"]


def test_short_names_tell_methods_apart() -> None:
    short = short_methods(["single-task", "ema(beta=0.9,variant=to-max)", "log+db-mtl(beta=0.9)"])
    assert list(short.values()) == ["single-task", "ema", "log+db-mtl"]
    short = short_methods(["ema(beta=0.9,variant=to-max)", "ema(beta=0.99,variant=to-max)", "ema", "log+ema"])
    assert list(short.values()) == ["ema(beta=0.9)", "ema(beta=0.99)", "ema", "log+ema"]
    long = [f"some-quite-long-method-name(option={index})" for index in range(30)]
    short = short_methods(long)
    assert len(set(short.values())) == 30
    assert max(map(len, short.values())) <= 18


def test_names_and_options_apart() -> None:
    assert split_method("ema(beta=0.9,variant=to-max)") == ("ema", "beta=0.9, variant=to-max")
    assert split_method("uw") == ("uw", "")
    assert split_method("ema-scale(beta=0.99)+mgda(normalize=none)") == (
        "ema-scale+mgda",
        "ema-scale: beta=0.99; mgda: normalize=none",
    )


def test_the_verdict_is_grouped_by_setting() -> None:
    outline = read(page(judgements.digits()))
    classes = [attributes.get("class") for _, attributes in outline.tags]
    assert classes.count("headline") == 2
    shown = " ".join(outline.text)
    assert shown.count("With 10 % of the labels") == 1
    assert "The plain sum hurts right" in shown
    assert "ema(beta=0.9,variant=to-max) repairs it" in shown
    assert [attributes.get("class") for _, attributes in read(page(judgements.seven())).tags].count("headline") == 1


def test_the_setting_with_the_most_labels_is_shown_first() -> None:
    found = judgements.digits()
    pressed = re.compile(r'data-value="(\d)" aria-pressed="true">([^<]*)<')
    for settings in (found.settings, found.settings[::-1]):
        assert pressed.findall(page(replace(found, settings=settings))) == [("1", "100 %")]


def test_a_study_on_a_page_with_others_has_ids_of_its_own() -> None:
    judgement = judgements.digits()
    alone, section = page(judgement), str(study_section(judgement, "first-"))
    ids = re.findall(r' id="([^"]*)"', section)
    assert ids
    assert all(found.startswith("first-") for found in ids)
    assert re.sub(r' id="first-', ' id="', section).strip() in alone, "nothing else is different"


def test_arms_of_many_tasks_are_told_by_the_tasks_that_each_network_serves() -> None:
    few, many = "uw{a b|c}", "equal{a1 a2 a3 a4 +b1 +b2|b1 b2 +a1|c1}"
    alike = "equal{a1 a2 a3 b1 +b2 +a4|a4 b2|c1}"
    methods = ["equal", few, many, alike, "ema(beta=0.9){a1 a2 a3 a4 a5 a6 a7|b1 b2}@mmoe"]
    expected = ["equal", few, "equal{4|2|1} #3", "equal{4|2|1} #4", "ema(beta=0.9){7|2}@mmoe"]
    assert list(readable_methods(methods).values()) == expected
    parts = [("equal", ""), (few, ""), ("equal{4|2|1} #3", ""), ("equal{4|2|1} #4", ""), ("ema{7|2}@mmoe", "beta=0.9")]
    assert list(split_methods(methods).values()) == parts
    assert list(short_methods(methods, 16).values()) == [name for name, _ in parts]
    assert short_methods(["equal{a1 a2|b1 b2 b3}"], 16) == {"equal{a1 a2|b1 b2 b3}": "equal{2|3}"}
