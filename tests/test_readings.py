"""No number of a reading goes beyond what its reproduction printed: each has its words there (docs/readings.toml)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reproductions.md").read_text(encoding="utf-8")
SOURCES = tomllib.loads((ROOT / "docs" / "readings.toml").read_text(encoding="utf-8"))
PAGES = SOURCES.pop("pages")
SECTIONS = dict(re.findall(r"<!-- reproduce (\S+): written by the command -->(.*?)<!-- end of \1 -->", PAGE, re.DOTALL))
NUMBER = re.compile(r"(?<![\w.,/-])\d+(?:,\d{3})*(?:\.\d+)?(?![\w/]|[.,:]\d)")
RESULT = re.compile(
    rf"(?:{NUMBER.pattern})(?=(?: to [\d.−+]+)? ?(?:%|×|points?\b|times\b))|(?<=\d to )(?:{NUMBER.pattern})"
)
PRINTED = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
WHAT_TO_DO = "put right what the page says, or say in docs/readings.toml where the number comes from"
COUNTS = ("0", "1", "100")  # of a calculation


def reading(name: str) -> str:
    """What we say of a reproduction, with its row in the table at the top of the page."""
    said = re.search(rf"\*\*Reading of `{name}`\.\*\*(.*?)(?=<!-- reproduce|\Z)", PAGE, re.DOTALL)
    row = re.search(rf"^\| \[`{name}`\]\(.*?\) \|(.*)$", PAGE, re.MULTILINE)
    assert said, f"{name} has no reading"
    assert row, f"{name} has no row in the table"
    return said[1] + row[1]


def numbers(text: str, pattern: re.Pattern[str] = NUMBER) -> list[str]:
    """As they are written, without their sign; nothing of code and comments."""
    return pattern.findall(re.sub(r"`[^`\n]*`|<!--.*?-->", " ", text, flags=re.DOTALL))


def value(number: str) -> float:
    return float(number.replace(",", ""))


def decimals(number: str) -> int:
    return len(number.partition(".")[2])


def rounds_to(shown: str, exact: float) -> bool:
    return abs(exact - value(shown)) <= 0.5 * 10.0 ** -decimals(shown) * (1 + 1e-9)


def says(quote: str, number: str) -> bool:
    """A quote has the number, or a longer one that rounds to it."""
    return any(decimals(each) >= decimals(number) and rounds_to(number, value(each)) for each in PRINTED.findall(quote))


def faults(prose: str, section: str, source: dict[str, object], pattern: re.Pattern[str] = NUMBER) -> list[str]:
    """What is wrong with the sources of a reading; empty where nothing."""
    quotes, derived, given = source.get("quotes", []), source.get("derived", {}), source.get("given", {})
    used, found = set(), [f"no longer printed: {quote!r}" for quote in quotes if quote not in section]
    for number, worked_out in derived.items():
        assert re.fullmatch(r"[\d.,+\-*/() ]+", worked_out), worked_out
        if not rounds_to(number, eval(worked_out)):  # nothing but digits and signs, as was asserted
            found.append(f"{number} is not {worked_out}")
        for part in PRINTED.findall(worked_out):
            here = {quote for quote in quotes if says(quote, part)}
            used |= here | ({part} & set(given))
            if not here and part not in (*given, *COUNTS):
                found.append(f"{part} in {worked_out!r} has no source")
    for number in numbers(prose, pattern):
        here = {quote for quote in quotes if says(quote, number)} | ({number} & {*derived, *given})
        used |= here
        if not here:
            found.append(f"{number} has no source")
    return found + [f"not needed: {each!r}" for each in [*quotes, *derived, *given] if each not in used]


def test_every_reproduction_has_its_sources() -> None:
    assert set(SOURCES) == set(SECTIONS)


@pytest.mark.parametrize("name", SOURCES)
def test_every_number_of_a_reading_is_one_that_was_printed(name: str) -> None:
    assert faults(reading(name), SECTIONS[name], SOURCES[name]) == [], WHAT_TO_DO


@pytest.mark.parametrize("name", PAGES)
def test_every_result_in_the_prose_of_a_page_stands_in_its_tables(name: str) -> None:
    text = re.sub(r"```.*?```", "", (ROOT / name).read_text(encoding="utf-8"), flags=re.DOTALL)
    tables = "\n".join(re.findall(r"^\|.*$", text, re.MULTILINE))
    assert faults(re.sub(r"^\|.*$", "", text, flags=re.MULTILINE), tables, PAGES[name], RESULT) == [], WHAT_TO_DO


def test_pages_with_results_in_their_prose_are_all_held_to_their_tables() -> None:
    """Of README and of what is said of studies; numbers of machines have a page of commands (docs/numbers.md)."""
    for path in [ROOT / "README.md", *sorted((ROOT / "docs" / "know").glob("*.md"))]:
        text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        found = numbers(re.sub(r"^\|.*$", "", text, flags=re.MULTILINE), RESULT)
        results = set(found) - {"1", "5", "95", "100"}  # regions, levels, all
        assert not results or path.relative_to(ROOT).as_posix() in PAGES, (path, results, WHAT_TO_DO)


def test_what_is_wrong_is_told() -> None:
    section, source = "Δm +4.23 % (+1.1 to +7.4)", {"quotes": ["Δm +4.23 %"], "derived": {"423": "100 * 4.23"}}
    assert faults("gains 4.2 %, hundredfold 423", section, source) == []
    assert faults("gains 4.3 %, hundredfold 423", section, source) == ["4.3 has no source"]
    assert faults("gains 4.2 %, hundredfold 423, up to 7.4", section, source) == ["7.4 has no source"]
    assert faults("4.2; 423", "Δm +3.17 %", source) == ["no longer printed: 'Δm +4.23 %'"]
    assert faults("4.2", section, source) == ["not needed: '423'"]
    assert faults("4.2; 422", section, {**source, "derived": {"422": "100 * 4.23"}}) == ["422 is not 100 * 4.23"]


@pytest.mark.parametrize("name", SOURCES)
def test_most_wrong_numbers_have_no_source(name: str) -> None:
    """Or the sources would be so many that they hold any number."""
    source = SOURCES[name]
    known = [*source["quotes"], *source.get("given", {}), *source.get("derived", {})]
    right = [number for number in numbers(reading(name)) if value(number) > 2]
    wrong = [f"{value(number) * factor:.{decimals(number)}f}" for number in right for factor in (0.7, 0.8, 1.2, 1.3)]
    caught = sum(not any(says(str(each), number) for each in known) for number in wrong)
    assert caught > 0.5 * len(wrong)
