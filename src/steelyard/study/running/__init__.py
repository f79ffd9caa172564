"""Carrying out a plan: processes, the runner, and what it would take."""
