"""Two processes of four devices train as one process of eight: `jax.distributed` on the CPU."""
