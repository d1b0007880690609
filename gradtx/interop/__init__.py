"""Interoperation: checkpoints."""
