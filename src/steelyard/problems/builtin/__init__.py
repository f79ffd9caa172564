"""The built-in problems, one file each, and the parts that several of them share."""
