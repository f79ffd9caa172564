"""Tasks that share no samples: all their trunk gradients from one backward pass, each sample's part by its task."""
