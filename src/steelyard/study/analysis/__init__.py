"""From trials to verdicts: statistics, judging, and the words for them."""
