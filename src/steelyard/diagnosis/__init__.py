"""A first look at how the tasks' gradients get along: numbers, and what they say."""

from steelyard.diagnosis.diagnosis import Diagnosis, diagnose

__all__ = ["Diagnosis", "diagnose"]
