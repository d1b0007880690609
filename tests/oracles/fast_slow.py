"""Fast-slow decay in float64, from its equation."""


def fast_slow_decay_schedule(
    count: float,
    peak_value: float,
    knee_value: float,
    warmup_steps: float,
    stable_steps: float,
    fast_steps: float,
    slow_steps: float,
    power: float = 0.6,
    end_value: float = 0.0,
) -> float:
    """modded-nanogpt, pull request 351."""
    fast = count - warmup_steps - stable_steps
    slow = fast - fast_steps
    if fast < 0:
        return peak_value * min(1.0, (count + 1) / max(warmup_steps, 1))
    if slow < 0:
        return peak_value + (knee_value - peak_value) * (fast / fast_steps) ** power
    if slow < slow_steps:
        return knee_value + (end_value - knee_value) * slow / slow_steps
    return end_value
