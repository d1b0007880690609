"""Optimizer state in fewer bits: codecs, and the wrapper that puts them on the slots of any
optimizer.
"""
