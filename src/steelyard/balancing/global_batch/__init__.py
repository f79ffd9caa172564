"""One look at what all ranks hold: their parts of a batch, made one."""
