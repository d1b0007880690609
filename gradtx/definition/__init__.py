"""What is `adamw(1e-3)`? Definitions, schedules, configs, and the types and errors they use."""
