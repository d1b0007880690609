"""Building blocks, one verb each."""
