"""Other libraries rely on the promotion of ranks, which gradtx's own tests forbid."""

import jax

jax.config.update("jax_numpy_rank_promotion", "allow")
