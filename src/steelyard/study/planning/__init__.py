"""What a study will train: the plan, its arms, and what validation data choose."""
