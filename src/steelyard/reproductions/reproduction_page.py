"""A reproduction as one self-contained HTML page: the claim's verdict, the paper's figures, and every study."""

from __future__ import annotations

import re

from steelyard.report.device_text import device_text
from steelyard.report.study_page import date, study_section, templates
from steelyard.reproductions.summary import Summary, facts


def page(summary: Summary) -> str:
    """The page as text."""
    outcomes = summary.outcomes
    last = outcomes[-1].judgement if outcomes else None
    headings = [outcome.experiment.name for outcome in outcomes]
    names = [(heading, re.sub(r"[^a-z0-9]+", "-", heading.lower())) for heading in headings]
    studies = [
        {
            "id": f"study-{name}",
            "name": heading,
            "about": outcome.experiment.about,
            "facts": [*facts(outcome), *([outcome.judgement.tuning] if outcome.judgement.tuning else [])],
            "verdict": outcome.judgement.verdict,
            "section": study_section(outcome.judgement, f"{name}-"),
        }
        for (heading, name), outcome in zip(names, outcomes, strict=True)
    ]
    template = templates().get_template("reproduction.html.jinja")
    return template.render(
        found=summary.reproduction,
        answer=summary.answer,
        decided=summary.decided,
        scope=summary.reproduction.scope.get(summary.size, ""),
        gap=summary.gap,
        progress=summary.progress,
        findings=summary.findings,
        cautions=summary.cautions,
        figures=summary.figures,
        studies=studies,
        failures=[(each.experiment.name, failure) for each in outcomes for failure in each.judgement.failures],
        command=summary.command,
        training=summary.time_text,
        machine=last.machine if last else "",
        device=device_text(last) if last else "",
        versions=", ".join(f"{name} {version}" for name, version in last.versions.items()) if last else "",
        created=date(last.created) if last else "",
    )
