"""One trial, alone or stacked with others: everything that a study does to a network."""
