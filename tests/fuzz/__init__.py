"""The fuzzer: random definitions on random trees in random surroundings.

`pytest tests/fuzz` runs the same few cases every time; `make fuzz` runs new ones for an hour.
"""
