"""Reading task gradients, and carrying the balanced one back through a single scalar."""
