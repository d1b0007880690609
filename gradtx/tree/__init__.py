"""Arithmetic, paths, casts and kernels over pytrees; knows nothing of optimizers."""
