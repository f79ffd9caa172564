"""Short names for methods and tasks, where a full specification does not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from steelyard.specs import Spec, parse_spec


def short_methods(methods: Sequence[str], width: int = 18) -> dict[str, str]:
    """The shortest name that still tells the methods of one study apart.

    `ema(beta=0.9,variant=to-max)` becomes `ema` if it is the only ema, and `ema(beta=0.9)` if another one
    differs in beta only. Names that stay too long are cut in the middle; if that makes two equal, they are
    numbered.
    """
    specs = {method: parse_spec(method) for method in methods}
    names = {
        method: "+".join([*(part.name for part in spec.stages), spec.name]) for method, spec in specs.items()
    }
    crowd = Counter(names.values())
    for method, spec in specs.items():
        if crowd[names[method]] == 1:
            continue
        rivals = [other for other in specs.values() if _family(other) == _family(spec)]
        options = [
            f"{key}={part.options[key]}"
            for index, part in enumerate((*spec.stages, spec.method))
            for key in sorted(part.options)
            if any(
                (*rival.stages, rival.method)[index].options.get(key) != part.options[key] for rival in rivals
            )
        ]
        if options:
            names[method] += f"({','.join(options)})"
    cut = {method: elide(name, width) for method, name in names.items()}
    crowd = Counter(cut.values())
    for number, method in enumerate(methods, 1):
        if crowd[cut[method]] > 1:
            cut[method] = f"{elide(names[method], width - 4)} #{number}"
    return cut


def elide(text: str, width: int) -> str:
    """Cut the middle out of a text that is too long; its ends tell more than its middle."""
    text = " ".join(text.split())
    if len(text) <= width:
        return text
    tail = (width - 1) // 3
    return f"{text[: width - 1 - tail].rstrip()}…{text[len(text) - tail :].lstrip()}"


def _family(spec: Spec) -> tuple[str, ...]:
    return tuple(part.name for part in (*spec.stages, spec.method))
