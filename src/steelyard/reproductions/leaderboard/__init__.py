"""Every method on many problems: what was trained, as files, and what these files say together."""
