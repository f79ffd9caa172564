"""What a study keeps: the store, its lock, and the checkpoints of running trials."""
