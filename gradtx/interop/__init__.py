"""What leaves gradtx and comes back: checkpoints."""
