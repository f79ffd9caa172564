"""Lists, counted nouns and columns as sentences and tables have them."""

from steelyard.io.lists_and_counts import columns, counted, listed


def test_lists_and_counted_nouns() -> None:
    assert [listed(["a", "b", "c"][:n]) for n in (1, 2, 3)] == ["a", "a and b", "a, b and c"]
    assert listed(["a", "b"], "or") == "a or b"
    assert [counted(n, "seed") for n in (0, 1, 2)] == ["0 seeds", "1 seed", "2 seeds"]


def test_columns_are_as_wide_as_their_widest_cell_and_lines_end_with_it() -> None:
    rows = [("task", "loss"), ("a", "1.25"), ("longer", "3")]
    assert columns(rows) == "task    loss\na       1.25\nlonger  3"
    assert columns(rows, numbers=True) == "task    loss\na       1.25\nlonger     3"
