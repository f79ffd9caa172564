"""Thin adapters to trainers, each in a module of its own that imports its framework; none is imported by default.

A balancer needs none of them: it is called where the losses are and returns a scalar. They spare the lines around it:
attaching to the optimizer, the end of epochs, logging, checkpoints.
"""
