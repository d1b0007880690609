"""A transformation in, a transformation out."""
