"""Looking at optimizers: what they keep, and what it costs."""
