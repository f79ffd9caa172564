"""What a docstring says of its faithfulness: how certain its formulas are, and where it leaves the authors' code."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass

MARK = r"(?:Certainty|Deviations?(?: from the formulas)?): "
HEAD = """Known deviations
================

Where a method or an architecture is not its authors' to the letter, its docstring says so; here is what they say, all
of it. *That code* is the one that the authors published: where it can be followed, a test holds the method to it step
by step, on random trajectories, up to what is written here. *Certainty* stands where neither the paper nor that code
was the source. What all methods share (weights that are guarded, tasks that may be absent) stands in
:doc:`/balance/options`.
"""
STATEMENT = re.compile(rf"(?P<mark>{MARK})(?P<text>.*?)(?=\s*(?:{MARK})|$)")


CODE = re.compile(r"\bauthors?'s? (?:published |own )?code\b")


@dataclass(frozen=True)
class Fidelity:
    """The sentences after ``Certainty:`` and after ``Deviation:`` or ``Deviations:``, up to the paragraph's end.

    ``code``: whether the docstring speaks of code that the authors published.
    """

    certainty: str
    deviations: str
    code: bool


def fidelity(cls: type) -> Fidelity:
    """Read it from a class's docstring."""
    said: dict[str, list[str]] = {"Certainty": [], "Deviation": []}
    docstring = inspect.getdoc(cls) or ""
    for paragraph in docstring.split("\n\n"):
        for found in STATEMENT.finditer(" ".join(paragraph.split())):
            text = found["text"][:1].upper() + found["text"][1:]
            said["Certainty" if found["mark"].startswith("Certainty") else "Deviation"].append(text)
    code = bool(CODE.search(" ".join(docstring.split())))
    return Fidelity(" ".join(said["Certainty"]), " ".join(said["Deviation"]), code)


def page(methods: dict[str, type], architectures: dict[str, type]) -> str:
    """All of them, as reStructuredText: what the docstrings have."""
    parts = [HEAD]
    for title, classes in (("Methods", methods), ("Architectures", architectures)):
        told = {name: fidelity(cls) for name, cls in classes.items()}
        parts.append(f"{title}\n{'-' * len(title)}\n")
        for name, each in told.items():
            sentences = ([f"*Certainty*: {each.certainty}"] if each.certainty else []) + [each.deviations]
            if text := " ".join(filter(None, sentences)):
                parts.append(f"{_link(name, title)}\n   {text}\n")
        sourced = {name for name, cls in classes.items() if "Source" in (inspect.getdoc(cls) or "")}
        silent = [name for name, each in told.items() if not each.certainty + each.deviations and name in sourced]
        parts.append(f"No deviation is known of {_links(silent, title)}.\n" if silent else "")
        if title == "Methods":
            unread = [name for name, each in told.items() if not each.code and name in sourced]
            parts.append(f"No code of the authors was found for {_links(unread, title)}.\n")
    return "\n".join(parts)


def _links(names: list[str], title: str) -> str:
    return ", ".join(_link(name, title) for name in names)


def _link(name: str, title: str) -> str:
    return f":doc:`{name}`" if title == "Methods" else f"``{name}``"
