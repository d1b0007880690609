"""A value for every count: learning rates and other hyperparameters over time."""
