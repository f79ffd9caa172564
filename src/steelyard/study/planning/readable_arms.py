"""Arms of several networks with names that can be read: with many tasks, what they are called fills a screen."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

from steelyard.study.planning.arm_networks import write_networks
from steelyard.study.planning.arms import Arm, parse_arm

LONGEST = 24  # of what names the tasks of an arm's networks, in characters


def readable_methods(methods: Sequence[str]) -> dict[str, str]:
    """Methods as they are written; where naming the tasks of an arm's networks takes too long, with how many each
    network serves: ``equal{8|7|1}``. Those that look alike then are numbered."""
    names = {method: with_counts(method, parse_arm(method)) for method in methods}
    numbers = numbers_of_twins(names)
    return {method: name + numbers[method] for method, name in names.items()}


def named_once(sentences: Sequence[str], methods: Sequence[str]) -> list[str]:
    """The sentences, in which the networks of an arm are spelt out where it comes first, and counted from then on."""
    spelt, readable = first_names(methods), readable_methods(methods)
    long = list(spelt)
    return [_replaced(sentence, long, lambda name: spelt.pop(name, readable[name])) for sentence in sentences]


def first_names(methods: Sequence[str]) -> dict[str, str]:
    """Arms that tables count: spelt out, with the number that they have there."""
    readable = readable_methods(methods)
    numbers = numbers_of_twins({method: with_counts(method, parse_arm(method)) for method in methods})
    return {method: method + numbers[method] for method in methods if readable[method] != method}


def renamed(sentences: Sequence[str], names: Mapping[str, str]) -> list[str]:
    """The sentences with other names for arms."""
    return [_replaced(sentence, names, names.__getitem__) for sentence in sentences]


def _replaced(sentence: str, names: Iterable[str], by: Callable[[str], str]) -> str:
    """A command that stands below the sentence, to be copied, keeps its arms."""
    longest_first = sorted(names, key=len, reverse=True)  # equal{a|b}@mmoe is not equal{a|b}
    if not longest_first:
        return sentence
    text, line, command = sentence.partition("\n")
    return re.sub("|".join(map(re.escape, longest_first)), lambda found: by(found[0]), text) + line + command


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
