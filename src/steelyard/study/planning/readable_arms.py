"""Arms of several networks with names that can be read: with many tasks, what they are called fills a screen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

from steelyard.study.planning.arm_networks import write_networks
from steelyard.study.planning.arms import Arm, parse_arm

LONGEST = 24  # of what names the tasks of an arm's networks, in characters


def readable_methods(methods: Sequence[str]) -> dict[str, str]:
    """Methods as they are written; where naming the tasks of an arm's networks takes too long, with how many each
    network serves: ``equal{8|7|1}``. Those that look alike then are numbered."""
    names = {method: with_counts(method, parse_arm(method)) for method in methods}
    numbers = numbers_of_twins(names)
    return {method: name + numbers[method] for method, name in names.items()}


def named_once(sentences: Sequence[str], methods: Sequence[str], named: bool = False) -> list[str]:
    """The sentences, in which the networks of an arm are named where it comes first, and counted from then on.

    Args:
        named: they have been named before, and are counted from the start.
    """
    told = list(sentences)
    for method, name in sorted(readable_methods(methods).items(), key=lambda pair: -len(pair[0])):
        seen = named
        for place, sentence in enumerate(told):
            before, found, after = ("", "", sentence) if seen else sentence.partition(method)
            told[place] = before + found + after.replace(method, name)
            seen = seen or bool(found)
    return told


def with_counts(text: str, arm: Arm, longest: int = LONGEST) -> str:
    """What names an arm, with the number of tasks that each network serves where naming all takes too long."""
    networks = write_networks(arm.networks)
    if len(networks) <= longest:
        return text
    return text.replace(networks, "{" + "|".join(str(len(network.serves)) for network in arm.networks) + "}")


def numbers_of_twins(names: Mapping[str, Hashable]) -> dict[str, str]:
    """Each method's place among all, `` #3``, where another has its name; else nothing."""
    crowd = Counter(names.values())
    return {method: f" #{place}" if crowd[names[method]] > 1 else "" for place, method in enumerate(names, 1)}
