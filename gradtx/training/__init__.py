"""What does a training loop call? Steps, hyperparameters by name, evaluation, reports."""
