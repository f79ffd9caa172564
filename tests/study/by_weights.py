"""The family of a study's questions, step by step from its description: what `family.together` is held to."""


def weights(open_tests, units, first):
    """Test -> its part of the error, while these tests are open."""
    found = {}
    alive = [unit for unit in units if {unit.first, *unit.others} & open_tests]
    for unit in alive:
        others = [test for test in unit.others if test in open_tests]
        if unit.first in open_tests:
            found[unit.first] = (first if others else 1.0) / len(alive)
        rest = 1.0 - first if unit.first in open_tests else 1.0
        found |= {test: rest / len(others) / len(alive) for test in others}
    return found


def adjusted(p_values, units, first=0.8):
    """Test -> adjusted p-value: the smallest p / weight is decided next, and weights are dealt anew."""
    open_tests, largest, found = set(p_values), 0.0, {}
    while open_tests:
        dealt = weights(open_tests, units, first)
        test = min(open_tests, key=lambda test: p_values[test] / dealt[test])
        largest = max(largest, min(1.0, p_values[test] / dealt[test]))
        found[test] = largest
        open_tests.remove(test)
    return found
