"""What is evaluated after a few steps, and the methods that have other parameters for it than they
train.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradtx

W = jnp.array(8.0)
PARAMS = {"a": jnp.array([2.0, -1.0]), "b": {"c": jnp.array(3.0)}}
GRADS = {"a": jnp.array([1.0, 2.0]), "b": {"c": jnp.array(-1.0)}}


def close(left: Any, right: Any, rtol: float = 1e-6) -> None:
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for mine, theirs in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(
            np.asarray(mine, np.float64), np.asarray(theirs, np.float64), rtol=rtol, atol=1e-12
        )


def train(tx: Any, params: Any = PARAMS, grads: Any = GRADS, steps: int = 3) -> tuple[Any, Any]:
    """The state and the parameters after a few steps, each with a gradient of another size."""
    state = tx.init(params)
    for step in range(1, steps + 1):
        updates, state = tx.update(jax.tree.map(lambda g, s=step: g * s, grads), state, params)
        params = gradtx.apply_updates(params, updates)
    return state, params


def evaluated(tx: Any, params: Any = PARAMS, grads: Any = GRADS, steps: int = 3) -> Any:
    return gradtx.eval_params(tx, *train(tx, params, grads, steps))


SGD, EMA = gradtx.sgd(0.5), gradtx.params_ema(0.5)
READERS: dict[str, Any] = {
    "params_ema": gradtx.chain(SGD, EMA),
    "params_average": gradtx.chain(SGD, gradtx.params_average(start=2)),
    "ema_nesterov": gradtx.ema_nesterov(SGD, 0.5, 0.5),
    "schedule_free": gradtx.schedule_free_sgd(0.5, b1=0.75),
    "tail_ema": gradtx.chain(SGD, gradtx.tail_ema(2.0, start=1, blend=0.5)),
    "anchor_gradient": gradtx.anchor_gradient(SGD, 2.0, gain=0.5, blend=0.5),
    "gpa": gradtx.gpa(SGD, mu_x=0.5, mu_y=0.5),
    "lookahead": gradtx.lookahead(SGD, 2, 0.5),
    "sam": gradtx.sam(SGD, gradtx.sgd(0.25), 2),
}
"""Everything that is evaluated at other parameters than it trains."""
