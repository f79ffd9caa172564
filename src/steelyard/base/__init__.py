"""What a method is: its declarations, its state, and what it sees and answers. The author's side."""
