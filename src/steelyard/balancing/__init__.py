"""One call from losses to a scalar, and everything around a method that is done once."""
