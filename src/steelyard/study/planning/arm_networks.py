"""Several networks that share the tasks of one arm: ``uw{left right|depth +left}``.

Grammar, inside the braces::

    networks = network {"|" network}
    network  = task {task | "+" task}
    task     = a name, or a quoted one where it holds blanks or any of {}|+"'

A task is served by the network that names it; ``+left`` learns along in another one, to help, and is not read there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from steelyard.errors import OptionError, UnknownNameError

_NAME = re.compile(r"""(\+?)(?:"([^"]*)"|([^\s{}|+"']+))(?=\s|$)""")


@dataclass(frozen=True)
class Network:
    """One network of an arm.

    Args:
        learns: the tasks whose losses train it, in the problem's order.
        serves: those of them that are read from it.
    """

    learns: tuple[str, ...]
    serves: tuple[str, ...]

    def __str__(self) -> str:
        helping = [f"+{_write(task)}" for task in self.learns if task not in self.serves]
        return " ".join([*map(_write, self.serves), *helping])


def write_networks(networks: Sequence[Network]) -> str:
    """``{left right|depth +left}``."""
    return "{" + "|".join(map(str, networks)) + "}" if networks else ""


def parse_networks(text: str) -> tuple[Network, ...]:
    """Read what stands between the braces.

    Raises:
        OptionError: a network is empty, or a task is served twice.
    """
    found = tuple(_network(piece, text) for piece in _split(text))
    served = [task for network in found for task in network.serves]
    if twice := sorted({task for task in served if served.count(task) > 1}):
        raise OptionError(
            f"{{{text}}} has {_write(twice[0])} in two networks: write +{_write(twice[0])} where it only helps"
        )
    return found


def check_networks(networks: Sequence[Network], tasks: Sequence[str]) -> tuple[Network, ...]:
    """The same networks with their tasks in the study's order, the first task's network first.

    Raises:
        UnknownNameError: a task is none of the study's.
        OptionError: a task is served by no network.
    """
    for network in networks:
        for task in network.learns:
            if task not in tasks:
                raise UnknownNameError("task", task, tasks)
    served = {task for network in networks for task in network.serves}
    if missing := [task for task in tasks if task not in served]:
        raise OptionError(f"{write_networks(networks)} leaves {', '.join(missing)} out: every task needs a network")
    ordered = [
        Network(tuple(t for t in tasks if t in network.learns), tuple(t for t in tasks if t in network.serves))
        for network in networks
    ]
    return tuple(sorted(ordered, key=lambda network: tasks.index(network.serves[0])))


def _split(text: str) -> list[str]:
    """At bars that stand outside quotes."""
    pieces, quoted, start = [], False, 0
    for place, character in enumerate(text):
        if character == '"':
            quoted = not quoted
        elif character == "|" and not quoted:
            pieces.append(text[start:place])
            start = place + 1
    return [*pieces, text[start:]]


def _network(piece: str, text: str) -> Network:
    rest, serves, helping = piece.strip(), list[str](), list[str]()
    while rest:
        match = _NAME.match(rest)
        if match is None:
            raise OptionError(
                f"cannot read {rest!r} in {{{text}}}: name tasks with blanks between them, as in uw{{left right|depth}}"
            )
        helps, quoted, plain = match.groups()
        name = plain if quoted is None else _unquoted(quoted)
        if name in serves or name in helping:
            raise OptionError(f"{{{text}}} names {_write(name)} twice in one network")
        (helping if helps else serves).append(name)
        rest = rest[match.end() :].lstrip()
    if not serves:
        raise OptionError(f"{{{text}}} has a network that serves no task: name one without +")
    return Network((*serves, *helping), tuple(serves))  # as it is written; `check_networks` has the problem's order


def _unquoted(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError as error:
        raise OptionError(f'cannot read the task name "{text}": {error}') from None


def _write(task: str) -> str:
    if re.fullmatch(r"""[^\s{}()\[\]|+"',@\\]+""", task):
        return task
    # A quote inside would end the text for whoever looks for commas between arms.
    inside = ("\\u0022" if letter == '"' else json.dumps(letter, ensure_ascii=False)[1:-1] for letter in task)
    return f'"{"".join(inside)}"'
