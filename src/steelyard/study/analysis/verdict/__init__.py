"""A study in sentences, one file for each question that they answer."""
