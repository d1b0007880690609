"""What happens at `update`? Rules, programs, and the kernels that run rules on arrays."""
