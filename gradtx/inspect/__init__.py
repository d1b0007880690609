"""Inspection of optimizers: memory, metrics, and the learning rate range test."""
