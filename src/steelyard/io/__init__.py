"""What leaves the program: text on a terminal, and files that are written whole or not at all."""
